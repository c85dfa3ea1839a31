"""From a file's bytes to uint8[H, W, C], with Pillow.

Whatever reads a picture, for training or to be asked about, reads it here.
"""

import contextlib
import functools
import io
import logging
from collections.abc import Callable
from pathlib import PurePath

import numpy as np

from nasnet_jax.data.image_data import DataError, printable

_log = logging.getLogger(__name__)

# Formats that Pillow knows by name only, or has drawn by another program.
_NO_PIXELS = frozenset(("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"))
# Formats whose further frames are previews, layers or other sizes.
_ONE_PICTURE = frozenset(("CUR", "ICNS", "ICO", "MPO", "PSD"))
HEIF = frozenset((".heic", ".heif", ".hif"))
_INSTALL_HEIF = "pip install pillow-heif"

# What is said of pictures that are read, but not as a whole; keys of `Remark`.
FRAMES = "hold several frames or pages, of which only the first is read"
DARK = (
  "use less than a sixteenth of their 16 bits and become nearly black: save"
  " them with 8 bits, or stretched to all 16"
)
CLEAR = "have transparent parts, whose hidden colours are read as they are"
METADATA = (
  "have metadata that cannot be read, so they are taken as they are stored:"
  " turned ones stay turned"
)
REMARKS = (FRAMES, DARK, CLEAR, METADATA)

# (kind, one of the above; name of the picture) -> None
Remark = Callable[[str, str], None]


@functools.cache
def endings() -> frozenset[str]:
  """Endings of the files that are taken for pictures, in lower case: those of
  all formats that the Pillow installed here opens; HEIC with its plugin."""
  from PIL import Image

  _register_heif()
  Image.init()
  return frozenset(
    ending
    for ending, kind in Image.EXTENSION.items()
    if kind in Image.OPEN and kind not in _NO_PIXELS
  )


@functools.cache
def _register_heif():
  with contextlib.suppress(ImportError):
    import pillow_heif

    pillow_heif.register_heif_opener()


def is_picture(name: PurePath) -> bool:
  """By its ending alone."""
  return name.suffix.lower() in endings()


def hint(ending: str) -> str:
  """How files of an ending that is none of `endings()` could be read."""
  return f" ({_INSTALL_HEIF} reads them)" if ending.lower() in HEIF else ""


@functools.cache  # so that each kind is told once
def _tell(kind: str):
  _log.warning("some images %s (told once)", kind)


def _remark(kind: str, name: str):
  del name
  _tell(kind)


def decode(
  name, content: bytes, size, channels: int | None, remark: Remark = _remark
) -> np.ndarray:
  """bytes of an image file -> uint8[H, W, C], C 1, 3 or 4.

  Args:
    name: for the message if it fails.
    size: as `fit`; None leaves the size.
    channels: 1 grey, 3 colour, 4 colour and opacity, None whichever of 1 and 3
      the file is. 16 bits become 8.
    remark: told of what is not read.

  Raises:
    DataError: if the file is broken, or has 32 bits per channel.
  """
  array = read(name, content, channels, remark)
  return fit(array, size) if size else array


def read(
  name, content: bytes, channels: int | None, remark: Remark = _remark
) -> np.ndarray:
  """As `decode`, at the file's own size."""
  with opened(name, content) as image:
    kind = image.format
    image = to_mode(
      name, upright(name, image, remark), channels, remark, kind=kind
    )
    array = np.asarray(image, np.uint8)
  return array if array.ndim == 3 else array[..., None]


@contextlib.contextmanager
def opened(name, content: bytes):
  """A Pillow image, not yet decoded. What fails on the way is a DataError."""
  from PIL import Image

  _register_heif()
  if not content.strip(b"\0"):
    why = "it is only zeros" if content else "it is empty, 0 bytes"
    raise broken(name, ValueError(why))
  try:
    with Image.open(io.BytesIO(content)) as image:
      yield image
  except DataError:
    raise
  except Image.DecompressionBombError as error:
    raise DataError(
      f"image {printable(name)} has more pixels than Pillow decodes"
      f" ({str(error).partition(',')[0]}): scale it down or take it out"
    ) from error
  except Exception as error:  # Pillow raises a dozen kinds for broken files
    raise broken(name, error, content) from error


def broken(name, error: Exception, content: bytes = b"") -> DataError:
  """What to say of an image that Pillow could not read."""
  from PIL import UnidentifiedImageError

  why = str(error) or type(error).__name__
  if isinstance(error, UnidentifiedImageError):
    # Whose own words hold an address, another one every time.
    why = "no image format that Pillow knows"
    if content[4:8] == b"ftyp" and content[8:11] in (b"hei", b"hev", b"mif"):
      why = f"HEIC, which Pillow does not know: {_INSTALL_HEIF}"
  return DataError(
    f"image {printable(name)} is broken ({printable(why)}): mend it or take it"
    " out"
  )


