"""From decisions to rewards."""

import collections
import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from nasnet_jax.costs import counting, latency, traffic
from nasnet_jax.data import batches
from nasnet_jax.data.augment import Augmentation
from nasnet_jax.models import families
from nasnet_jax.population import population
from nasnet_jax.spaces.cells import CellSpace
from nasnet_jax.spaces.mnasnet import MnasSpace
from nasnet_jax.spaces.stages import StageSpace
from nasnet_jax.training import hosts, program_cache

_log = logging.getLogger(__name__)
OK, FAILED = 0, 1  # as in `controllers.base`

# Called between device calls: (share of this evaluation that is done in
# [0, 1], one short line on how it goes). Raising ends the evaluation.
Progress = Callable[[float, str], None]


class Outcome(NamedTuple):
  """What training one child told.

  Attributes:
    reward: accuracy on the validation images, NaN for a failed child. What
      the controller is told of it is up to `rewards`.
    status: `controllers.base.OK` or FAILED (its loss was not finite).
    steps: updates made.
    seconds: this child's share of the wall time.
    params, macs: trainable parameters; multiply-accumulates per image.
    bytes: `traffic.count_bytes`; 0: not counted.
    latency: `latency.measure`, in seconds; 0: not measured.
    horizon: updates of its whole budget, more than `steps` for a child that
      was stopped; 0: nobody is ever stopped here.
    rungs: accuracy at each rung it reached, see `Stops`.
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
  """

  also: str = ""
  image_side: int = 0
  latency_batch: int = 1


ONLY_COUNTED = Costs()


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


