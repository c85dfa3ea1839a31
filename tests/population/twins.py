"""A child and its static network, side by side.

Two steps of training, the same for both; which switches a program has.
Not a test: `test_population.py` and `test_block_population.py` load it.
"""

import collections
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from nasnet_jax.models import drop_path as dp
from nasnet_jax.models import families
from nasnet_jax.population.extract import extract
from nasnet_jax.population.networks import Network
from nasnet_jax.training import losses, optimizers, schedules
from nasnet_jax.training.state import TrainState
from nasnet_jax.training.step import train_step

BATCH = 6


def _recorder():
  """Keeps the gradient it was given, as its state."""
  zeros = functools.partial(jax.tree.map, jnp.zeros_like)
  return optax.GradientTransformation(zeros, lambda g, _, params=None: (g, g))


# The decay is large and the norm small, so that both matter in every step.
TX = optax.chain(
  _recorder(),
  optimizers.momentum_sgd(weight_decay=0.01, clip_norm=0.5),
)


_start = jax.jit(TX.init)  # one program, not one for each shape


def start(params, stats) -> TrainState:
  """In the middle of a training of ten steps."""
  numbers = (np.int32(3), np.int32(10), np.uint32(7))
  return TrainState(params, stats, _start(params), *numbers)


class Trace(NamedTuple):
  """What two steps did; leaves of the first five have a leading axis [2]."""

  loss: Any
  logits: Any
  gradients: Any
  params: Any
  batch_stats: Any
  evaluated: Any


def _two_steps(apply, image, state, keep):
  """Trains on the batch twice, then evaluates.

  Args:
    apply: (params, stats, images, drop, train) -> (logits, stats).
    image: (H, W, C).
    keep: f32[], 1 drops nothing; the same program serves all. None: there
      is nothing to drop.
  """
  rng = np.random.default_rng(0)
  images = rng.standard_normal((BATCH, *image)).astype(np.float32)
  labels = np.arange(BATCH) % 5

  def loss_fn(params, stats, _, rng, progress):
    del progress
    drop = None
    if keep is not None:
      drop = dp.DropPath(rng, jnp.full(5, keep))  # for up to five cells
    logits, new = apply(params, stats, images, drop, True)
    return losses.cross_entropy(logits, labels), (new, {"logits": logits})

  def step(state, _):
    state, metrics = train_step(
      state, (), loss_fn=loss_fn, tx=TX, schedule=schedules.cosine(0.1)
    )
    made = state.opt_state[0], state.params, state.batch_stats
    return state, (metrics["loss"], metrics["logits"], *made)

  state, rows = lax.scan(step, state, length=2)
  logits, _ = apply(state.params, state.batch_stats, images, None, False)
  return Trace(*rows, logits)


class Program(NamedTuple):
  """One compiled population program and what it is for."""

  space: Any
  image: tuple[int, int, int]
  network: Network
  init: Any
  run: Any


def make_program(space, image, network) -> Program:
  """A population's network, ready to be run."""

  def run(state, genotype, keep):
    def apply(params, stats, images, drop, train):
      return network.apply(params, stats, genotype, images, drop, train)

    return _two_steps(apply, image, state, keep)

  return Program(space, image, network, jax.jit(network.init), jax.jit(run))


def child(program, genotype, seed=0) -> TrainState:
  """A new child; what batch norm starts with is moved off 0 and 1."""
  genotype = jax.tree.map(jnp.asarray, genotype)
  params, stats = program.init(jax.random.key(seed), genotype)
  rng = np.random.default_rng(seed)

  def move(path, leaf):
    leaf = np.array(leaf)
    if path[-1].key in ("scale", "bias"):
      leaf += rng.normal(0, 0.1, leaf.shape).astype(np.float32)
    return leaf

  moved = jax.tree_util.tree_map_with_path(move, params)
  # Only where it is read: a tail of the bank that is not 0 is another test's.
  read = used(program, genotype, params, stats)
  params = jax.tree.map(np.where, read, moved, jax.device_get(params))
  return start(params, stats)


