"""From decisions to accuracies by weights that all children share.

Each round trains the weights on, then judges the round's children by them,
which costs an evaluation each. Their state is a function of the search's seed
and of the history, and is saved once a round, in the run's folder: so a search
that is killed goes on with the same bits.
"""

import logging
import pathlib
import time
from collections.abc import Callable

import jax
import numpy as np

from nasnet_jax.data import batches
from nasnet_jax.data.augment import Augmentation
from nasnet_jax.population import networks
from nasnet_jax.population import population as pop
from nasnet_jax.population.child_costs import ChildCosts
from nasnet_jax.population.evaluation import (
  FAILED,
  OK,
  ONLY_COUNTED,
  Costs,
  Outcome,
  Progress,
)
from nasnet_jax.population.shared_training import SharedSettings, make_shared
from nasnet_jax.training import (
  checkpoint,
  compile_clock,
  hosts,
  program_cache,
  workdir,
)
from nasnet_jax.training import mesh as meshes

_log = logging.getLogger(__name__)
FOLDER = "shared_weights"  # of a run; they are still needed after its end
_TRAINING = 0.9  # of a round's progress, where it trains
_UNIFORM, _WEIGHTS = 1, 2  # keep these draws apart from others of the seed

# n -> int32[n, D]: children that the strategy would propose now.
Draw = Callable[[int], np.ndarray]


