"""What a search asks of whoever trains its children, and is told.

`evaluator.PopulationEvaluator` trains them; `search.tabular` looks them up.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

OK, FAILED = 0, 1  # as in `controllers.base`
OVER_LIMIT = 2  # never trained, see `search.limits`
NO_PARENT = -1  # in place of a child's number, see `inheriting`

# Called between device calls: (share of this evaluation that is done in
# [0, 1], one short line on how it goes). Raising ends the evaluation.
Progress = Callable[[float, str], None]


class Outcome(NamedTuple):
  """What training one child told.

  Attributes:
    reward: accuracy on the validation images, NaN for a failed child. What
      the controller is told of it is up to `rewards`.
    status: `controllers.base.OK`, FAILED (its loss was not finite), or
      OVER_LIMIT.
    steps: updates made.
    seconds: this child's share of the wall time.
    params, macs: trainable parameters; multiply-accumulates per image.
    bytes: `traffic.count_bytes`; 0: not counted.
    latency: `latency.measure`, in seconds; 0: not measured.
    horizon: updates of its whole budget, more than `steps` for a child that
      was stopped; 0: nobody is ever stopped here.
    rungs: accuracy at each rung it reached, see `Stops`.
    shared_epochs: of the weights that it shared with all children, and which
      made the `steps`; 0: its own.
    scores: of its initial weights by name, see `child_scores`; a value of None
      is not finite. None: there are none.
  """

  reward: float
  status: int
  steps: int
  seconds: float
  params: int
  macs: int
  bytes: int = 0
  latency: float = 0.0
  horizon: int = 0
  rungs: tuple[float, ...] = ()
  shared_epochs: float = 0.0
  scores: dict[str, float | None] | None = None


class Stops(NamedTuple):
  """Where children are looked at before their end, and who goes on.

  Attributes:
    rungs: calls of the compiled step after which a child is evaluated,
      ascending; a child that ends before is not looked at there.
    keep: (child, index of the rung, its outcome so far) -> whether it goes
      on. Of several children at one moment the lower numbers come first.
  """

  rungs: tuple[int, ...] = ()
  keep: Callable[[int, int, Outcome], bool] = lambda *_: True


NO_STOPS = Stops()


class Costs(NamedTuple):
  """What is known of a child beside its accuracy.

  Attributes:
    also: a cost that is not for nothing: "bytes" compiles every operation
      once, "latency" every architecture. Parameters and MACs are always there.
    image_side: of the images that costs are counted for, in pixels; 0: those
      that children train on. A network for large images can so be searched
      on small ones.
    latency_batch: images per measured call.
    bytes: whether bytes are counted, whatever `also` is.
  """

  also: str = ""
  image_side: int = 0
  latency_batch: int = 1
  bytes: bool = False


ONLY_COUNTED = Costs()


class Evaluator(Protocol):
  """Evaluates any number of children; the order of answers is that asked.

  One that has `costs(decisions) -> list[dict]` says what each of int[n, D]
  costs before any training, as in `Outcome`: so limits can be set. One that has
  `before_round(folder, number, draw, progress)` is told of each round before
  its children; see `shared_evaluator`. One that has `open_folder(folder)`, to
  be called first, and `keep_only(children)` keeps final weights of children,
  and its queue's `add` takes their parents; see `inheriting`. One that has
  `score_names` and `score(decisions, seeds) -> list[dict]` scores children
  without training, as in `Outcome`.
  """

  def evaluate(
    self,
    decisions: np.ndarray,
    seeds: np.ndarray,
    budgets: np.ndarray,
    progress: Progress | None = None,
  ) -> list[Outcome]:
    """decisions int32[n, D], seeds uint32[n], budgets f32[n] (1 = the
    configured training length). A child's outcome depends on its own
    decisions, seed and budget only, not on its neighbours."""


class Queue(Protocol):
  """Children that come and go one by one, more than there are slots.

  An evaluator that has `queue(stops) -> Queue`, `slots`, `steps(budget)`,
  `calls(updates)` and `steps_per_epoch` can stop children early and search
  without rounds. All slots advance in lockstep, so who ends when is a pure
  function of when children began and of how many updates they make.
  """

  @property
  def busy(self) -> bool:
    """Whether any child is in training or waits for a slot."""

  def add(
    self,
    children: Sequence[int],
    decisions: np.ndarray,
    seeds: np.ndarray,
    budgets: np.ndarray,
  ) -> None:
    """Children by number, ascending and never twice; they take free slots in
    that order. Arrays as in `Evaluator.evaluate`."""

  def advance(self) -> list[tuple[int, Outcome]]:
    """One call of the compiled step, while `busy`; (child, outcome) of who is
    done."""

  def due(self, child: int) -> int:
    """Calls from the child's first to the next after which it may end."""

  def report(self) -> tuple[float, str]:
    """What `Progress` is told."""