def run(program, decisions, keep) -> Trace:
  """Two steps of the child that these decisions describe."""
  genotype = jax.tree.map(jnp.asarray, program.space.decode(decisions))
  params, stats = program.init(jax.random.key(0), genotype)
  return program.run(start(params, stats), genotype, keep)


def used(program, genotype, params, stats):
  """bool trees like params: what `extract` takes over.

  Numbers in place of weights go through `extract`, which only moves them.
  """
  leaves, treedef = jax.tree.flatten(params)
  numbers, place = [], 0
  for leaf in leaves:
    numbers.append(np.arange(place, place + leaf.size).reshape(leaf.shape))
    place += leaf.size
  state = TrainState(treedef.unflatten(numbers), stats, (), 0, 0, 0)
  taken = extract(program.network, genotype, state)["params"]
  flat = np.concatenate([x.ravel() for x in jax.tree.leaves(taken)])
  assert len(np.unique(flat)) == len(flat)  # no weight is taken twice
  return treedef.unflatten([np.isin(n, flat) for n in numbers])


@functools.cache
def _static_run(network, image):
  """The two steps of a static network, compiled once."""

  def apply(params, stats, images, drop, train):
    found = {"params": params, "batch_stats": stats}
    if not train:
      return network.apply(found, images)[0], stats
    outputs, new = network.apply(
      found, images, True, drop, mutable=["batch_stats"]
    )
    return outputs[0], new["batch_stats"]

  return jax.jit(functools.partial(_two_steps, apply, image))


def _static(program, genotype, config, state, keep) -> tuple[Trace, list]:
  """(what the static network does, the same from weights that differ in their
  last bit, nine times)."""
  network = families.network(program.space, genotype, config)
  variables = extract(program.network, genotype, state)
  two_steps = _static_run(network, program.image)
  rng = np.random.default_rng(0)

  def nudge(weights):
    towards = rng.choice([-np.inf, np.inf], weights.shape)
    return np.nextafter(weights, towards.astype(np.float32))

  def trace(params):
    return jax.device_get(two_steps(start(params, stats), keep))

  params, stats = jax.device_get(variables["params"]), variables["batch_stats"]
  nudged = [trace(jax.tree.map(nudge, params)) for _ in range(9)]
  return trace(params), nudged


def _error(found, wanted) -> float:
  """Of the largest number of an array."""
  found, wanted = np.asarray(found), np.asarray(wanted)
  return np.abs(found - wanted).max() / (1e-2 + np.abs(wanted).max())


def _assert_close(found, wanted, nudged, what):
  """Within 2e-5 of the largest number of each array, or a few times as much as
  its last bits matter: a map's maximum, or the side of a ReLU, can hang on
  them. How often that happens depends on the machine's instructions.

  Args:
    nudged: what `wanted` becomes by them, nine times.
  """
  worst = [
    max(map(_error, jax.tree.leaves(tree), jax.tree.leaves(wanted)))
    for tree in nudged
  ]
  allowed = 2e-5 + 4 * np.median(worst)
  pairs = zip(
    jax.tree_util.tree_leaves_with_path(found),
    jax.tree.leaves(wanted),
    strict=True,
  )
  for (path, a), b in pairs:
    error, where = _error(a, b), jax.tree_util.keystr(path)
    assert error < allowed, (what, where, error, worst)


def assert_same_network(program, config, genotype, keep=1.0):
  """Two steps of the child and of the static network, all that they made."""
  state = child(program, genotype)
  keep = None if keep is None else jnp.float32(keep)
  found = jax.device_get(
    program.run(state, jax.tree.map(jnp.asarray, genotype), keep)
  )
  wanted, nudged = _static(program, genotype, config, state, keep)
  for name in ("logits", "loss", "evaluated"):
    by_nudge = [getattr(trace, name) for trace in nudged]
    _assert_close(getattr(found, name), getattr(wanted, name), by_nudge, name)
  row = lambda tree, i: jax.tree.map(lambda x: x[i], tree)  # noqa: E731
  for step in range(2):
    for name in ("gradients", "params", "batch_stats"):
      collection = "params" if name == "gradients" else name
      made = state._replace(**{collection: row(getattr(found, name), step)})
      _assert_close(
        extract(program.network, genotype, made)[collection],
        row(getattr(wanted, name), step),
        [row(getattr(trace, name), step) for trace in nudged],
        f"{name} of step {step}",
      )
  _assert_unused_rest(program, genotype, state, found)


