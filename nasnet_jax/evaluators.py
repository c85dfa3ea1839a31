"""From decisions to rewards."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np

# Called between device calls: (share of this evaluation that is done in
# [0, 1], one short line on how it goes). Raising ends the evaluation.
Progress = Callable[[float, str], None]


class Outcome(NamedTuple):
  """What training one child told.

  Attributes:
    reward: accuracy on the validation images, NaN for a failed child.
    status: `controllers.base.OK` or FAILED (its loss was not finite).
    steps: updates made.
    seconds: this child's share of the wall time.
    params, macs: trainable parameters; multiply-accumulates per image.
  """

  reward: float
  status: int
  steps: int
  seconds: float
  params: int
  macs: int


class Evaluator(Protocol):
  """Evaluates any number of children; the order of answers is that asked."""

  def evaluate(
    self,
    decisions: np.ndarray,
    seeds: np.ndarray,
    budgets: np.ndarray,
    progress: Progress | None = None,
  ) -> list[Outcome]:
    """decisions int32[n, D], seeds uint32[n], budgets f32[n] (1 = the
    configured training length). A child's outcome depends on its own row
    only, not on its neighbours."""
