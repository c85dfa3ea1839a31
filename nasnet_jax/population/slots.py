"""The queue of children before the slots of a population."""

import collections
import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from nasnet_jax.population.evaluation import (
  FAILED,
  OK,
  Outcome,
  Progress,
  Queue,
  Stops,
)
from nasnet_jax.training import hosts


def drain(
  queue: Queue,
  progress: Progress | None = None,
  note: Callable[[list[tuple[int, Outcome]]], None] = lambda done: None,
) -> dict[int, Outcome]:
  """Trains all that is in a queue to its end: outcomes by child.

  Args:
    note: told of children as soon as they are done.
  """
  done = {}
  while queue.busy:
    fresh = queue.advance()
    if fresh:
      note(fresh)
    done.update(fresh)
    if progress:
      progress(*queue.report())
  return done


@dataclasses.dataclass(eq=False)
class _QueuedChild:
  """One child on its way from the end of the queue to its outcome."""

  number: int
  genotype: Any
  seed: int
  horizon: int  # in updates
  ends: list[int]  # rungs to come and the end, in calls
  done: int = 0  # calls
  failed: bool = False
  seconds: float = 0.0
  rungs: list[float] = dataclasses.field(default_factory=list)  # accuracies
  cost: dict[str, float] | None = None
  scores: dict[str, float | None] | None = None


