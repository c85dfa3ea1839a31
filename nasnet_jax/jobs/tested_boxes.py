"""What a detector found on the test pictures, kept for the page of its run.

`test_answers.json` has each class's precision and recall, and some pictures
with their boxes, small. Nothing else reads it, and a run ends without it, with
a warning, where it cannot be made.
"""

import logging
import pathlib
from typing import Any

import numpy as np

from nasnet_jax.detection import metrics, picture_stream, pictures
from nasnet_jax.jobs import box_drawings, tested_answers
from nasnet_jax.report import TESTED
from nasnet_jax.training import hosts, workdir

_log = logging.getLogger(__name__)
SCORE = 0.5  # that boxes have which are drawn and counted
PICTURES = 6
_SIDE = 420  # pixels, at which pictures are drawn and kept


def write(
  folder,
  found: tuple[metrics.Found, ...],
  split: pictures.Pictures,
  splits: pictures.Splits,
):
  """Writes `test_answers.json`; never raises."""
  if not hosts.is_first():
    return
  try:
    kept = {
      "score": SCORE,
      "by_class": _by_class(found, split, splits.class_names),
      "boxes": _drawn(found, split, splits.class_names),
    }
    workdir.write_json(pathlib.Path(folder) / TESTED, kept)
  except Exception as error:  # a page is no reason to lose a training
    _log.warning("the page will not show what was found: %s", error)


def _by_class(found, split, names) -> list[dict[str, Any]]:
  counts = metrics.counts_at(split.annotations, found, len(names), SCORE)
  return [
    {"name": name, **one._asdict()}
    for name, one in zip(names, counts, strict=True)
  ]


def _drawn(found, split, names) -> list[dict[str, Any]]:
  """A few pictures with something on them, spread over the split."""
  full = [i for i, one in enumerate(split.annotations) if len(one.boxes)]
  every = max(1, len(full) // PICTURES)
  return [_picture(i, found[i], split, names) for i in full[::every][:PICTURES]]


def _picture(index: int, found, split, names) -> dict[str, Any]:
  one = split.annotations[index]
  content = split.contents.read(index)
  picture = picture_stream.decode(one.name, content, one.side)
  true, good = one.boxes, found.scores >= SCORE
  shown = metrics.Found(*(part[good] for part in found))
  if max(picture.size) > _SIDE:  # before letters are drawn, which shrink badly
    by = _SIDE / max(picture.size)
    picture = picture.resize([max(1, round(s * by)) for s in picture.size])
    true, shown = true * by, shown._replace(boxes=shown.boxes * by)
  box_drawings.outline(picture, true)
  box_drawings.paint(picture, shown, names)
  return {
    "picture": tested_answers.small(np.asarray(picture), _SIDE),
    "found": int(good.sum()),
    "true": len(true),
  }
