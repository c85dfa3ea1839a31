"""From decisions to accuracies: children trained on images."""

import time

import jax
import numpy as np

from nasnet_jax.data import batches
from nasnet_jax.data.augment import Augmentation
from nasnet_jax.population import child_scores, networks, slots
from nasnet_jax.population import population as pop
from nasnet_jax.population.child_costs import ChildCosts
from nasnet_jax.population.evaluation import (
  NO_STOPS,
  ONLY_COUNTED,
  Costs,
  Outcome,
  Progress,
  Queue,
  Stops,
)
from nasnet_jax.training import compile_clock, program_cache


class PopulationEvaluator:
  """Trains children on images, as many at once as the mesh has slots.

  A slot whose child is done takes the next one, in the same compiled program.
  The outcome of a child depends on its own decisions, seed and budget, on
  `width` and on the size of `data`, and on nothing else.
  """

  def __init__(
    self,
    space,
    network,
    recipe: pop.ChildRecipe,
    augmentation: Augmentation,
    train: tuple[np.ndarray, np.ndarray],
    valid: tuple[np.ndarray, np.ndarray],
    mesh: jax.sharding.Mesh,
    costs: Costs = ONLY_COUNTED,
    scores: child_scores.ScoreSettings = child_scores.NO_SCORES,
  ):
    """space: of cells, of stages or MnasNet's; network: sizes, its family's
    config; train, valid: (images uint8[n, H, W, C], labels int[n]); costs,
    scores: what outcomes have of them."""
    self.space, self.recipe, self.mesh = space, recipe, mesh
    shape = train[0].shape[1:]
    networks.tell_unused_kernels(space, network, mesh)
    build, make_counter = networks.open_network(
      space, network, shape, recipe.fold
    )
    self._costs = ChildCosts(space, network, make_counter, shape, costs)
    self.score_names = scores.names
    self._scores = None
    if scores.names:
      self._scores = child_scores.ChildScores(
        space, network, augmentation, train, mesh, scores
      )
    self.num_valid = len(valid[1])
    self.steps_per_epoch = batches.steps_per_epoch(
      len(train[1]), recipe.batch_size
    )
    self.population = pop.make_population(
      build, recipe, augmentation, mesh, len(train[1]), self.num_valid
    )
    self.train_data = pop.put_data(*train, mesh)
    self.valid_data = pop.put_data(*valid, mesh)
    self.state = None
    self._compiled = False
    # All that the compiled functions are made from; its repr says it.
    self.about = (
      network,
      repr(space),
      shape,
      recipe,
      augmentation,
      (len(train[1]), self.num_valid),
      mesh.shape_tuple,
    )

  def steps(self, budget: float) -> int:
    """Updates that a budget stands for, at least 1."""
    return max(1, round(budget * self.recipe.epochs * self.steps_per_epoch))

  def calls(self, steps: int) -> int:
    """Calls of the compiled step that so many updates take."""
    return -(-steps // self.recipe.steps_per_call)

  @property
  def slots(self) -> int:
    """Children in training at once."""
    return self.population.slots

  def compile(self) -> float:
    """Compiles all that `evaluate` runs, or reads what an earlier process
    compiled; returns the seconds it took. Nothing compiles after it."""
    start = time.perf_counter()
    if not self._compiled:
      self.population = self._compile(self.population)
      self._compiled = True
    self.state = jax.block_until_ready(self.population.empty())
    return time.perf_counter() - start

  def _compile(self, made: pop.Population) -> pop.Population:
    functions = {
      "train": made.train,
      "count_correct": made.count_correct,
      "refill": made.refill,
      "empty": made.empty,
    }
    compiled = program_cache.compile_all(
      functions, self._arguments, self.mesh.devices.flat, self.about
    )
    if self._scores:
      self._scores.compile(self.about)
    return made._replace(**compiled)

  def _arguments(self) -> dict[str, tuple]:
    """Arguments of the population's functions, as shapes where big."""
    count, network = self.population.slots, self.population.network
    nobody = np.zeros(count, bool)
    zeros = np.zeros(count, np.int32)
    in_slots = jax.tree.map(
      lambda s: np.zeros((count, *s.shape), s.dtype), network.genotype_shapes
    )
    state = jax.eval_shape(self.population.empty)
    seeds = zeros.astype(np.uint32)
    put = self.population.put
    nobody, zeros, seeds, in_slots = put((nobody, zeros, seeds, in_slots))
    return {
      "empty": (),
      "refill": (state, nobody, seeds, zeros, in_slots),
      "train": (state, in_slots, self.train_data),
      "count_correct": (state, nobody, in_slots, self.valid_data),
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
    queue = self.queue()
    queue.add(range(len(seeds)), decisions, seeds, budgets)
    done = slots.drain(queue, progress)
    return [done[child] for child in range(len(seeds))]

  def queue(self, stops: Stops = NO_STOPS) -> Queue:
    """An empty queue; one that was made before must not go on."""
    self.compile_once()  # first of all: no child's seconds contain it
    if self.state is None:  # after a stop
      self.compile()
    return self._make_queue(stops)

  def compile_once(self):
    """The same as `compile`, told in a line; nothing where that is done."""
    if not self._compiled:
      what = "the program that trains every child, once"
      with compile_clock.compiling(what, self.about):
        self.compile()

  def _make_queue(self, stops: Stops) -> Queue:
    return slots.SlotQueue(self, stops)

  def cost(self, genotype) -> dict[str, float]:
    """What `Outcome` has of one child's costs."""
    return self._costs.of(genotype)

  def score_genotypes(self, genotypes, seeds) -> list:
    """`Outcome.scores` of each of so many genotypes."""
    if not self._scores:
      return [None] * len(genotypes)
    return self._scores.of_genotypes(genotypes, seeds)

  def costs(self, decisions) -> list[dict[str, float]]:
    """See `Evaluator`; a latency, which would be measured, is not there."""
    return self._costs.counted(decisions)

  def score(self, decisions, seeds) -> list[dict[str, float | None]]:
    """See `Evaluator`: of int32[n, D] and uint32[n]."""
    self.compile_once()
    return self._scores.of(decisions, seeds)

  def remember(self, decisions, seconds: float):
    """A latency that was measured before, of int[D]; the first one counts."""
    self._costs.remember(decisions, seconds)
