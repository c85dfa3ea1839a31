"""What a set of pictures with boxes leaves out or changes, in lines."""

import logging
import os
import pathlib

from nasnet_jax.data import listing
from nasnet_jax.data.image_data import listed, printable
from nasnet_jax.detection.annotations import Files, Splits

_log = logging.getLogger(__name__)
# Endings of files that say something of pictures, or of the set.
_WORDS = frozenset(
  (
    *(".txt", ".xml", ".json", ".yaml", ".yml", ".csv", ".md", ".html"),
    *(".names", ".labels", ".cache", ".pdf"),
  )
)


def tell(found: Splits):
  """Says in a line each what is dropped, cut, left out or in two splits."""
  for line in dict.fromkeys([*_of_boxes(found), *_of_files(found)]):
    _log.warning("%s: %s", found.name, line)


def _of_boxes(found: Splits):
  for part in (found.train, found.valid, found.test):
    if part.dropped:
      words = ", ".join(f"{n} {why}" for why, n in part.dropped.items())
      yield f"dropped {words}"
    if part.cut:
      yield (
        f"{part.cut:,} of {part.num_boxes:,} boxes reach over the border of"
        " their images and are cut there"
      )
  by_case = {}
  for name in found.class_names:
    by_case.setdefault(name.casefold(), []).append(name)
  for names in by_case.values():
    if len(names) > 1:
      yield f"{listed(names)} are different classes"


def _of_files(found: Splits):
  parts = {"training": found.train, "validation": found.valid}
  used = {
    what: set(map(pathlib.Path, part.contents.paths))
    for what, part in {**parts, "test": found.test}.items()
    if isinstance(part.contents, Files)
  }
  tested = used.pop("test", set())
  for what, paths in used.items():
    if shared := paths & tested:
      yield (
        f"{len(shared):,} of {len(tested):,} test pictures are {what} pictures"
        f" too ({listed(sorted(p.name for p in shared), 3)})"
      )
  yield from _left_out(tested.union(*used.values()))


def _left_out(used: set[pathlib.Path]):
  """Of the folders that hold the pictures that are used."""
  for place in sorted({path.parent for path in used}):
    there = listing.Listing(place)
    with os.scandir(place) as entries:
      for entry in entries:
        name = pathlib.PurePosixPath(entry.name)
        if name.suffix.lower() not in _WORDS and entry.is_file():
          there.add(name)
    where = printable(place)
    yield from (f"{where}: {line}" for line in there.remarks())
    others = sorted(n for n in there.pictures if place / n not in used)
    if others:
      yield (
        f"{where}: left out: {len(others):,} picture(s) that the splits do"
        f" not name ({listed(others, 3)})"
      )
