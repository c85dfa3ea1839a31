"""Operations, spaces, strategies, rewards and data out of a user's own file.

    import flax.linen as nn
    import nasnet_jax as nas

    @nas.operation("mixed_pool_3x3")
    class MixedPool(nn.Module):
      ...

    space = nas.cells(["identity", "mixed_pool_3x3"], blocks=3)
    nas.search(images, labels, space=space)

A command takes the file by `--import=my_parts.py`.
"""

import functools
import inspect
from collections.abc import Callable, Sequence

from nasnet_jax import controllers
from nasnet_jax.costs import counting
from nasnet_jax.data import SOURCES, image_data
from nasnet_jax.models import ops
from nasnet_jax.population import mixed
from nasnet_jax.search import rewards
from nasnet_jax.spaces import OWN
from nasnet_jax.spaces.cells import CellSpace
from nasnet_jax.training import own_parts, program_cache

# The library's own names of each kind of part.
OURS = {
  "operation": frozenset(ops.OPERATIONS),
  "strategy": frozenset(controllers.CONTROLLERS),
  "reward": frozenset(rewards.KINDS),
  "data source": frozenset(SOURCES),
}
_FIELDS = ("numerics", "features", "stride")


def _refuse_ours(kind: str, name: str):
  if name in OURS[kind]:
    raise ValueError(f"{kind} {name!r} is the library's: take another name")


def _enter(kind: str, name: str, table: dict, part):
  """Puts a part where configs and calls look it up, and returns it."""
  table[name] = part
  own_parts.note(kind, name, part)
  return part


def operation(name: str) -> Callable:
  """Gives a Linen module a name that spaces of cells can have.

  The module has the fields numerics, features and stride, and is called with
  (x, train): [N, H, W, C] -> [N, ceil(H/stride), ceil(W/stride), features].
  `nas.check(name)` tells whether it does.

  Args:
    name: words and a size, such as "mixed_pool_3x3"; drawings go by it.

  Raises:
    ValueError: one line: a name of the library's own, or no such module.
  """
  _refuse_ours("operation", name)

  def register(module):
    made = module.func if isinstance(module, functools.partial) else module
    fields = inspect.signature(made).parameters
    missing = [field for field in _FIELDS if field not in fields]
    if missing:
      raise ValueError(
        f"operation {name!r}: {made.__name__} has no field {missing[0]!r}: it"
        " takes numerics, features and stride, in that order"
      )
    program_cache.note(made)
    # A notebook's cell is run again after a change.
    mixed.make.cache_clear()
    counting.forget_operations()
    return _enter("operation", name, ops.OPERATIONS, module)

  return register


def strategy(name: str) -> Callable:
  """Gives a strategy a name. A strategy is a function of a space and options
  that makes a `controllers.base.Controller`.

  Raises:
    ValueError: one line, for a name of the library's own.
  """
  _refuse_ours("strategy", name)
  return functools.partial(_enter, "strategy", name, controllers.CONTROLLERS)


def reward(name: str) -> Callable:
  """Gives a reward a name, which `search.reward.kind` can be.

  A reward is a function of a child's row, a dict with accuracy, params and
  macs, and with bytes or latency where `search.reward.cost` says so. It returns
  a number, larger for better children, or None for one that counts as failed.

  Raises:
    ValueError: one line, for a name of the library's own.

  >>> @reward("small_and_good")
  ... def small_and_good(row):
  ...   return row["accuracy"] - 0.01 * row["params"] / 1e6
  """
  _refuse_ours("reward", name)
  return functools.partial(_enter, "reward", name, rewards.OWN)


def data_source(name: str) -> Callable:
  """Gives a source of images a name, which `data.source` can be.

  A source is a function of data_dir and keyword arguments, which are
  `data.options` of a config ("seed" is `data.seed`); it returns a
  `nasnet_jax.data.ImageData`.

  Raises:
    ValueError: one line, for a name of the library's own, or no such function.
  """
  _refuse_ours("data source", name)

  def register(function):
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters or any(
      p.kind != inspect.Parameter.KEYWORD_ONLY for p in parameters[1:]
    ):
      raise ValueError(
        f"data source {name!r} takes data_dir, and all else by keyword only:"
        " def load(data_dir=None, *, size=8)"
      )
    return _enter("data source", name, SOURCES, function)

  return register


def cells(
  operations: Sequence[str],
  *,
  blocks: int = 5,
  reduction: bool = True,
  min_blocks: int = 0,
) -> CellSpace:
  """The space of cells over these operations.

  Args:
    operations: names, the library's and one's own, each once.
    blocks: B of a cell.
    reduction: whether a second cell is searched, for where the side halves;
      else one cell serves both.
    min_blocks: 0: all cells have B blocks; else B or fewer, down to this.

  Raises:
    ValueError: one line, for an unknown operation or sizes that make no cell.

  >>> space = cells(["identity", "sep_conv_3x3", "max_pool_3x3"], blocks=3)
  >>> space.summary
  '3 blocks, 3 operations'
  """
  from nasnet_jax import spaces

  for name in operations:
    if name not in ops.OPERATIONS:
      hint = image_data.nearest(name, ops.OPERATIONS)
      raise ValueError(f"no operation is called {name!r}: {hint}")
  if blocks < 1:
    raise ValueError(f"blocks is {blocks}: give 1 or more")
  return spaces.get(OWN[not reduction], blocks, tuple(operations), min_blocks)
