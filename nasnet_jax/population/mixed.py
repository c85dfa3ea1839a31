"""The mixed operation: one of many, chosen by a traced index, one executed.

All operations of an edge share one bank of weights, as large as the largest
needs; each views the front of it. What is behind the view is never read, gets
gradient 0 and never changes.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nasnet_jax.models import folded
from nasnet_jax.models.kernels import memory
from nasnet_jax.models.layers import (
  TRUNCATED_STD,
  BatchNorm,
  Numerics,
  kernel_std,
)
from nasnet_jax.models.ops import OPERATIONS
from nasnet_jax.population import switches

Array = jax.Array
_KINDS = ("kernel", "scale", "bias", "mean", "var")  # names of variables


class Piece(NamedTuple):
  """One array of an operation inside its bank."""

  path: tuple[str, ...]
  shape: tuple[int, ...]
  start: int

  @property
  def stop(self) -> int:
    return self.start + math.prod(self.shape)


Layout = dict[str, tuple[Piece, ...]]  # bank name -> the arrays in it


def layout_of(variables: Any) -> Layout:
  """Where each leaf of one collection stands. Banks go by the leaf's name."""
  banks: dict[str, list[Piece]] = {}
  for path, leaf in jax.tree_util.tree_flatten_with_path(variables)[0]:
    keys = tuple(p.key for p in path)
    pieces = banks.setdefault(keys[-1], [])
    start = pieces[-1].stop if pieces else 0
    pieces.append(Piece(keys, leaf.shape, start))
  return {name: tuple(pieces) for name, pieces in banks.items()}


def read_view(layout: Layout, bank: dict[str, Array]) -> dict:
  """The nested variables that an operation finds in its bank."""
  tree: dict = {}
  for name, pieces in layout.items():
    for piece in pieces:
      node = tree
      for key in piece.path[:-1]:
        node = node.setdefault(key, {})
      flat = bank[name][piece.start : piece.stop]
      node[piece.path[-1]] = flat.reshape(piece.shape)
  return tree


def write_view(layout: Layout, tree: Any, sizes: dict[str, int]):
  """A bank whose front is `tree`; behind it are zeros."""
  bank = {}
  for name, size in sizes.items():
    parts, stop = [], 0
    for piece in layout.get(name, ()):
      leaf = tree
      for key in piece.path:
        leaf = leaf[key]
      parts.append(leaf.reshape(-1))
      stop = piece.stop
    bank[name] = jnp.concatenate([*parts, jnp.zeros(size - stop)])
  return bank


class Branch(NamedTuple):
  """One operation on one group of states.

  Attributes:
    module: the Linen module.
    group: index into the tuple of state stacks that it reads.
    params, stats: layouts of its variables.
  """

  module: Any
  group: int
  params: Layout
  stats: Layout


class Mixed(NamedTuple):
  """All branches of the edges of one cell and the sizes of their banks.

  Branch number: group * number of operations + operation; the last one,
  `inactive`, gives 0 and is for blocks left out.
  """

  branches: tuple[Branch, ...]
  num_operations: int
  inactive: int
  params: dict[str, int]
  stats: dict[str, int]
  # (branch, states, params) -> (y, moments); `running_stats` takes these
  forward: Callable
  # Of each group: (branch's place in it, states + (gradients,), params,
  # moments, mask) -> (dx, dparams). Of a single group the last is `inactive`.
  backward: tuple[Callable, ...]
  evaluate: Callable  # (branch, states, params, stats) -> y


@functools.lru_cache(maxsize=1024)
def _variable_shapes(module, channels: int) -> tuple[Any, Any, set[float]]:
  """(params, batch_stats, the bn_decay of its batch norms) of an operation; the
  image's side plays no part."""
  decays = set()

  def look(call, args, kwargs, context):
    if isinstance(context.module, BatchNorm):
      decays.add(context.module.numerics.bn_decay)
    return call(*args, **kwargs)

  x = jax.ShapeDtypeStruct((1, 4, 4, channels), jnp.float32)
  init = functools.partial(module.init, train=False)
  with nn.intercept_methods(look):
    shapes = jax.eval_shape(init, jax.random.key(0), x)
  return shapes.get("params", {}), shapes.get("batch_stats", {}), decays


