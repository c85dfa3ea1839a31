"""Children that begin with their parents' final weights."""

import jax
import numpy as np
import pytest

from nasnet_jax import spaces
from nasnet_jax.data import digits
from nasnet_jax.data.augment import DEFAULTS
from nasnet_jax.models.layers import Numerics
from nasnet_jax.models.stacked_plan import NetworkConfig
from nasnet_jax.population import inherited_weights, networks
from nasnet_jax.population import population as pop
from nasnet_jax.population.evaluation import FAILED, NO_PARENT, OK
from nasnet_jax.population.extract import extract
from nasnet_jax.population.inheriting import InheritingEvaluator
from nasnet_jax.population.slots import drain
from nasnet_jax.spaces import genotype as gt
from nasnet_jax.training import workdir
from nasnet_jax.training.mesh import make_mesh
from nasnet_jax.training.state import TrainState

OPERATIONS = ("identity", "sep_conv_3x3", "avg_pool_3x3")
IMAGE = (8, 8, 1)
NETWORK = NetworkConfig(
  num_cells=1,
  num_reductions=1,
  features=4,
  numerics=Numerics(init="fan_in"),
)
OLD, NEW = 1.0, 2.0


# --- what is inherited -------------------------------------------------------


class _Family:
  """Parent and child of a space, in terms of their static networks."""

  def __init__(self, name: str, min_blocks: int):
    self.space = spaces.get(name, 2, OPERATIONS, min_blocks)
    self.network = networks.open_network(self.space, NETWORK, IMAGE)[0]
    self.shapes = jax.eval_shape(
      lambda genotype: self.network.init(jax.random.key(0), genotype),
      self.network.genotype_shapes,
    )
    self._inherit = jax.jit(self._inherit)

  def _inherit(self, *genotypes):
    """(params, statistics): OLD where they are the parent's, NEW elsewhere."""
    return [
      inherited_weights.inherit(
        self.network.stack,
        genotypes,
        [
          jax.tree.map(lambda s, v=v: v + np.zeros(s.shape), tree)
          for v in (1, 2)
        ],
      )
      for tree in self.shapes
    ]

  def static(
    self, params, stats, genotype
  ) -> dict[tuple[str, ...], np.ndarray]:
    """The variables of a static network, by path."""
    zero = np.int32(0)
    state = TrainState(params, stats, (), zero, zero, zero)
    leaves = jax.tree_util.tree_leaves_with_path(
      extract(self.network, genotype, state)
    )
    return {tuple(p.key for p in path): np.asarray(x) for path, x in leaves}

  def of_child(self, parent, child):
    """(the child's static variables, the names of the parent's)."""
    params, stats = jax.device_get(self._inherit(parent, child))
    return (
      self.static(params, stats, child),
      self.static(params, stats, parent).keys(),
    )

  def used(self, genotype, position: int) -> np.ndarray:
    """The numbers of the states of an output that are used."""
    if position == 0:
      return np.zeros(1, int)
    cell = self.network.cells[position - 1]
    return np.flatnonzero(gt.genes_of(genotype, cell.kind).concat)


def _wanted(family, path, names, parent, child):
  """OLD or NEW, of each part of a static variable, its rows in equal parts."""
  _, where, *rest = path
  plans = {cell.name: cell for cell in family.network.cells}
  if where == "stem":
    return [OLD]
  if where == "classifier":
    last = len(plans)
    return _by_state(family, parent, child, last) if "kernel" in rest else [OLD]
  cell = plans[where]
  mine, theirs = (gt.genes_of(g, cell.kind) for g in (child, parent))
  name = rest[0]
  if name.endswith("_combine"):
    block = int(name.split("_")[1])
    same = theirs.active[block]
    same &= mine.combine[block] == theirs.combine[block]
    return [OLD if same else NEW]
  if name.startswith("block_"):
    edge = tuple(int(word) for word in name.split("_")[1:])
    same = theirs.active[edge[0]] and all(
      getattr(mine, x)[edge] == getattr(theirs, x)[edge]
      for x in ("inputs", "ops")
    )
    return [OLD if same else NEW]
  if path not in names:
    return [NEW]
  if rest[-1] == "kernel" and name in ("project", "fit_previous"):
    current, previous = cell.reads()
    position = current if name == "project" else previous
    return _by_state(family, parent, child, position)
  return [OLD]


def _by_state(family, parent, child, position):
  theirs = family.used(parent, position)
  return [OLD if s in theirs else NEW for s in family.used(child, position)]


