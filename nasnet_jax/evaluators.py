"""From decisions to rewards."""

import functools
import logging
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

import jax
import numpy as np

from nasnet_jax import counting, population
from nasnet_jax.data import batches
from nasnet_jax.data.augment import Augmentation
from nasnet_jax.models.stacked import NetworkConfig
from nasnet_jax.spaces import genotype as gt
from nasnet_jax.spaces.cells import CellSpace
from nasnet_jax.training import programs

_log = logging.getLogger(__name__)
OK, FAILED = 0, 1  # as in `controllers.base`

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


class PopulationEvaluator:
  """Trains children on images, as many at once as the mesh has slots.

  A slot whose child is done takes the next one, in the same compiled program.
  The outcome of a child depends on its own decisions, seed and budget, on
  `width` and on the size of `data`, and on nothing else.
  """

  def __init__(
    self,
    space: CellSpace,
    network: NetworkConfig,
    recipe: population.Recipe,
    augmentation: Augmentation,
    train: tuple[np.ndarray, np.ndarray],
    valid: tuple[np.ndarray, np.ndarray],
    mesh: jax.sharding.Mesh,
  ):
    """train, valid: (images uint8[n, H, W, C], labels int[n])."""
    self.space, self.recipe, self.mesh = space, recipe, mesh
    shape = train[0].shape[1:]
    cells = {
      "operations": space.operations,
      "num_blocks": space.num_blocks,
      "image_shape": shape,
      "num_kinds": len(space.cells),
      "combiners": space.combiners,
      "separate": space.output == "separate",
    }
    build = population.make_network(network, **cells)
    self._make_counter = functools.partial(
      counting.make_counter,
      network,
      space.operations,
      space.num_blocks,
      shape,
      cells["separate"],
    )
    self._num_valid = len(valid[1])
    self._steps_per_epoch = batches.steps_per_epoch(
      len(train[1]), recipe.batch_size
    )
    self.population = population.make_population(
      build, recipe, augmentation, mesh, len(train[1]), self._num_valid
    )
    self._train = population.put_data(*train, mesh)
    self._valid = population.put_data(*valid, mesh)
    self._state = None
    self._compiled = False
    # All that the compiled functions are made from.
    self._about = (
      network,
      cells,
      recipe,
      augmentation,
      (len(train[1]), self._num_valid),
      mesh.shape_tuple,
    )

  @functools.cached_property
  def _count(self):  # made when a child is done: it takes seconds
    return self._make_counter()

  def steps(self, budget: float) -> int:
    """Updates that a budget stands for, at least 1."""
    return max(1, round(budget * self.recipe.epochs * self._steps_per_epoch))

  def compile(self) -> float:
    """Compiles all that `evaluate` runs, or reads what an earlier process
    compiled; returns the seconds it took. Nothing compiles after it."""
    start = time.perf_counter()
    if not self._compiled:
      self.population = self._compile(self.population)
      self._compiled = True
    self._state = jax.block_until_ready(self.population.empty())
    return time.perf_counter() - start

  def _compile(self, pop: population.Population) -> population.Population:
    functions = {
      "train": pop.train,
      "count_correct": pop.count_correct,
      "refill": pop.refill,
      "empty": pop.empty,
    }
    compiled = programs.compile_all(
      functions, self._arguments, self.mesh.devices.flat, self._about
    )
    return pop._replace(**compiled)

  def _arguments(self) -> dict[str, tuple]:
    """Arguments of the population's functions, as shapes where big."""
    slots, network = self.population.slots, self.population.network
    nobody = np.zeros(slots, bool)
    zeros = np.zeros(slots, np.int32)
    in_slots = gt.Genotype(
      *(np.zeros((slots, *s.shape), s.dtype) for s in network.genotype_shapes)
    )
    state = jax.eval_shape(self.population.empty)
    seeds = zeros.astype(np.uint32)
    return {
      "empty": (),
      "refill": (state, nobody, seeds, zeros, in_slots),
      "train": (state, in_slots, self._train),
      "count_correct": (state, nobody, in_slots, self._valid),
    }

  def evaluate(
    self,
    decisions: np.ndarray,
    seeds: np.ndarray,
    budgets: np.ndarray,
    progress: Progress | None = None,
  ) -> list[Outcome]:
    """See `Evaluator`."""
    if not len(seeds):
      return []
    if not self._compiled:  # first of all: no child's seconds contain it
      _log.info("compiling the program that trains every child, once")
      _log.info("compiled, or read from the cache, in %.0f s", self.compile())
    if self._state is None:  # after a stop
      self.compile()
    genotypes = self.space.decode(decisions)
    horizons = np.array([self.steps(b) for b in budgets], np.int32)
    run = _Run(self, genotypes, np.asarray(seeds, np.uint32), horizons)
    while not run.finished:
      run.advance()
      if progress:
        progress(*run.report())
    return run.outcomes()