class Stream(Protocol):
  """Children that come and go one by one.

  An evaluator that has `stream(stops) -> Stream`, `slots`, `steps(budget)`,
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


def drain(
  stream: Stream,
  progress: Progress | None = None,
  note: Callable[[list[tuple[int, Outcome]]], None] = lambda done: None,
) -> dict[int, Outcome]:
  """Trains all that is in a stream to its end: outcomes by child.

  Args:
    note: told of children as soon as they are done.
  """
  done = {}
  while stream.busy:
    fresh = stream.advance()
    if fresh:
      note(fresh)
    done.update(fresh)
    if progress:
      progress(*stream.report())
  return done


def open_network(
  space, network, image_shape, fold: int = 1
) -> tuple[population.Network, Callable]:
  """(the network with its architecture left open, (H, W, C) -> counter).

  Args:
    fold: see `population.Recipe`.

  Raises:
    ValueError: for a space whose children are no population, or do not fold.
  """
  if fold > 1 and not isinstance(space, CellSpace):
    raise ValueError(
      f"child.fold is {fold}, but children of space {space.name} have no cells:"
      " set it to 1"
    )
  if isinstance(space, StageSpace):
    build = population.make_stage_network(network, space.nodes, image_shape)
    return build, functools.partial(counting.make_stage_counter, network, space)
  if isinstance(space, MnasSpace):
    build = population.make_block_network(network, space, image_shape)
    return build, functools.partial(counting.make_block_counter, network, space)
  if not isinstance(space, CellSpace):
    raise ValueError(
      f"no population trains children of space {space.name}: take a space of"
      " cells, of stages or MnasNet's"
    )
  build = population.make_network(
    network,
    space.operations,
    space.num_blocks,
    image_shape,
    len(space.cells),
    space.combiners,
    separate=space.output == "separate",
    fold=fold,
  )
  return build, functools.partial(
    counting.make_counter,
    network,
    space.operations,
    space.num_blocks,
    separate=space.output == "separate",
  )


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
    recipe: population.Recipe,
    augmentation: Augmentation,
    train: tuple[np.ndarray, np.ndarray],
    valid: tuple[np.ndarray, np.ndarray],
    mesh: jax.sharding.Mesh,
    costs: Costs = ONLY_COUNTED,
  ):
    """space: of cells, of stages or MnasNet's; network: sizes, its family's
    config; train, valid: (images uint8[n, H, W, C], labels int[n]); costs:
    what outcomes have of them."""
    self.space, self.recipe, self.mesh = space, recipe, mesh
    shape = train[0].shape[1:]
    build, self._make_counter = open_network(space, network, shape, recipe.fold)
    self._network, self._costs = network, costs
    side = costs.image_side
    self._cost_shape = (side, side, shape[-1]) if side else shape
    self._latencies: dict[str, float] = {}  # by `base.key`
    self._num_valid = len(valid[1])
    self.steps_per_epoch = batches.steps_per_epoch(
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
      repr(space),
      shape,
      recipe,
      augmentation,
      (len(train[1]), self._num_valid),
      mesh.shape_tuple,
    )

  @functools.cached_property
  def _count(self):  # made when a child is done: it takes seconds
    return self._make_counter(self._cost_shape)

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
    self._state = jax.block_until_ready(self.population.empty())
    return time.perf_counter() - start

  def _compile(self, pop: population.Population) -> population.Population:
    functions = {
      "train": pop.train,
      "count_correct": pop.count_correct,
      "refill": pop.refill,
      "empty": pop.empty,
    }
    compiled = program_cache.compile_all(
      functions, self._arguments, self.mesh.devices.flat, self._about
    )
    return pop._replace(**compiled)

  def _arguments(self) -> dict[str, tuple]:
    """Arguments of the population's functions, as shapes where big."""
    slots, network = self.population.slots, self.population.network
    nobody = np.zeros(slots, bool)
    zeros = np.zeros(slots, np.int32)
    in_slots = jax.tree.map(
      lambda s: np.zeros((slots, *s.shape), s.dtype), network.genotype_shapes
    )
    state = jax.eval_shape(self.population.empty)
    seeds = zeros.astype(np.uint32)
    put = self.population.put
    nobody, zeros, seeds, in_slots = put((nobody, zeros, seeds, in_slots))
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
    stream = self.stream()
    stream.add(range(len(seeds)), decisions, seeds, budgets)
    done = drain(stream, progress)
    return [done[child] for child in range(len(seeds))]

  def stream(self, stops: Stops = NO_STOPS) -> Stream:
    """An empty stream; one that was made before must not go on."""
    if not self._compiled:  # first of all: no child's seconds contain it
      _log.info("compiling the program that trains every child, once")
      _log.info("compiled, or read from the cache, in %.0f s", self.compile())
    if self._state is None:  # after a stop
      self.compile()
    return _PopulationStream(self, stops)

  def cost(self, genotype) -> dict[str, float]:
    """What `Outcome` has of one child's costs."""
    params, macs = self._count(genotype)
    found = {"params": params, "macs": macs}
    network = families.network(self.space, genotype, self._network)
    if self._costs.also == "bytes":
      found["bytes"] = traffic.count_bytes(network, self._cost_shape)
    if self._costs.also == "latency":
      found["latency"] = self._latency(genotype, network)
    return found

  def _latency(self, genotype, network) -> float:
    """Measured once for all equal networks, and by the first host for all."""
    key = self.space.key(self.space.encode(genotype))
    if key not in self._latencies:
      seconds = np.float32(0)
      if hosts.is_first():
        seconds = latency.measure(
          network, self._cost_shape, self._costs.latency_batch
        )
      self._latencies[key] = float(hosts.gather(np.float32(seconds))[0])
    return self._latencies[key]

  def remember(self, decisions, seconds: float):
    """A latency that was measured before, of int[D]; the first one counts."""
    self._latencies.setdefault(self.space.key(decisions), seconds)


@dataclasses.dataclass(eq=False)
class _Child:
  """One child on its way."""

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