def _parents_and_children(space):
  """One parent, and all that differ from it in one decision."""
  parent = space.sample(np.random.default_rng(4), 1)[0]
  rows = spaces.base.neighbours(space.num_choices, parent)
  return space.decode(parent), [space.decode(row) for row in rows]


@pytest.mark.parametrize(
  ("name", "min_blocks"),
  [
    ("nasnet_c", 0),
    ("pnas", 1),
    pytest.param("nasnet_b", 0, marks=pytest.mark.slow),
  ],
)
def test_what_a_mutation_changed_is_new_and_all_else_is_the_parents(
  name, min_blocks
):
  family = _Family(name, min_blocks)
  parent, children = _parents_and_children(family.space)
  seen = set()
  for child in [parent, *children]:
    found, names = family.of_child(parent, child)
    for path, leaf in found.items():
      wanted = _wanted(family, path, names, parent, child)
      parts = np.split(leaf, len(wanted))
      for value, part in zip(wanted, parts, strict=True):
        assert (part == value).all(), (path, value)
        assert value == OLD or child is not parent
        seen.add((path[2].rstrip("_01234"), value))
  assert {("block", OLD), ("block", NEW)} < seen


# --- how it goes on ----------------------------------------------------------

SPACE = spaces.get("nasnet", num_blocks=2, operations=OPERATIONS)
ONE_CELL = NetworkConfig(
  num_cells=1, num_reductions=0, features=4, numerics=NETWORK.numerics
)
RECIPE = pop.ChildRecipe(
  epochs=4,
  batch_size=8,
  learning_rate=0.1,
  eval_batch_size=64,
  drop_path_keep=0.9,
)
STEPS = 8  # of an epoch
PARENT, MUTANT = SPACE.sample(np.random.default_rng(2), 2)
SHARE = np.float32(0.5)


def _images():
  data = digits.load_digits()
  train, valid = slice(0, 8 * STEPS), slice(100, 200)
  images, labels = data.train_images, data.train_labels
  return (images[train], labels[train]), (images[valid], labels[valid])


def _evaluator(folder, arch=1):
  made = InheritingEvaluator(
    SPACE,
    ONE_CELL,
    RECIPE,
    DEFAULTS["digits"],
    *_images(),
    make_mesh(arch, 1, jax.devices()[:arch]),
  )
  made.open_folder(folder)
  return made


def _evaluate(evaluator, children):
  """Outcomes; children: (number, decisions, seed, budget, parent)."""
  queue = evaluator.queue()
  numbers, decisions, seeds, budgets, parents = zip(*children, strict=True)
  queue.add(
    numbers,
    np.stack(decisions),
    np.array(seeds, np.uint32),
    np.array(budgets, np.float32),
    np.array(parents),
  )
  return drain(queue)


@pytest.fixture(scope="module")
def family(tmp_path_factory):
  """(evaluator, outcomes): a parent, and children of it by other ways."""
  evaluator = _evaluator(tmp_path_factory.mktemp("run"))
  outcomes = _evaluate(evaluator, [(0, PARENT, 5, 1.0, NO_PARENT)])
  outcomes |= _evaluate(
    evaluator,
    [
      (1, PARENT, 6, SHARE, 0),
      (2, MUTANT, 7, SHARE, 0),
      (3, PARENT, 6, SHARE, NO_PARENT),
    ],
  )
  return evaluator, outcomes


HORIZON = STEPS * RECIPE.epochs // 2


def _train(evaluator, seed, genotype, weights):
  """(weights, right answers) of a child after HORIZON updates, without a queue.

  Args:
    weights: (child's own initial weights) -> those that it begins with.
  """
  population, everybody = evaluator.population, np.ones(1, bool)
  in_slot = jax.tree.map(lambda leaf: leaf[None], genotype)
  state = population.refill(
    population.empty(),
    everybody,
    np.array([seed], np.uint32),
    np.array([HORIZON], np.int32),
    in_slot,
  )
  own = jax.device_get(state)
  params, stats = weights((own.params, own.batch_stats))
  state = jax.device_put(
    own._replace(params=params, batch_stats=stats),
    jax.tree.map(lambda leaf: leaf.sharding, state),
  )
  for _ in range(HORIZON):
    state, _ = population.train(state, in_slot, evaluator.train_data)
  correct = population.count_correct(
    state, everybody, in_slot, evaluator.valid_data
  )
  made = jax.device_get((state.params, state.batch_stats))
  return jax.tree.map(lambda leaf: leaf[0], made), int(correct[0])