class _Run:
  """The slots of one call of `evaluate`, and who sits in them."""

  def __init__(self, owner: PopulationEvaluator, genotypes, seeds, horizons):
    self.owner, self.pop = owner, owner.population
    self.genotypes, self.seeds, self.horizons = genotypes, seeds, horizons
    n, slots = len(seeds), self.pop.slots
    self.waiting = list(range(n))[::-1]
    self.child = np.full(slots, -1)  # who sits in each slot
    self.done = np.zeros(slots, np.int64)  # updates made there
    self.correct = np.zeros(n, np.int64)
    self.failed = np.zeros(n, bool)
    self.seconds = np.zeros(n)
    self.state = owner._state
    owner._state = None  # donated from here on: after a stop, made anew
    self.in_slots = None
    self._pending = None
    self._last_loss = float("nan")
    self._fill(np.ones(slots, bool))

  @property
  def finished(self) -> bool:
    return (self.child < 0).all()

  def advance(self):
    """One call of the compiled step, then evaluation of who is done."""
    start = time.perf_counter()
    sitting = self.child[self.child >= 0]
    self.state, metrics = self.pop.train(
      self.state, self.in_slots, self.owner._train
    )
    self._note_losses()  # of the call before: the device never waits for us
    self._pending = (self.child.copy(), metrics["loss"])
    self.done += self.owner.recipe.steps_per_call
    over = (self.child >= 0) & (self.done >= self._horizon_of(self.child))
    if over.any():
      self._note_losses()
      correct = self.pop.count_correct(
        self.state, over, self.in_slots, self.owner._valid
      )
      self.correct[self.child[over]] = np.asarray(correct)[over]
    self.seconds[sitting] += (time.perf_counter() - start) / len(sitting)
    if over.any():
      self._fill(over)

  def report(self) -> tuple[float, str]:
    n = len(self.seeds)
    over = n - len(self.waiting) - int((self.child >= 0).sum())
    sitting = self.child >= 0
    part = self.done[sitting] / self._horizon_of(self.child[sitting])
    share = (over + np.minimum(part, 1).sum()) / n
    words = f"{over}/{n} trained"
    if np.isfinite(self._last_loss):
      words += f", loss {self._last_loss:.3f}"
    return float(share), words

  def outcomes(self) -> list[Outcome]:
    self.owner._state = self.state
    rows = []
    for i, horizon in enumerate(self.horizons):
      genotype = gt.Genotype(*(leaf[i] for leaf in self.genotypes))
      params, macs = self.owner._count(genotype)
      failed = bool(self.failed[i])
      reward = np.nan if failed else self.correct[i] / self.owner._num_valid
      rows.append(
        Outcome(
          float(reward),
          FAILED if failed else OK,
          int(horizon),
          float(self.seconds[i]),
          params,
          macs,
        )
      )
    return rows

  def _horizon_of(self, children):
    return self.horizons[np.maximum(children, 0)]

  def _note_losses(self):
    if self._pending is None:
      return
    children, loss = self._pending
    loss = np.asarray(loss)
    sitting = children >= 0
    self.failed[children[sitting]] |= ~np.isfinite(loss[sitting])
    if sitting.any():
      self._last_loss = float(np.mean(loss[sitting]))
    self._pending = None

  def _fill(self, free: np.ndarray):
    """Seats waiting children in the free slots; the rest stand empty."""
    for slot in np.flatnonzero(free):
      self.child[slot] = self.waiting.pop() if self.waiting else -1
      self.done[slot] = 0
    who = np.maximum(self.child, 0)
    horizons = np.where(self.child >= 0, self.horizons[who], 0)
    self.in_slots = gt.Genotype(*(leaf[who] for leaf in self.genotypes))
    if (self.child >= 0).any():
      self.state = self.pop.refill(
        self.state,
        free,
        self.seeds[who],
        horizons.astype(np.int32),
        self.in_slots,
      )