def fit(image: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
  """uint8[H, W, C] -> uint8[height, width, C].

  Scaled (bilinear, smoothed when it shrinks) until it covers that size, then
  the centre is cut out. An image of that size comes back unchanged.

  Args:
    size: (height, width), or the side of a square.
  """
  from PIL import Image, ImageOps

  height, width = (size, size) if isinstance(size, int) else size
  if image.shape[:2] == (height, width):
    return image
  grey = image.shape[2] == 1
  picture = Image.fromarray(image[..., 0] if grey else image)
  picture = ImageOps.fit(picture, (width, height), Image.Resampling.BILINEAR)
  array = np.asarray(picture, np.uint8)
  return array[..., None] if grey else array


def upright(name, image, remark: Remark = _remark):
  """Cameras store a turned picture as it came and say so in a tag: the picture
  as it is meant, and a remark if there is more of it, or the tag unreadable."""
  from PIL import Image

  if image.format not in _ONE_PICTURE and _is_several(image):
    remark(FRAMES, str(name))
  image.load()  # formats that turn by themselves do it now
  turn = Image.Transpose
  turns = {
    2: turn.FLIP_LEFT_RIGHT,
    3: turn.ROTATE_180,
    4: turn.FLIP_TOP_BOTTOM,
    5: turn.TRANSPOSE,
    6: turn.ROTATE_270,
    7: turn.TRANSVERSE,
    8: turn.ROTATE_90,
  }
  how = turns.get(orientation(name, image, remark))
  return image if how is None else image.transpose(how)


def _is_several(image) -> bool:
  try:
    return getattr(image, "is_animated", False)
  except Exception:  # of a later frame; the first one may be whole
    return True


def orientation(name, image, remark: Remark = _remark) -> int:
  """EXIF's number; 1, as stored, where it is not there or unreadable."""
  try:
    return image.getexif().get(0x0112, 1)
  except Exception:  # pixels are whole, whatever is wrong with their tags
    remark(METADATA, str(name))
    return 1


def to_mode(name, image, channels, remark: Remark = _remark, kind: str = ""):
  """A Pillow image of mode L, RGB or RGBA; arguments as `decode`.

  Args:
    kind: Pillow's name of the file's format.
  """
  from PIL import Image

  image.load()
  deep = image.mode.startswith("I;16") or (image.mode, kind) == ("I", "PPM")
  grey = deep or image.mode in ("1", "L", "LA")
  if deep:
    image = Image.fromarray(_high_bits(name, np.asarray(image), remark))
  elif image.mode in ("I", "F"):
    raise DataError(
      f"image {printable(name)} has 32 bits per pixel: save it with 8 or 16"
      " bits"
    )
  elif image.mode == "P":
    grey = image.getpalette() is None
  if channels != 4 and _is_clear(image):
    remark(CLEAR, str(name))
  wanted = {None: "L" if grey else "RGB", 1: "L", 3: "RGB", 4: "RGBA"}[channels]
  return image if image.mode == wanted else image.convert(wanted)


def _high_bits(name, deep: np.ndarray, remark: Remark) -> np.ndarray:
  """The upper 8 of 16 bits; Pillow's own conversion would cut off at 255."""
  if 0 < deep.max() < 4096:  # as 12-bit cameras leave them
    remark(DARK, str(name))
  return (deep >> 8).astype(np.uint8)


def _is_clear(image) -> bool:
  """Whether any pixel is transparent."""
  if image.mode in ("RGBA", "LA", "PA"):
    return image.getchannel("A").getextrema()[0] < 255
  return "transparency" in image.info


def check_alike(shapes, names):
  """All images must have one (H, W, C).

  Raises:
    DataError: naming the first two that differ, and the option that helps.
  """
  first = shapes[0]
  start = printable(names[0])
  for shape, name in zip(shapes, names):
    if shape[:2] != first[:2]:
      raise DataError(
        f"images differ in size: {start} is {first[0]}x{first[1]} and"
        f" {printable(name)} is {shape[0]}x{shape[1]}: set image_size, for"
        f" example to {min(first[:2])}"
      )
    if shape[2] != first[2]:
      raise DataError(
        f"{start} has {first[2]} channel(s) and {printable(name)} {shape[2]}:"
        " set channels to 1 (grey) or 3 (colour)"
      )