def test_a_child_equal_to_its_parent_is_that_one_trained_for_longer(family):
  evaluator, outcomes = family
  start, wanted = evaluator.read(0), evaluator.read(1)
  final = jax.tree.map(
    lambda leaf: leaf[None], (start.params, start.batch_stats)
  )
  found, correct = _train(evaluator, 6, start.genotype, lambda own: final)
  jax.tree.map(
    np.testing.assert_array_equal, found, (wanted.params, wanted.batch_stats)
  )
  assert outcomes[1].reward == correct / 100
  assert outcomes[1].steps == HORIZON
  assert all(o.status == OK for o in outcomes.values())
  stem = ("stem", "conv", "kernel")
  before, alone = (_leaf(evaluator.read(c).params, stem) for c in (0, 3))
  assert (_leaf(wanted.params, stem) != before).any()  # it did train
  assert (_leaf(wanted.params, stem) != alone).any()


def _leaf(tree, path):
  for name in path:
    tree = tree[name]
  return tree


def test_a_mutant_goes_on_with_what_it_has_of_its_parent(family):
  evaluator, _ = family
  start, wanted = evaluator.read(0), evaluator.read(2)
  stack = evaluator.population.network.stack

  def inherited(own):
    found = [
      inherited_weights.inherit(
        stack,
        (start.genotype, wanted.genotype),
        (old, jax.tree.map(lambda leaf: leaf[0], new)),
      )
      for old, new in zip((start.params, start.batch_stats), own, strict=True)
    ]
    return jax.tree.map(lambda leaf: np.asarray(leaf)[None], found)

  found, _ = _train(evaluator, 7, wanted.genotype, inherited)
  jax.tree.map(
    np.testing.assert_array_equal,
    tuple(found),
    (wanted.params, wanted.batch_stats),
  )


def test_a_child_without_a_parent_is_that_of_any_other_search(family):
  evaluator, outcomes = family
  again = _evaluate(evaluator, [(8, PARENT, 6, SHARE, NO_PARENT)])[8]
  assert again.reward == outcomes[3].reward
  jax.tree.map(
    np.testing.assert_array_equal, evaluator.read(8), evaluator.read(3)
  )


@pytest.mark.slow
def test_neighbours_and_devices_change_no_bits_of_an_heir(family, tmp_path):
  evaluator, outcomes = family
  two = _evaluator(tmp_path, arch=2)
  two.write(0, evaluator.read(0))
  found = _evaluate(
    two,
    [
      (3, PARENT, 6, SHARE, NO_PARENT),
      (4, MUTANT, 9, 1.0, NO_PARENT),
      (5, MUTANT, 7, SHARE, 0),
      (6, PARENT, 6, SHARE, 0),
    ],
  )
  for mine, theirs in ((3, 3), (5, 2), (6, 1)):
    assert found[mine].reward == outcomes[theirs].reward
    jax.tree.map(
      np.testing.assert_array_equal, two.read(mine), evaluator.read(theirs)
    )


def test_a_child_that_failed_leaves_nothing(family, monkeypatch):
  evaluator, _ = family

  def diverges(state, genotypes, data):
    state, metrics = train(state, genotypes, data)
    return state, {**metrics, "loss": metrics["loss"] * np.nan}

  train = evaluator.population.train
  monkeypatch.setattr(
    evaluator, "population", evaluator.population._replace(train=diverges)
  )
  outcome = _evaluate(evaluator, [(9, PARENT, 6, 0.01, NO_PARENT)])[9]
  assert outcome.status == FAILED
  with pytest.raises(workdir.WorkdirError, match="weights of child 9: put"):
    evaluator.queue().add(
      [10], PARENT[None], np.uint32([1]), np.float32([1]), [9]
    )


def test_weights_that_are_damaged_are_no_fresh_start(family):
  evaluator, _ = family
  evaluator.write(11, evaluator.read(0))
  for path in (evaluator._folder / "11").rglob("*"):
    if path.is_file():
      path.write_bytes(path.read_bytes()[:-9])
  with pytest.raises(workdir.WorkdirError, match="missing or damaged") as error:
    _evaluate(evaluator, [(12, PARENT, 6, SHARE, 11)])
  assert "\n" not in str(error.value)


def test_only_what_may_still_be_needed_is_kept(family, tmp_path):
  evaluator, _ = family
  here, final = evaluator._folder, evaluator.read(0)
  try:
    evaluator.open_folder(tmp_path)
    for child in (1, 2, 10):
      evaluator.write(child, final)
    (evaluator._folder / "3.orbax-checkpoint-tmp").mkdir()
    evaluator.open_folder(tmp_path)  # what a killed process left is gone
    evaluator.keep_only({10, 1, 7})
    assert sorted(p.name for p in evaluator._folder.iterdir()) == ["1", "10"]
  finally:
    evaluator._folder = here