class _PopulationStream:
  """See `Stream`: who sits in which slot of a population."""

  def __init__(self, owner: PopulationEvaluator, stops: Stops):
    self.owner, self.stops = owner, stops
    slots = owner.population.slots
    self.waiting: collections.deque[_Child] = collections.deque()
    self.seats: list[_Child | None] = [None] * slots
    # Slots whose state on the devices is of nobody who sits here.
    self.stale = np.ones(slots, bool)
    self.in_slots = None  # genotypes, stacked
    self.on_devices = None  # the same
    self.under_way: dict[int, _Child] = {}
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
      child = _Child(int(number), genotype, int(seed), horizon, ends)
      self.waiting.append(child)
      self.under_way[child.number] = child
    self.added += len(seeds)

  def advance(self) -> list[tuple[int, Outcome]]:
    self._seat()
    sitting = [child for child in self.seats if child]
    start = time.perf_counter()
    self._train(sitting)
    due = np.array([bool(c) and c.done >= c.ends[0] for c in self.seats])
    correct = self._count_correct(due) if due.any() else due
    share = (time.perf_counter() - start) / len(sitting)
    for child in sitting:
      child.seconds += share
    finished = []
    # By number, whatever the slots: see `Stops.keep`.
    for slot in sorted(np.flatnonzero(due), key=self._number_in):
      child = self.seats[slot]
      outcome = self._judge(child, int(correct[slot]))
      if outcome:
        finished.append((child.number, outcome))
        self.seats[slot], self.stale[slot] = None, True
        del self.under_way[child.number]
    return finished

  def due(self, child: int) -> int:
    return self.under_way[child].ends[0]

  def report(self) -> tuple[float, str]:
    sitting = [child for child in self.seats if child]
    part = sum(child.done / child.ends[-1] for child in sitting)
    over = self.added - len(self.under_way)
    words = f"{over}/{self.added} trained"
    if np.isfinite(self._last_loss):
      words += f", loss {self._last_loss:.3f}"
    return (over + part) / self.added, words

  def _train(self, sitting: list[_Child]):
    """One call of the compiled step."""
    owner = self.owner
    state, owner._state = owner._state, None  # donated: after a stop, made anew
    owner._state, metrics = owner.population.train(
      state, self.on_devices, owner._train
    )
    self._note_losses()  # of the call before: the device never waits for us
    self._pending = (list(self.seats), metrics["loss"])
    for child in sitting:
      child.done += 1

  def _count_correct(self, due: np.ndarray) -> np.ndarray:
    """int[slots]; all hosts end here together, and know all that follows."""
    self._note_losses()
    failed = hosts.gather([bool(c) and c.failed for c in self.seats]).any(0)
    for child, is_failed in zip(self.seats, failed):
      if child:
        child.failed = bool(is_failed)
    owner = self.owner
    return hosts.fetch(
      owner.population.count_correct(
        owner._state, owner.population.put(due), self.on_devices, owner._valid
      )
    )

  def _number_in(self, slot: int) -> int:
    return self.seats[slot].number

  def _judge(self, child: _Child, correct: int) -> Outcome | None:
    """The outcome of a child that ends here, at a rung or where its horizon
    is; None for one that goes on."""
    last = len(child.ends) == 1
    failed = child.failed
    accuracy = float("nan") if failed else correct / self.owner._num_valid
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
    )
    rung = len(child.rungs) - 1
    if last or failed or not self.stops.keep(child.number, rung, outcome):
      return outcome
    del child.ends[0]
    return None

  def _cost(self, child: _Child) -> dict[str, float]:
    if child.cost is None:
      child.cost = self.owner.cost(child.genotype)
    return child.cost

  def _note_losses(self):
    if self._pending is None:
      return
    seats, loss = self._pending
    self._pending = None
    here = [(seats[i], value) for i, value in _here(loss) if seats[i]]
    for child, value in here:
      if not np.isfinite(value):
        child.failed = True
    if here:
      self._last_loss = float(np.mean([value for _, value in here]))

  def _seat(self):
    """Seats waiting children in the free slots; the rest have nothing to do."""
    for slot, child in enumerate(self.seats):
      if child is None and self.waiting:
        child = self.seats[slot] = self.waiting.popleft()
        self.stale[slot] = True
        self._put(slot, child.genotype)
    if not self.stale.any():
      return
    seeds = np.array([c.seed if c else 0 for c in self.seats], np.uint32)
    horizons = np.array([c.horizon if c else 0 for c in self.seats], np.int32)
    owner = self.owner
    state, owner._state = owner._state, None
    put = owner.population.put
    self.on_devices = put(self.in_slots)
    owner._state = owner.population.refill(
      state, *put((self.stale, seeds, horizons)), self.on_devices
    )
    self.stale = np.zeros(len(self.seats), bool)

  def _put(self, slot: int, genotype):
    """A new array: the devices may still read the old one."""
    if self.in_slots is None:  # anything that is a cell will do for the rest
      slots = len(self.seats)
      self.in_slots = jax.tree.map(lambda g: np.stack([g] * slots), genotype)
      return
    self.in_slots = jax.tree.map(np.copy, self.in_slots)
    for leaf, new in zip(
      jax.tree.leaves(self.in_slots), jax.tree.leaves(genotype), strict=True
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
