"""Words on pictures, in whatever script they are written."""

import functools
import logging
import unicodedata

_log = logging.getLogger(__name__)

# Fonts with many scripts, as parts of their names, the likeliest first.
_WIDE = (
  "dejavusans.ttf",
  "notosanscjk",
  "sourcehansans",
  "noto",
  "wqy",
  "wenquanyi",
  "droidsansfallback",
  "unifont",
  "arialuni",
  "arial unicode",
  "msyh",
  "yahei",
  "simhei",
  "simsun",
  "pingfang",
  "hiragino",
  "applesdgothic",
  "msgothic",
  "yugoth",
  "meiryo",
  "malgun",
  "nirmala",
  "leelaw",
  "ipag",
  "takao",
  "nanum",
)


def font_for(words: str, size: int):
  """(a Pillow font that has the signs of these words, the words for it).

  Pillow's own if it has them, else matplotlib's, else one of the system's.
  Where none has, the signs that are missing are written as their numbers, and
  a line says so.
  """
  from PIL import ImageFont

  words = "".join(
    c if c.isprintable() else ascii(c)[1:-1]
    for c in unicodedata.normalize("NFC", words)
  )
  if words.isascii():
    return ImageFont.load_default(size), words
  found = _file_for(frozenset(words))
  if found is not None:
    return ImageFont.truetype(found[0], size, index=found[1]), words
  best = _fonts()[0] if _fonts() else None
  _tell(words)
  have = _signs(*best) if best else frozenset(range(128))
  words = "".join(c if ord(c) in have else f"U+{ord(c):04X} " for c in words)
  font = ImageFont.load_default(size)
  if best is not None:
    font = ImageFont.truetype(best[0], size, index=best[1])
  return font, words


@functools.cache
def _tell(words: str):
  _log.warning(
    "no font here has the signs of %r: they are drawn as their numbers in"
    " Unicode; install one that has, such as Noto Sans CJK (fonts-noto-cjk)",
    words,
  )


@functools.cache
def _file_for(signs: frozenset[str]) -> tuple[str, int] | None:
  needed = {ord(sign) for sign in signs if not sign.isspace()}
  return next((f for f in _fonts() if needed <= _signs(*f)), None)


@functools.cache
def _fonts() -> list[tuple[str, int]]:
  """(file, index in it) of fonts to try: matplotlib's own, then others, first
  those that are known to have many scripts."""
  from matplotlib import font_manager, get_data_path

  own = f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf"
  files = font_manager.findSystemFonts()

  def rank(file: str):
    name = file.lower()
    known = (i for i, part in enumerate(_WIDE) if part in name)
    # Plain weights before bold and slanted ones.
    plain = not any(w in name for w in ("bold", "italic", "oblique", "mono"))
    return next(known, len(_WIDE)), not plain, name

  return [(own, 0), *((file, 0) for file in sorted(files, key=rank))]


@functools.lru_cache(maxsize=256)
def _signs(file: str, index: int) -> frozenset[int]:
  """The characters that a font has a picture of."""
  from matplotlib import ft2font

  del index
  try:
    return frozenset(ft2font.FT2Font(file).get_charmap())
  except Exception:  # a font that is damaged, or of bitmaps
    return frozenset()
