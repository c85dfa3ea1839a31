"""Numbers over time: metrics.jsonl and TensorBoard."""

import math
import pathlib
from typing import Any

import tensorboardX

from nasnet_jax.training import hosts, workdir


class Scalars:
  """Writes numbers into a run's folder; a context manager.

  Attributes:
    rows: all lines of metrics.jsonl, those of earlier processes too.
  """

  def __init__(self, folder):
    self._path = pathlib.Path(folder) / "metrics.jsonl"
    self.rows = workdir.keep_lines(self._path, lambda _: True, "")
    self._board = None
    if hosts.is_first():
      board = str(pathlib.Path(folder) / "tensorboard")
      self._board = tensorboardX.SummaryWriter(board)

  def __enter__(self):
    return self

  def __exit__(self, *_):
    if self._board:
      self._board.close()

  def write(self, step: int, values: dict[str, float | None], group: str):
    """One line, and one point per number; None and NaN are left out.

    Args:
      step: along the x axis.
      values: by name.
      group: of curves, such as "search".
    """
    row = {k: v for k, v in values.items() if v is not None and v == v}
    row = {"group": group, "step": step, **row}
    workdir.append_lines(self._path, [row])
    self.rows.append(row)
    self.plot(step, row, group)

  def plot(self, step: int, values: dict[str, Any], group: str):
    """Writes to TensorBoard only: for curves that have their own file."""
    if not self._board:
      return
    for name, value in values.items():
      if isinstance(value, float) and math.isfinite(value):
        self._board.add_scalar(f"{group}/{name}", value, step)
    self._board.flush()