class SharedEvaluator:
  """Judges children by shared weights: an `evaluation.Evaluator`.

  `before_round` comes before each round's `evaluate`.
  """

  def __init__(
    self,
    space,
    network,
    recipe: pop.ChildRecipe,
    settings: SharedSettings,
    augmentation: Augmentation,
    train: tuple[np.ndarray, np.ndarray],
    valid: tuple[np.ndarray, np.ndarray],
    mesh: jax.sharding.Mesh,
    seed: int = 0,
    costs: Costs = ONLY_COUNTED,
  ):
    """seed: of the weights; the rest as in `evaluator.PopulationEvaluator`.

    Raises:
      ValueError: one line, for a space or settings that share no weights.
    """
    self.space, self.recipe, self.settings = space, recipe, settings
    self.mesh, self.seed = mesh, seed
    shape = train[0].shape[1:]
    networks.tell_unused_kernels(space, network, mesh)
    build, make_counter = networks.open_network(
      space, network, shape, recipe.fold
    )
    if build.stack is None:
      raise ValueError(
        f'search.weights is "shared", but children of space {space.name} have'
        ' no cells: set it to "alone", or take a space of cells'
      )
    self._costs = ChildCosts(space, network, make_counter, shape, costs)
    sizes = len(train[1]), len(valid[1])
    self.steps_per_epoch = batches.steps_per_epoch(sizes[0], recipe.batch_size)
    self.horizon = recipe.epochs * self.steps_per_epoch
    self.shared = make_shared(
      build, recipe, settings, augmentation, mesh, *sizes
    )
    self.train_data = pop.put_data(*train, mesh)
    self.valid_data = pop.put_data(*valid, mesh)
    self.state = None
    self._step = 0  # updates that the state has made
    self._genotype_shapes = build.genotype_shapes
    self._compiled = False
    self._base = 0.0  # the round's progress where children begin
    self._spent = 0.0  # seconds of training that no child has in its own yet
    # All that the compiled functions are made from.
    self._about = (
      "shared",
      network,
      repr(space),
      shape,
      recipe,
      settings,
      augmentation,
      sizes,
      mesh.shape_tuple,
    )

  def cost(self, genotype) -> dict[str, float]:
    """What `Outcome` has of one child's costs: those of a network alone."""
    return self._costs.of(genotype)

  def costs(self, decisions) -> list[dict[str, float]]:
    """See `Evaluator`."""
    return self._costs.counted(decisions)

  def remember(self, decisions, seconds: float):
    """A latency that was measured before."""
    self._costs.remember(decisions, seconds)

  def updates_before(self, number: int) -> int:
    """Updates that have been made when the children of a round are judged."""
    if not self.settings.epochs:
      return self.horizon
    each = max(1, round(self.settings.epochs * self.steps_per_epoch))
    return min(self.horizon, (number + 1) * each)

  def before_round(
    self,
    folder: pathlib.Path,
    number: int,
    draw: Draw,
    progress: Progress | None = None,
  ):
    """Trains the weights for a round, or finds that they are.

    Args:
      folder: the run's.
      number: rounds that were told so far.
      draw: of whom the strategy would propose.
      progress: see `Evaluator`; raising leaves the round to the next process.

    Raises:
      WorkdirError: if the folder has no weights of this round or the last.
      ValueError: if the loss is no number any more.
    """
    self._open(folder, number)
    count = self.updates_before(number) - self._step
    self._base = 0.0
    if not count:
      return
    start = time.perf_counter()
    try:
      loss = self._train(self._draw(count, draw), count, progress)
    except BaseException:
      self.state = None  # half of a round: what was saved is read again
      raise
    self._spent = time.perf_counter() - start
    self._base = _TRAINING
    checkpoint.save(folder / FOLDER, number + 1, self.state)
    _log.info(
      "shared weights: %d updates, %.1f of %d epochs, loss %.3f%s",
      count,
      self._step / self.steps_per_epoch,
      self.recipe.epochs,
      loss,
      "; further rounds train them no more"
      if self._step == self.horizon
      else "",
    )

  def _open(self, folder: pathlib.Path, number: int):
    """Compiles, and has the state before the round, or with it trained."""
    if not self._compiled:
      what = "the program that trains the weights of all children, once"
      with compile_clock.compiling(what, self._about):
        self._compile()
    if self.state is not None:
      return
    sequence = np.random.SeedSequence([self.seed, _WEIGHTS])
    state = self.shared.init(sequence.generate_state(1, np.uint32)[0])
    found = checkpoint.restore(folder / FOLDER, state, number + 1)
    self.state = state if found is None else found[1]
    self._step = int(np.asarray(self.state.step))
    known = [self.updates_before(number)]
    known.append(self.updates_before(number - 1) if number else 0)
    if self._step not in known:
      raise workdir.WorkdirError(
        f"{folder / FOLDER} has weights after {self._step} updates, and round"
        f" {number + 1} goes on from {known[1]}: put back what was removed or"
        " take another folder"
      )

  def _compile(self):
    slots = self.shared.slots
    state = jax.eval_shape(self.shared.init, np.uint32(0))
    update = self._blank(self.recipe.steps_per_call, self.settings.samples)
    asked = pop.put_children(
      self.mesh, (np.zeros(slots, bool), self._blank(slots))
    )
    arguments = {
      "train": (state, update, np.int32(1), self.train_data),
      "count_correct": (*asked, state, self.train_data, self.valid_data),
      "init": (np.uint32(0),),
    }
    made = program_cache.compile_all(
      {name: getattr(self.shared, name) for name in arguments},
      lambda: arguments,
      self.mesh.devices.flat,
      self._about,
    )
    self.shared = self.shared._replace(**made)
    self._compiled = True

  def _blank(self, *sizes: int):
    """Genotypes in which there is nothing, stacked."""
    return jax.tree.map(
      lambda s: np.zeros((*sizes, *s.shape), s.dtype), self._genotype_shapes
    )

  def _draw(self, count: int, draw: Draw):
    """Genotypes [count, K] of so many updates."""
    n = count * self.settings.samples
    if self.settings.sampling == "strategy":
      decisions = draw(n)
    else:
      rng = np.random.default_rng([self.seed, _UNIFORM, self._step])
      decisions = self.space.sample(rng, n)
    if len(decisions) < n:
      raise ValueError(
        'search.shared.sampling is "strategy", and it proposed'
        f' {len(decisions)} of {n} children: set it to "uniform"'
      )
    return jax.tree.map(
      lambda leaf: leaf.reshape(count, -1, *leaf.shape[1:]),
      self.space.decode(np.asarray(decisions, np.int32)),
    )

  def _train(self, genotypes, count: int, progress: Progress | None) -> float:
    """Makes the updates; the loss of the last call."""
    size = self.recipe.steps_per_call
    pending = None
    for start in range(0, count, size):
      now = min(size, count - start)
      numbers = start + np.arange(size) % now  # those beyond are not made
      chunk = jax.tree.map(lambda g, n=numbers: g[n], genotypes)
      state, self.state = self.state, None  # donated: after a stop, read anew
      self.state, metrics = self.shared.train(
        state, self._put(chunk), self._put(np.int32(now)), self.train_data
      )
      if pending is not None:  # the device never waits for us
        self._checked(pending)
      pending = metrics["loss"]
      self._step += now
      if progress:
        share = _TRAINING * (start + now) / count
        progress(share, f"shared weights: {start + now}/{count} updates")
    return self._checked(pending)

  def _put(self, tree):
    if not self.mesh.is_multi_process:
      return tree
    everywhere = jax.sharding.PartitionSpec()
    return meshes.put(tree, jax.sharding.NamedSharding(self.mesh, everywhere))

  def _checked(self, loss) -> float:
    loss = float(np.asarray(loss))
    if not np.isfinite(loss):
      raise ValueError(
        f"the shared weights' loss is {loss} after {self._step} updates: lower"
        " child.learning_rate, or set child.clip_norm above 0"
      )
    return loss

  def evaluate(
    self,
    decisions: np.ndarray,
    seeds: np.ndarray,
    budgets: np.ndarray,
    progress: Progress | None = None,
  ) -> list[Outcome]:
    """See `Evaluator`; seeds and budgets play no part."""
    del seeds, budgets
    start = time.perf_counter()
    genotypes = self.space.decode(np.asarray(decisions, np.int32))
    correct = self._count_correct(genotypes, len(decisions), progress)
    share = time.perf_counter() - start + self._spent
    share, self._spent = share / len(decisions), 0.0
    return [
      self._outcome(jax.tree.map(lambda g, i=i: g[i], genotypes), c, share)
      for i, c in enumerate(correct)
    ]

  def _count_correct(self, genotypes, count: int, progress) -> np.ndarray:
    slots, found = self.shared.slots, []
    for start in range(0, count, slots):
      numbers = start + np.arange(slots)
      which = numbers < count
      chunk = jax.tree.map(lambda g, n=numbers: g[n % count], genotypes)
      asked = pop.put_children(self.mesh, (which, chunk))
      correct = self.shared.count_correct(
        *asked, self.state, self.train_data, self.valid_data
      )
      found.append(hosts.fetch(correct)[which])
      if progress:
        done = min(count, start + slots)
        share = self._base + (1 - self._base) * done / count
        progress(share, f"{done}/{count} judged")
    return np.concatenate(found)

  def _outcome(self, genotype, correct: int, seconds: float) -> Outcome:
    accuracy = correct / self.shared.num_judged
    return Outcome(
      float(accuracy),
      OK if np.isfinite(accuracy) else FAILED,
      self._step,
      seconds,
      **self.cost(genotype),
      shared_epochs=self._step / self.steps_per_epoch,
    )