def _assert_unused_rest(program, genotype, state, found):
  """Weights that this cell does not use: gradient 0, and never changed."""
  read = used(program, genotype, state.params, state.batch_stats)
  for mask, old, new, gradient in zip(
    *map(jax.tree.leaves, (read, state.params, found.params, found.gradients)),
    strict=True,
  ):
    assert (gradient[:, ~mask] == 0).all()
    assert (new[:, ~mask] == np.asarray(old)[~mask]).all()


def _deviation(path, shape, init):
  """Of a kernel's initial values; by He et al. 2015, or slim's fan-out."""
  if len(shape) == 3:  # depthwise: each output sees one channel
    fan = shape[0] * shape[1]
  elif init == "fan_in":
    fan = np.prod(shape[:-1])
  else:
    fan = np.prod(shape[:-2]) * shape[-1]
  # Only the classifier's normal is not scaled up for its cut tails.
  return np.sqrt(2 / fan) * (0.8796 if path[0].key == "classifier" else 1)


def assert_starts_alike(program, genotype, init):
  """Over many seeds; init: "fan_in" or "fan_out"."""
  traced = jax.tree.map(jnp.asarray, genotype)
  made, extracted = [], []
  for seed in range(128):
    made_child = start(*program.init(jax.random.key(seed), traced))
    made.append(made_child.params)
    found = extract(program.network, genotype, made_child)
    extracted.append(found["params"])
  together = jax.tree.map(lambda *leaves: np.stack(leaves), *extracted)
  for path, values in jax.tree_util.tree_leaves_with_path(together):
    leaf, where = path[-1].key, jax.tree_util.keystr(path)
    if leaf == "kernel":
      wanted = _deviation(path, values.shape[1:], init)
      assert np.std(values) == pytest.approx(wanted, rel=0.06), where
      assert abs(values.mean()) < 0.1 * wanted, where
    else:
      assert (values == (leaf == "scale")).all(), where
  read = used(program, genotype, made_child.params, made_child.batch_stats)
  for (path, mask), values in zip(
    jax.tree_util.tree_leaves_with_path(read), jax.tree.leaves(made[0])
  ):
    if path[-1].key == "kernel":  # weight decay would move it, were it not 0
      assert (np.asarray(values)[~mask] == 0).all(), jax.tree_util.keystr(path)


# --- one branch runs, never all ----------------------------------------------


def equations(jaxpr):
  """Every equation, those of inner programs too."""
  for equation in jaxpr.eqns:
    yield equation
    for value in equation.params.values():
      for inner in value if isinstance(value, tuple | list) else [value]:
        inner = getattr(inner, "jaxpr", inner)
        if hasattr(inner, "eqns"):
          yield from equations(inner)


def switches(function, *args):
  """Sizes of the switches; fails if one has become a select.

  A `cond` with `branches_platforms` chooses a lowering when it is compiled. A
  batched `cond` of two branches becomes a select of three operands: whether
  a child is done is one, and is allowed.
  """
  sizes = collections.Counter()
  for equation in equations(jax.make_jaxpr(function)(*args).jaxpr):
    if equation.primitive.name == "select_n":
      assert len(equation.invars) <= 3, "a select runs every branch"
    params = equation.params
    if equation.primitive.name == "cond" and not params.get(
      "branches_platforms"
    ):
      sizes[len(params["branches"])] += 1
  return sizes


def loss(network, image):
  """(params, stats, genotype) -> gradients and statistics."""
  images = jnp.zeros((2, *image))

  def total(params, stats, genotype):
    logits, new = network.apply(params, stats, genotype, images, None, True)
    return logits.sum(), new

  return jax.grad(total, has_aux=True)


def stacked_shapes(tree, *sizes):
  return jax.tree.map(
    lambda s: jax.ShapeDtypeStruct((*sizes, *s.shape), s.dtype), tree
  )
