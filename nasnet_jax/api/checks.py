"""`nas.check(...)`: whether one's own part keeps what its kind promises."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

from nasnet_jax import controllers, data
from nasnet_jax.api import starting
from nasnet_jax.controllers import base
from nasnet_jax.models import ops
from nasnet_jax.models.layers import Numerics
from nasnet_jax.population import any_chain, mixed
from nasnet_jax.search import rewards
from nasnet_jax.spaces.cells import CellSpace
from nasnet_jax.spaces.module_chain import ChainSpace

_CHOICES = (3, 2, 4)
_FEATURES = 4


def check(part) -> str:
  """What was looked at, in a line, if the part keeps its promises.

  Args:
    part: the name of an operation, a strategy, a reward of one's own or a data
      source; a space of cells, whose operations are looked at, or a chain.

  Raises:
    ValueError: one line: which promise is broken.

  >>> check("random_search")
  "strategy 'random_search': 12 children asked and told, twice alike"
  """
  starting.prepare()
  if isinstance(part, CellSpace):
    for name in part.operations:
      _check_operation(name)
    return f"space {part.name!r}: {len(part.operations)} operations are sound"
  if isinstance(part, ChainSpace):
    return _check_chain(part)
  if part in ops.OPERATIONS:
    return _check_operation(part)
  if part in controllers.CONTROLLERS:
    return _check_strategy(part)
  if part in rewards.OWN:
    return _check_reward(part)
  if part in data.SOURCES:
    return _check_source(part)
  raise ValueError(
    f"{part!r} is no operation, strategy, reward, data source or space:"
    " register it first, with nas.operation, nas.strategy, nas.reward or"
    " nas.data_source"
  )


def _check_operation(name: str) -> str:
  where = f"operation {name!r}"
  for stride in (1, 2):
    for width in (_FEATURES, _FEATURES + 2):
      module = ops.OPERATIONS[name](Numerics(), _FEATURES, stride)
      side = -(-5 // stride)
      wanted = (side, side, _FEATURES)
      about = f"{where} at stride {stride}"
      _check_module(about, module, (5, 5, width), wanted)
  return f"{where}: shapes, weights and gradients at strides 1 and 2"


def _check_chain(space: ChainSpace) -> str:
  """On images of 32x32 pixels in three colours."""
  shapes = any_chain.layer_shapes(space, (32, 32, 3))
  pairs = itertools.pairwise(shapes)
  for i, (modules, (enters, leaves)) in enumerate(zip(space.modules, pairs)):
    for name, module in zip(space.choices[i], modules, strict=True):
      where = f"layer {i} of the chain: {name}"
      _check_module(where, module, enters, leaves)
  count = sum(map(len, space.modules))
  return (
    f"chain: {count} modules in {len(space.modules)} layers are sound,"
    f" {math.prod(space.num_choices):,} networks"
  )


def _check_module(where: str, module, shape, wanted):
  """shape, wanted: (H, W, C) of what enters and what is to leave."""
  x = jnp.ones((2, *shape), jnp.float32)
  try:
    variables = module.init(jax.random.key(0), x, False)
    y, new = module.apply(
      variables, x, True, mutable=["batch_stats", "moments"]
    )
  except Exception as error:  # whatever a user's module raises
    words = " ".join(str(error).split())[:200]
    raise ValueError(
      f"{where} fails: {type(error).__name__}: {words}"
    ) from error
  if y.shape != (2, *wanted):
    raise ValueError(
      f"{where} makes {list(y.shape)} of {list(x.shape)}: it has to be"
      f" {[2, *wanted]}"
    )
  mixed.check_kinds(where, variables)
  kept, moments = new.get("batch_stats", {}), new.get("moments", {})
  if jax.tree.structure(kept) != jax.tree.structure(moments):
    raise ValueError(
      f"{where} keeps statistics of its own: take BatchNorm of"
      " nasnet_jax.models.layers"
    )
  gradient = jax.grad(lambda x: module.apply(variables, x, False).sum())(x)
  if not np.isfinite(gradient).all():
    raise ValueError(f"{where} has a gradient that is not finite")


def _check_reward(name: str) -> str:
  row = {"accuracy": 0.5, "params": 1_000_000, "macs": 10_000_000}
  found = [rewards.OwnReward(name).of_row(dict(row)) for _ in range(2)]
  if found[0] != found[1]:
    raise ValueError(
      f"reward {name!r} gives {found[0]} and {found[1]} for one row: it has to"
      " be a function of the row alone"
    )
  return f"reward {name!r}: {found[0]:g} for {row}"


def _check_source(name: str) -> str:
  images, again = (data.load(name) for _ in range(2))
  if images.fingerprint != again.fingerprint:
    raise ValueError(
      f"data source {name!r} gives other images each time: all that is random"
      " has to come from its seed"
    )
  return (
    f"data source {name!r}: {len(images.train_images):,} images to train on and"
    f" {len(images.test_images):,} to test, {list(images.image_shape)},"
    f" {images.num_classes} classes"
  )


def _check_strategy(name: str) -> str:
  where = f"strategy {name!r}"
  told = [_walk(where, name) for _ in range(2)]
  if not all(np.array_equal(*rows) for rows in zip(*told, strict=True)):
    raise ValueError(
      f"{where} proposes other children to the same answers and keys: all that"
      " is random has to come from the key"
    )
  return f"{where}: {len(told[0])} children asked and told, twice alike"


def _walk(where: str, name: str) -> list[np.ndarray]:
  controller = controllers.make(name, _CHOICES)
  state = controller.init(jax.random.key(0))
  shapes = jax.tree.map(np.shape, state)
  found: list[np.ndarray] = []
  for turn in range(4):
    proposals, state = controller.ask(state, jax.random.key(turn), 3)
    ids = np.asarray(proposals.id).tolist()
    if ids != list(range(len(found), len(found) + len(ids))):
      raise ValueError(f"{where} numbers children {ids}: go on, each once")
    rows = base.as_space(_CHOICES).decode(np.asarray(proposals.decisions))
    rewards = rows.sum(-1).astype(np.float32)
    status = np.full(len(rows), base.OK, np.int32)
    if not turn and len(rows):
      rewards[0], status[0] = np.nan, base.FAILED
    if controller.objectives > 1:
      rewards = np.repeat(rewards[:, None], controller.objectives, 1)
    state = controller.tell(state, proposals, rewards, status)
    if jax.tree.map(np.shape, state) != shapes:
      raise ValueError(
        f"{where}: its state changes its shape: init fixes all of them"
      )
    found += list(rows)
  return found
