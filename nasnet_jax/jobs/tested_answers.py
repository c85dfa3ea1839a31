"""What a network said to the test images, kept for the page of its run.

`test_answers.json` has the confusion matrix, the most confident wrong pictures
and a few pictures of each class, small. Nothing else reads it, and a run ends
without it, with a warning, where it cannot be made.
"""

import base64
import heapq
import io
import logging
import pathlib
from typing import Any

import numpy as np

from nasnet_jax.jobs import labelled
from nasnet_jax.report import TESTED
from nasnet_jax.training import evaluation, hosts, workdir

_log = logging.getLogger(__name__)
WRONG, SAMPLE, PER_CLASS = 24, 24, 3  # pictures; of each class at most
_DENSE = 64  # classes; of more, the matrix has mostly zeros
_PAIRS = 200  # of classes, kept of so many
_SIDE = 96  # pixels; larger pictures are kept so large


class Kept:
  """Takes the answers to the test images as they come, then writes them."""

  def __init__(self, class_names):
    self._names = tuple(class_names)
    self._matrix = np.zeros((len(self._names),) * 2, np.int64)
    self._wrong: list[tuple] = []  # a heap, the least confident first
    self._sample: dict[int, list[np.ndarray]] = {}
    self._seen = 0
    self._broken = hosts.count() > 1  # no host sees all the answers
    if self._broken:
      _log.info("of many hosts none keeps the answers to single test images")

  def see(self, answers: evaluation.Answers):
    """Takes a batch's answers; never raises."""
    if not self._broken:
      self._guarded(lambda: self._see(answers))

  def write(self, folder, top_5: int):
    """Writes `test_answers.json`; never raises."""
    if not self._broken and self._seen:
      self._guarded(lambda: self._write(pathlib.Path(folder), top_5))

  def _guarded(self, work):
    try:
      work()
    except Exception as error:  # a page is no reason to lose a training
      self._broken = True
      _log.warning(
        "the page will not show which test images were wrong: %s", error
      )

  def _see(self, answers: evaluation.Answers):
    good = np.flatnonzero(answers.counts)
    labels, said = answers.labels[good], answers.said[good]
    np.add.at(self._matrix, (labels, said), 1)
    for at in np.flatnonzero(labels != said):
      row = good[at]
      share = float(np.nan_to_num(answers.share[row]))
      entry = (share, -self._seen - int(at))
      if len(self._wrong) < WRONG or entry > self._wrong[0][:2]:
        what = int(answers.labels[row]), int(answers.said[row])
        push = heapq.heappush if len(self._wrong) < WRONG else heapq.heappushpop
        push(self._wrong, (*entry, *what, answers.picture(int(row))))
    for row in good:
      of_class = self._sample.setdefault(int(answers.labels[row]), [])
      if len(of_class) < PER_CLASS and len(self._sample) <= SAMPLE:
        of_class.append(answers.picture(int(row)))
    self._seen += len(good)

  def _write(self, folder: pathlib.Path, top_5: int):
    classes = np.flatnonzero(self._matrix.sum(1))
    score = labelled.Score(
      self._names,
      tuple(classes.tolist()),
      self._matrix[classes],
      top_5 if len(self._names) > labelled.TOP else None,
    )
    kept = labelled.to_json(score)
    if len(self._names) > _DENSE:
      kept["confusion"] = None
      kept["pairs"] = _pairs(score)
    kept["wrong"] = [
      {
        "picture": small(picture),
        "is": self._names[label],
        "said": self._names[said],
        "share": round(share, 4),
      }
      for share, _, label, said, picture in sorted(
        self._wrong, key=lambda entry: entry[:2], reverse=True
      )
    ]
    kept["sample"] = self._pictures_of_classes()
    workdir.write_json(folder / TESTED, kept)

  def _pictures_of_classes(self) -> list[dict[str, Any]]:
    """One of each class, then a second of each, as many as there is room."""
    order = [
      (label, self._sample[label][i])
      for i in range(PER_CLASS)
      for label in sorted(self._sample)
      if i < len(self._sample[label])
    ]
    return [
      {"picture": small(picture), "is": self._names[label]}
      for label, picture in sorted(order[:SAMPLE], key=lambda pair: pair[0])
    ]


def _pairs(score: labelled.Score) -> list[list[int]]:
  """[row, column, count] of the most frequent wrong answers."""
  wrong = score.confusion.copy()
  wrong[np.arange(len(score.classes)), list(score.classes)] = 0
  order = np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS]
  rows, columns = np.unravel_index(order, wrong.shape)
  counts = wrong[rows, columns]
  return np.stack([rows, columns, counts], 1)[counts > 0].tolist()


def small(picture: np.ndarray, side: int = _SIDE) -> str:
  """A data URI of uint8[H, W, C] with 1, 3 or 4 channels: as it is if it is as
  small as icons are, else a JPEG of at most that side."""
  from PIL import Image

  array = np.asarray(picture)
  array = array[..., 0] if array.shape[-1] == 1 else array
  image = Image.fromarray(array)
  file = io.BytesIO()
  if max(image.size) <= 32:
    image.save(file, "PNG")
    kind = "png"
  else:
    image = image.convert("RGB")
    image.thumbnail((side, side))
    image.save(file, "JPEG", quality=82)
    kind = "jpeg"
  return (
    f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
  )