class SlotQueue:
  """See `evaluation.Queue`: who is in which slot of a population."""

  def __init__(self, owner, stops: Stops):
    """owner: the `evaluator.PopulationEvaluator`, which holds the state."""
    self.owner, self.stops = owner, stops
    slots = owner.population.slots
    self.waiting: collections.deque[_QueuedChild] = collections.deque()
    self.children: list[_QueuedChild | None] = [None] * slots
    # Slots whose state on the devices is not that of their child.
    self.stale = np.ones(slots, bool)
    self.genotypes = None  # of all slots, stacked
    self.on_devices = None  # the same
    self.under_way: dict[int, _QueuedChild] = {}
    self.added = 0
    self._pending = None
    self._last_loss = float("nan")

  @property
  def busy(self) -> bool:
    return bool(self.under_way)

  def add(self, children, decisions, seeds, budgets) -> None:
    if not len(seeds):
      return
    genotypes = self.owner.space.decode(np.asarray(decisions, np.int32))
    for i, (number, seed, budget) in enumerate(zip(children, seeds, budgets)):
      genotype = jax.tree.map(lambda leaf, i=i: leaf[i], genotypes)
      horizon = self.owner.steps(budget)
      end = self.owner.calls(horizon)
      ends = [r for r in self.stops.rungs if r < end] + [end]
      child = _QueuedChild(int(number), genotype, int(seed), horizon, ends)
      self.waiting.append(child)
      self.under_way[child.number] = child
    self.added += len(seeds)

  def advance(self) -> list[tuple[int, Outcome]]:
    self._fill_slots()
    in_training = [child for child in self.children if child]
    start = time.perf_counter()
    self._train(in_training)
    due = np.array([bool(c) and c.done >= c.ends[0] for c in self.children])
    correct = self._count_correct(due) if due.any() else due
    share = (time.perf_counter() - start) / len(in_training)
    for child in in_training:
      child.seconds += share
    self._score([self.children[slot] for slot in np.flatnonzero(due)])
    finished = []
    # By number, whatever the slots: see `Stops.keep`.
    for slot in sorted(np.flatnonzero(due), key=self._number_in):
      child = self.children[slot]
      outcome = self._judge(child, int(correct[slot]))
      if outcome:
        self._before_leaving(slot, child)
        finished.append((child.number, outcome))
        self.children[slot], self.stale[slot] = None, True
        del self.under_way[child.number]
    return finished

  def _before_leaving(self, slot: int, child: _QueuedChild):
    """Called while a child that is done is still in its slot."""

  def _after_filling(self, fresh: np.ndarray):
    """Called when new children, where fresh, have their initial weights."""

  def due(self, child: int) -> int:
    return self.under_way[child].ends[0]

  def report(self) -> tuple[float, str]:
    in_training = [child for child in self.children if child]
    part = sum(child.done / child.ends[-1] for child in in_training)
    over = self.added - len(self.under_way)
    words = f"{over}/{self.added} trained"
    if np.isfinite(self._last_loss):
      words += f", loss {self._last_loss:.3f}"
    return (over + part) / self.added, words

  def _train(self, in_training: list[_QueuedChild]):
    """One call of the compiled step."""
    owner = self.owner
    state, owner.state = owner.state, None  # donated: after a stop, made anew
    owner.state, metrics = owner.population.train(
      state, self.on_devices, owner.train_data
    )
    self._note_losses()  # of the call before: the device never waits for us
    self._pending = (list(self.children), metrics["loss"])
    for child in in_training:
      child.done += 1

  def _count_correct(self, due: np.ndarray) -> np.ndarray:
    """int[slots]; all hosts end here together, and know all that follows."""
    self._note_losses()
    failed = hosts.gather([bool(c) and c.failed for c in self.children]).any(0)
    for child, is_failed in zip(self.children, failed):
      if child:
        child.failed = bool(is_failed)
    owner = self.owner
    return hosts.fetch(
      owner.population.count_correct(
        owner.state,
        owner.population.put(due),
        self.on_devices,
        owner.valid_data,
      )
    )

  def _number_in(self, slot: int) -> int:
    return self.children[slot].number

  def _judge(self, child: _QueuedChild, correct: int) -> Outcome | None:
    """The outcome of a child that ends here, at a rung or where its horizon
    is; None for one that goes on."""
    last = len(child.ends) == 1
    failed = child.failed
    accuracy = float("nan") if failed else correct / self.owner.num_valid
    if not last and not failed:
      child.rungs.append(accuracy)
    outcome = Outcome(
      accuracy,
      FAILED if failed else OK,
      min(child.done * self.owner.recipe.steps_per_call, child.horizon),
      child.seconds,
      **self._cost(child),
      horizon=child.horizon if self.stops.rungs else 0,
      rungs=tuple(child.rungs),
      scores=child.scores,
    )
    rung = len(child.rungs) - 1
    if last or failed or not self.stops.keep(child.number, rung, outcome):
      return outcome
    del child.ends[0]
    return None

  def _score(self, children: list[_QueuedChild]):
    """Of their initial weights, once; together, to use all devices."""
    new = [child for child in children if child.scores is None]
    found = self.owner.score_genotypes(
      [child.genotype for child in new], [child.seed for child in new]
    )
    for child, scores in zip(new, found, strict=True):
      child.scores = scores

  def _cost(self, child: _QueuedChild) -> dict[str, float]:
    if child.cost is None:
      child.cost = self.owner.cost(child.genotype)
    return child.cost

  def _note_losses(self):
    if self._pending is None:
      return
    children, loss = self._pending
    self._pending = None
    here = [(children[i], value) for i, value in _here(loss) if children[i]]
    for child, value in here:
      if not np.isfinite(value):
        child.failed = True
    if here:
      self._last_loss = float(np.mean([value for _, value in here]))

  def _fill_slots(self):
    """Waiting children take the free slots; the rest have nothing to do."""
    for slot, child in enumerate(self.children):
      if child is None and self.waiting:
        child = self.children[slot] = self.waiting.popleft()
        self.stale[slot] = True
        self._put(slot, child.genotype)
    if not self.stale.any():
      return
    seeds = np.array([c.seed if c else 0 for c in self.children], np.uint32)
    horizons = np.array(
      [c.horizon if c else 0 for c in self.children], np.int32
    )
    owner = self.owner
    state, owner.state = owner.state, None
    put = owner.population.put
    self.on_devices = put(self.genotypes)
    owner.state = owner.population.refill(
      state, *put((self.stale, seeds, horizons)), self.on_devices
    )
    fresh, self.stale = self.stale, np.zeros(len(self.children), bool)
    self._after_filling(fresh)

  def _put(self, slot: int, genotype):
    """A new array: the devices may still read the old one."""
    if self.genotypes is None:  # anything that is a cell will do for the rest
      slots = len(self.children)
      self.genotypes = jax.tree.map(lambda g: np.stack([g] * slots), genotype)
      return
    self.genotypes = jax.tree.map(np.copy, self.genotypes)
    for leaf, new in zip(
      jax.tree.leaves(self.genotypes), jax.tree.leaves(genotype), strict=True
    ):
      leaf[slot] = new


def _here(values) -> Iterator[tuple[int, float]]:
  """(slot, value) of f32[slots] that lie on this host's devices."""
  if hosts.count() == 1:
    yield from enumerate(np.asarray(values))
    return
  seen = set()
  for shard in values.addressable_shards:
    first = shard.index[0].start or 0
    if first not in seen:  # once, not by each device of `data`
      seen.add(first)
      yield from enumerate(np.asarray(shard.data), first)
