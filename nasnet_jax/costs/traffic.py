"""Bytes that inference moves: XLA's own count, operation by operation.

Compiling each child to ask the compiler costs more than training a small one.
So what a cell is made of is compiled once per shape, for one image, and a
child's bytes are the sum: every operation reads its input and its weights and
writes its output, and all that XLA could not fuse inside it counts too.
Additions, concatenations and the last pooling are not counted. The numbers are
those of the backend and the version of XLA that compiles: a cost to search by,
not one to compare between machines.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from nasnet_jax.models import (
  blocks,
  cell,
  layers,
  ops,
  stacked,
  stage_network,
)

# What is compiled as a whole; modules inside of them are not looked at.
_UNITS = (
  ops.Identity,
  ops.SeparableConv,
  ops.DenseConv,
  ops.Bottleneck,
  ops.Pool,
  cell.Project,
  layers.FactorizedReduction,
  stacked.Stem,
  stacked.Classifier,
  stage_network.Node,
  blocks.Block,
  # Of stems and heads; inside of the others they are not looked at.
  layers.Conv,
  layers.PointwiseConv,
  layers.BatchNorm,
)


def count_bytes(module: nn.Module, shape: tuple[int, ...]) -> int:
  """Bytes accessed by a network called with ([1, *shape], train).

  Seconds for the first child of a process, milliseconds once most operations
  have been met in most shapes.

  Raises:
    ValueError: if the backend's compiler does not count.
  """
  total, compiling = 0, False

  def intercept(call, args, kwargs, context):
    nonlocal total, compiling
    unit = context.module
    is_call = context.method_name == "__call__"
    if compiling or not is_call or not isinstance(unit, _UNITS):
      return call(*args, **kwargs)
    x, *rest = args
    compiling = True
    try:
      alone = _alone(unit)
      accessed, output = _compile(alone, x.shape, x.dtype, *rest, **kwargs)
    finally:
      compiling = False
    total += accessed
    return jnp.zeros(output.shape, output.dtype)

  image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
  init = functools.partial(module.init, train=False)
  with nn.intercept_methods(intercept):
    jax.eval_shape(init, jax.random.key(0), image)
  return total


def _alone(unit: nn.Module) -> nn.Module:
  """The unit without what only tells where it stands."""
  if isinstance(unit, blocks.Block):
    unit = unit.clone(parent=None, index=0, group=unit.group.layer)
  return unit.clone(parent=None, name=None)


@functools.cache
def _compile(unit, shape, dtype, *rest, **kwargs):
  """(bytes accessed, shape and type of the output) of one unit."""
  x = jax.ShapeDtypeStruct(shape, dtype)
  init = functools.partial(unit.init, **kwargs)
  variables = jax.eval_shape(lambda x: init(jax.random.key(0), x, *rest), x)

  def apply(variables, x):
    return unit.apply(variables, x, *rest, **kwargs)

  cost = jax.jit(apply).lower(variables, x).compile().cost_analysis()
  if not cost or "bytes accessed" not in cost:
    raise ValueError(
      f"the compiler of {jax.default_backend()} does not count bytes: take"
      " search.reward.cost 'macs' or 'params'"
    )
  return int(cost["bytes accessed"]), jax.eval_shape(apply, variables, x)