class _Functions:
  """What a branch does, for `make`, which has the signatures.

  Attributes:
    groups, features, numerics: see `make`.
    params, stats: sizes of the banks.
  """

  def __init__(self, groups, features, numerics, params, stats):
    self.groups, self.features, self.numerics = groups, features, numerics
    self.params, self.stats = params, stats

  def forward(self, branch, states, params):
    # Running statistics begin anew here and are thrown away.
    y, new = branch.module.apply(
      {"params": read_view(branch.params, params)},
      read_state(states, branch.group),
      True,
      mutable=["batch_stats", "moments"],
    )
    if self.numerics.bn_frozen:  # by what running statistics begin with
      begun = _first_stats(self.stats)
      parts = self.numerics.bn_parts
      return y, jax.tree.map(lambda row: jnp.stack([row] * parts), begun)
    return y, self._over_parts(
      lambda part: write_view(branch.stats, part, self.stats),
      new.get("moments", {}),
    )

  def _over_parts(self, function, moments):
    """function of each part's moments, stacked again; see BatchNorm."""
    parts = [
      function(jax.tree.map(lambda m, p=p: m[p], moments))
      for p in range(self.numerics.bn_parts)
    ]
    return jax.tree.map(lambda *rows: jnp.stack(rows), *parts)

  def backward(self, branch, states, params, moments, mask):
    *states, gradients = states  # the last stack is the outputs' gradients
    g = read_state([gradients], 0)
    if mask is not None:
      g = folded.masked(g, mask, self.numerics.fold)
    # With the batch's moments at hand the running statistics play no part.
    known = self._over_parts(
      functools.partial(read_view, branch.stats), moments
    )

    def op(x, view):
      found = {"params": view, "batch_stats": known, "moments": known}
      return branch.module.apply(found, x, True)

    view = read_view(branch.params, params)
    dx, dview = jax.vjp(op, read_state(states, branch.group), view)[1](g)
    return dx, write_view(branch.params, dview, self.params)

  def evaluate(self, branch, states, params, stats):
    found = _variables(branch, params, stats)
    return branch.module.apply(found, read_state(states, branch.group), False)

  def nothing(self, states, *_):
    batch = states[0][0].shape[1]
    (height, width, _), stride = self.groups[0]
    side = (-(-height // stride), -(-width // stride))
    width = self.features * self.numerics.fold
    return jnp.zeros((batch, *side, width), states[0][0].dtype)

  def nothing_forward(self, states, _):
    parts = self.numerics.bn_parts
    moments = {
      name: jnp.zeros((parts, size)) for name, size in self.stats.items()
    }
    return self.nothing(states), moments

  def nothing_backward(self, states, params, *_):
    (stack, _), _ = states
    dx = jnp.zeros(stack.shape[1:], stack.dtype)
    return dx, jax.tree.map(jnp.zeros_like, params)


def read_state(states, group: int) -> Array:
  """The state that a place of one of the stacks points to."""
  stack, place = states[group]
  return memory.pixel_major(
    lax.dynamic_index_in_dim(stack, place, 0, keepdims=False)
  )


def _variables(branch: Branch, params, stats):
  return {
    "params": read_view(branch.params, params),
    "batch_stats": read_view(branch.stats, stats),
  }


@functools.lru_cache(maxsize=64)
def make(
  operations: tuple[str, ...],
  groups: tuple[tuple[tuple[int, int, int], int], ...],
  features: int,
  numerics: Numerics,
) -> Mixed:
  """The mixed operation of a cell; cells of one shape share it, and so its
  traces.

  Args:
    operations: names.
    groups: for each stack of states that edges can read, ([H, W, C] of one
      state, stride of operations on it).
    features: F of the output.
  """
  modules = tuple(
    OPERATIONS[op](numerics, features, stride)
    for _, stride in groups
    for op in operations
  )
  return of_modules(modules, groups, features, numerics)


@functools.lru_cache(maxsize=256)
def of_modules(
  modules: tuple[nn.Module, ...],
  groups: tuple[tuple[tuple[int, int, int], int], ...],
  features: int,
  numerics: Numerics,
) -> Mixed:
  """The same of any modules that are called with (x, train).

  Args:
    modules: of each group as many, in the order of branch numbers.
    groups, features: see `make`.
  """
  num_operations = len(modules) // len(groups)
  branches = []
  for i, module in enumerate(modules):
    number = i // num_operations
    width = groups[number][0][-1] * numerics.fold
    params, stats, decays = _variable_shapes(module, width)
    if decays - {numerics.bn_decay}:
      raise ValueError(
        f"{type(module).__name__} has a batch norm with a bn_decay of its own:"
        f" give it the numerics of the network ({numerics.bn_decay})"
      )
    branches.append(Branch(module, number, layout_of(params), layout_of(stats)))
  params_sizes = _bank_sizes([b.params for b in branches])
  stats_sizes = _bank_sizes([b.stats for b in branches])
  do = _Functions(groups, features, numerics, params_sizes, stats_sizes)

  def switch(function, inactive=None, only=None):
    ways = [
      functools.partial(function, branch)
      for branch in branches
      if only is None or branch.group == only
    ]
    return switches.switch_one(ways if inactive is None else [*ways, inactive])

  alone = do.nothing_backward if len(groups) == 1 else None
  return Mixed(
    tuple(branches),
    num_operations,
    len(branches),
    params_sizes,
    stats_sizes,
    switch(do.forward, do.nothing_forward),
    tuple(switch(do.backward, alone, group) for group in range(len(groups))),
    switch(do.evaluate, do.nothing),
  )


def _bank_sizes(layouts: list[Layout]) -> dict[str, int]:
  sizes: dict[str, int] = {}
  for layout in layouts:
    for name, pieces in layout.items():
      sizes[name] = max(sizes.get(name, 0), pieces[-1].stop)
  return dict(sorted(sizes.items()))


def init_params(mixed: Mixed, numerics: Numerics, branch: Array, rng: Array):
  """One edge's bank with the initial values of the chosen branch.

  One draw of unit normals, scaled piece by piece: no switch is needed.
  """
  bank = {}
  for name, size in mixed.params.items():
    _check_kind("an operation", name)
    starts, stops, values = pieces(mixed, numerics, name)
    place = jnp.arange(size)[:, None]
    inside = (place >= starts[branch]) & (place < stops[branch])
    value = jnp.where(inside, values[branch], 0.0).sum(1)
    if name == "kernel":
      unit = jax.random.truncated_normal(rng, -2.0, 2.0, (size,))
      value = value * unit / TRUNCATED_STD
    bank[name] = value
  return bank


def check_kinds(where: str, variables):
  """Raises ValueError, one line, for weights whose initial values are not
  known here: those of children are drawn, not initialised by their module."""
  for collection in ("params", "batch_stats"):
    for name in layout_of(variables.get(collection, {})):
      _check_kind(where, name)


def _check_kind(where: str, name: str):
  if name not in _KINDS:
    raise ValueError(
      f"{where} has weights called {name!r}, whose initial values a search does"
      f" not know: build it of nasnet_jax.models.layers ({', '.join(_KINDS)})"
    )


def pieces(mixed: Mixed, numerics: Numerics, name: str):
  """(starts, stops, values) [branches, n] of a bank's arrays.

  The value of a kernel is its standard deviation, that of a scale 1.
  """
  most = max(len(b.params.get(name, ())) for b in mixed.branches)
  stops = np.zeros((mixed.inactive + 1, most), np.int32)
  values = np.zeros((mixed.inactive + 1, most), np.float32)
  for i, branch in enumerate(mixed.branches):
    stop = 0
    for j, piece in enumerate(branch.params.get(name, ())):
      stop = piece.stop
      stops[i, j] = stop
      if name == "kernel":
        values[i, j] = kernel_std(numerics, piece.shape)
      else:
        values[i, j] = float(name == "scale")
    stops[i, len(branch.params.get(name, ())) :] = stop
  starts = np.pad(stops, ((0, 0), (1, 0)))[:, :-1]
  return jnp.asarray(starts), jnp.asarray(stops), jnp.asarray(values)


def running_stats(
  mixed: Mixed, keep: float, branch: Array, stats: Any, moments: Any
) -> dict[str, Array]:
  """Running statistics after a step, of many edges at once: by themselves
  they are small instructions, a dozen per edge.

  Args:
    keep: `Numerics.bn_decay`.
    branch: int32[...] of each edge.
    stats: banks [..., size].
    moments: banks [..., parts, size] that `forward` gave.
  """
  new = {}
  for name, old in stats.items():
    stops = [
      b.stats[name][-1].stop if name in b.stats else 0 for b in mixed.branches
    ]
    stop = jnp.asarray([*stops, 0], jnp.int32)[branch]
    inside = jnp.arange(old.shape[-1]) < stop[..., None]
    mean = moments[name].mean(-2)
    new[name] = jnp.where(inside, keep * old + (1 - keep) * mean, old)
  return new


def init_stats(mixed: Mixed) -> dict[str, Array]:
  """One edge's bank of running statistics: means 0, variances 1."""
  return _first_stats(mixed.stats)


def _first_stats(sizes: dict[str, int]) -> dict[str, Array]:
  return {name: jnp.full(n, float(name == "var")) for name, n in sizes.items()}
