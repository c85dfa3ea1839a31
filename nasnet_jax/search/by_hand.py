"""A search whose children somebody else evaluates: asked and told by hand.

The files are those of `rounds`, so what survives a kill is the same: a child
counts once its line stands in the journal, and one that was asked for and not
told comes back in the next process.
"""

import dataclasses
import logging
import math
import pathlib
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from nasnet_jax import controllers, spaces
from nasnet_jax.controllers import base
from nasnet_jax.controllers.enqueued import enqueued
from nasnet_jax.data import places
from nasnet_jax.jobs import results
from nasnet_jax.population.evaluation import FAILED, OK, Outcome
from nasnet_jax.search import any_space, heirs, objectives, rounds
from nasnet_jax.search import start_from as earlier
from nasnet_jax.spaces.base import check_decisions
from nasnet_jax.training import own_parts, workdir

_log = logging.getLogger(__name__)
Row = dict[str, Any]
JOB = "by_hand"
_LEARNS = ("evolution", "random_search")  # from children of others
_SAVE_EVERY = 50  # answers; the rest is replayed out of the journal
_OPEN: weakref.WeakValueDictionary = weakref.WeakValueDictionary()


@dataclasses.dataclass(frozen=True)
class Child:
  """A child that is asked for.

  Attributes:
    id: its number, from 0.
    decisions: as many integers as the space has decisions.
    architecture: what they stand for, `space.decode(decisions)`; of a plain
      list of choices the decisions themselves.
    seed: for all that is random in its evaluation.
    budget: share of the usual training that it is to get, mostly 1.0.
    parent: the id of the child that it was made from; None: of none.
  """

  id: int
  decisions: tuple[int, ...]
  architecture: Any = dataclasses.field(compare=False, repr=False)
  seed: int
  budget: float
  parent: int | None = None


class ByHand:
  """Asked for children, told of their rewards, in a run's folder.

  One process at a time works in a folder. Within a process the newest one
  does: an older one of the same folder is closed.
  """

  def __init__(
    self,
    folder,
    space,
    strategy: str = "evolution",
    seed: int = 0,
    enqueue: Iterable = (),
    start_from=None,
    **options,
  ):
    """See `nas.Study`."""
    self.space = any_space.as_space(space)
    controller = controllers.make(strategy, self.space, **options)
    objectives.require_one(controller, strategy, "a study")
    other = start_from and str(getattr(start_from, "folder", start_from))
    known = earlier.read(places.of_run(folder), other, self.space)
    controller = earlier.teach(controller, strategy, known)
    first = _enqueued(self.space, enqueue)
    if len(first):
      learns = strategy in _LEARNS and options.get("ageing", True)
      controller = enqueued(controller, first, learns)
    if int(seed) != seed or seed < 0:
      raise ValueError(f"seed is {seed}: give a whole number, 0 or more")
    self._controller = controller
    # Nothing here ends at a number of children.
    self._settings = rounds.RoundSettings(0, 1, int(seed))
    self._guard, self._at, self._unsaved = threading.RLock(), None, 0
    self._given: set[int] = set()  # ids that this process has handed out
    self.folder = self._lock(folder)
    config = {
      "job": JOB,
      "space": any_space.describe(self.space),
      "strategy": strategy,
      "options": options,
      "seed": int(seed),
      "enqueue": first.tolist(),
      "start_from": other or None,
      **earlier.recorded(known),
      **own_parts.of({"strategy": [strategy]}),
    }
    try:
      own_parts.check(self.folder / results.CONFIG, config)
      earlier.tell(self.folder, other, known, config, {})
      earlier.keep(self.folder, known)
      workdir.claim(self.folder / results.CONFIG, config, (own_parts.FIELD,))
      self._standing()
    except BaseException:
      self.close()
      raise
    if len(first) and not learns:
      _log.warning(
        "enqueue: strategy %r learns nothing from children that it did not"
        " propose: they are evaluated first, and can win",
        strategy,
      )

  def _lock(self, folder) -> pathlib.Path:
    path = str(places.of_run(folder).absolute())
    older = _OPEN.get(path)
    if older is not None:
      older.close()
    self._locked = workdir.locked(folder)
    _OPEN[path] = self
    return self._locked.__enter__()

  def close(self):
    """Lets others work in the folder; this study is then of no more use."""
    locked, self._locked = self._locked, None
    if locked is not None:
      locked.__exit__(None, None, None)

  @property
  def rows(self) -> list[Row]:
    """Of the children that were told, as in history.jsonl."""
    return self._standing().rows

  def ask(self, n: int = 1) -> list[Child]:
    """Children to evaluate, n or fewer.

    First come those that an earlier process asked for and did not tell, alone.
    None at all: the strategy waits for answers, or has nothing more to propose.
    """
    if n < 1:
      raise ValueError(f"ask is given {n}: ask for 1 child or more")
    with self._guard:
      at = self._standing()
      waiting = [i for i in at.pending.id.tolist() if i not in self._given]
      if not waiting:
        before = len(at.pending)
        self._at = None  # unless all of it is written
        at = self._at = rounds.ask(
          self.folder, self._controller, self._settings, at, n
        )
        waiting = at.pending.id[before:].tolist()
      chosen = waiting[:n]
      self._given.update(chosen)
      rows = at.pending.rows(np.isin(at.pending.id, chosen))
      return [self._child(rows, i) for i in range(len(rows))]

  def _child(self, proposals: base.Proposals, i: int) -> Child:
    number, decisions = int(proposals.id[i]), proposals.decisions[i]
    return Child(
      number,
      tuple(int(d) for d in decisions),
      self.space.decode(np.asarray(decisions, np.int32)),
      rounds.child_seed(self._settings.seed, number),
      float(proposals.budget[i]),
      heirs.words(0.0, proposals.rows([i]), heirs.NO_PARENT).get("parent"),
    )

  def tell(self, child: Child | int, reward: float | None, **costs):
    """The reward of a child that was asked for: larger is better.

    Args:
      child: as `ask` gave it, or its number.
      reward: None or NaN: it failed, which teaches nothing.
      **costs: what is known of it: params, macs, bytes, latency (seconds of a
        call), seconds (of its evaluation).

    Raises:
      ValueError: one line, for a child that waits for no answer, a reward that
        is no number, or an unknown cost.
    """
    number = getattr(child, "id", child)
    outcome = _outcome(number, reward, costs)
    with self._guard:
      at = self._standing()
      if number not in at.pending.id:
        known = any(row["id"] == number for row in at.rows)
        why = "was told before" if known else "was never asked for"
        raise ValueError(f"child {number} {why}: tell each child once")
      self._at = None  # unless all of it is written
      self._at = rounds.tell(
        self.folder, self._controller, self._settings, at, {number: outcome}
      )
      self._unsaved += 1
      if self._unsaved >= _SAVE_EVERY:
        rounds.save(self.folder, self._at)
        self._unsaved = 0

  def run(
    self,
    evaluate: Callable[[Child], float | None],
    children: int,
    at_once: int = 1,
  ):
    """Asks, evaluates and tells until so many children are there.

    Args:
      evaluate: of a child gives its reward, or None if it failed. What it
        raises ends the run; the child comes back when it goes on.
      children: in all, those of before included.
      at_once: asked for at a time; each ask knows the answers to the ones
        before it.
    """
    if min(children, at_once) < 1:
      raise ValueError(
        f"children is {children} and at_once {at_once}: give 1 or more"
      )
    while (left := children - len(self.rows)) > 0:
      asked = self.ask(min(at_once, left))
      if not asked:
        _log.warning(
          "the strategy has no more proposals: the search ends with %d of %d"
          " children",
          len(self.rows),
          children,
        )
        return
      for child in asked:
        self.tell(child, evaluate(child))

  def _standing(self) -> rounds.Standing:
    if self._locked is None:
      raise ValueError(
        f"this study of {self.folder} is closed: open it again with nas.Study"
      )
    with self._guard:
      if self._at is None:
        self._at = rounds.resume(self.folder, self._controller, self._settings)
      return self._at


def _enqueued(space, enqueue) -> np.ndarray:
  """int32[k, D]; ValueError, one line, for what is no child of the space."""
  rows = [getattr(child, "decisions", child) for child in enqueue]
  if not rows:
    return np.zeros((0, len(space.num_choices)), np.int32)
  try:
    return np.stack([check_decisions(space.num_choices, row) for row in rows])
  except ValueError as error:
    raise ValueError(f"enqueue: {error}") from None


def _is_cost(value) -> bool:
  try:
    return 0 <= float(value) < math.inf and not isinstance(value, str)
  except (TypeError, ValueError):
    return False


_COSTS = ("params", "macs", "bytes", "latency", "seconds")


def _outcome(child: int, reward, costs: Row) -> Outcome:
  for name in costs:
    if name not in _COSTS:
      raise ValueError(
        f"child {child}: no cost is called {name!r}: {', '.join(_COSTS)}"
      )
    if not _is_cost(costs[name]):
      raise ValueError(
        f"child {child}: {name} is {costs[name]!r}: give a number, 0 or more"
      )
  try:
    value = math.nan if reward is None else float(reward)
  except (TypeError, ValueError):
    raise ValueError(
      f"child {child}: the reward is {reward!r}: give a number, or None if the"
      " child failed"
    ) from None
  if math.isinf(value):
    raise ValueError(
      f"child {child}: the reward is {value}: give a finite number, or None if"
      " the child failed"
    )
  status = FAILED if math.isnan(value) else OK
  known = {"seconds": 0.0, "params": 0, "macs": 0, **costs}
  return Outcome(value, status, 0, **known)


def reopen(folder, config: Row) -> ByHand:
  """The search by hand of a folder, from its config.json.

  Raises:
    ValueError: one line, if its space is only known to the program that made
      it.
  """
  fields = dict(config["space"])
  choices = fields.pop("num_choices", None)
  if choices is not None and fields["name"] != base.as_space([1]).name:
    raise ValueError(
      f"{folder} searches the space {fields['name']!r}, which this program does"
      " not know: give it, nas.Study(folder, space=...)"
    )
  return ByHand(
    folder,
    choices or spaces.get(**fields),
    config["strategy"],
    config["seed"],
    config["enqueue"],
    config.get("start_from"),
    **config["options"],
  )
