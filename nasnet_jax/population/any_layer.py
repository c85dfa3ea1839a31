"""One layer of a row of blocks whose design is data.

A layer is one switch over operations, kernels and squeeze-excite, and one over
skips. It runs at the most channels that its block can have. Channels beyond
the chosen ones are exactly 0 all the way: their weights are 0, batch norm makes
0 of 0, and so their gradients are 0, and weight decay and clipping see nothing.

The mean over random children of MnasNet's full space: 1.37 times the
multiply-adds of their own sizes (200 children, at 224 and at 32 pixels,
2026-11-27, counted with `counting.make_block_counter` at the largest and at the
chosen channels; the worst child 2.1 times). One program per set of channels
would need 3^7 of them.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasnet_jax.models import blocks
from nasnet_jax.models.kernels import memory, pools
from nasnet_jax.models.layers import TRUNCATED_STD, Numerics, kernel_std
from nasnet_jax.population import mixed, switches
from nasnet_jax.spaces.blocks import Group
from nasnet_jax.spaces.mnasnet import SKIPS

Array = jax.Array

# What the last axes of a module's weights count, by kind of block and module.
_AXES = {
  "mbconv": {
    "expand": ("entering", "hidden"),
    "norm_0": ("hidden",),
    "depthwise": ("hidden",),
    "norm_1": ("hidden",),
    "squeeze_excite/reduce": ("hidden", "squeezed"),
    "squeeze_excite/expand": ("squeezed", "hidden"),
    "project": ("hidden", "leaving"),
    "norm_2": ("leaving",),
  },
  "conv": {
    "conv": ("entering", "leaving"),
    "norm_0": ("leaving",),
    "squeeze_excite/reduce": ("leaving", "squeezed"),
    "squeeze_excite/expand": ("squeezed", "leaving"),
  },
}


def _lengths(group: Group, entering: int, leaving: int) -> dict[str, int]:
  """Of the axes above."""
  return {
    "entering": entering,
    "leaving": leaving,
    "hidden": entering * group.expansion,
    "squeezed": blocks.squeezed_features(entering, group.squeeze),
  }


def _used_shape(group: Group, piece: mixed.Piece, entering: int, leaving: int):
  """The part of a module's array, from its front, that these widths use."""
  axes = _AXES[group.kind]["/".join(piece.path[:-1])]
  axes = axes[-len(piece.shape) :]
  lengths = _lengths(group, entering, leaving)
  lead = piece.shape[: len(piece.shape) - len(axes)]
  return (*lead, *(lengths[axis] for axis in axes))


class AnyLayer:
  """One layer, for any operation and any of the widths around it.

  Attributes:
    mix: its mixed operation.
  """

  def __init__(
    self,
    groups: tuple[Group, ...],
    activation: str,
    numerics: Numerics,
    shape: tuple[int, int, int],
    stride: int,
    widths: tuple[tuple[int, int], ...],
  ):
    """groups: of the switch's branches; shape: (H, W, most channels) of what
    enters; widths: (entering, leaving) that can be chosen."""
    self._groups, self._numerics, self._widths = groups, numerics, widths
    self._features = max(leaving for _, leaving in widths)
    self._stride = stride
    modules = tuple(
      blocks.BLOCKS[group.kind](
        numerics, group, self._features, stride, activation, 0
      )
      for group in groups
    )
    self.mix = mixed.of_modules(
      modules, ((shape, stride),), self._features, numerics
    )
    self._shortcut = switches.switch_one(
      [functools.partial(_first_state, way) for way in self._ways()]
    )
    self._shortcut_backward = switches.switch_one(
      [functools.partial(_pullback, way) for way in self._ways()]
    )
    self._tables = {name: self._table(name) for name in self.mix.params}

    @jax.custom_vjp
    def train(*args):
      return self._run(*args)[:2]

    train.defvjp(self._forward, self._backward)
    self.train = train

  def _ways(self):
    """What is added to the operation's output, by the index into SKIPS."""

    def none(x):
      side = [-(-length // self._stride) for length in x.shape[1:3]]
      return jnp.zeros((x.shape[0], *side, self._features), x.dtype)

    def fit(x):
      # Only called where as many channels enter as leave: no more than both.
      x = x[..., : self._features]
      missing = self._features - x.shape[-1]
      return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, missing)))

    def pool(x):
      return pools.avg_pool(fit(x), 3, self._stride)

    ways = {"none": none, "identity": fit, "pool": pool}
    if self._stride > 1:
      ways["identity"] = none
    return [ways[skip] for skip in SKIPS]

  # --- initial values --------------------------------------------------------

  def _table(self, bank: str) -> "_Table":
    """What `init` must know of a bank's arrays."""
    rows = [branch.params.get(bank, ()) for branch in self.mix.branches]
    # The branch behind the last is that of layers left out: nothing is used.
    size = (len(rows) + 1, max(map(len, rows)))
    of_widths = (size[0], len(self._widths), size[1])
    table = _Table(
      np.zeros(size, np.int32),
      np.ones((*size, 4), np.int32),
      np.zeros((*of_widths, 4), np.int32),
      np.zeros(of_widths, np.float32),
    )
    for b, (group, row) in enumerate(zip(self._groups, rows, strict=True)):
      for s, piece in enumerate(row):
        lead = 4 - len(piece.shape)
        table.start[b, s] = piece.start
        table.shape[b, s, lead:] = piece.shape
        for w, width in enumerate(self._widths):
          used = _used_shape(group, piece, *width)
          table.used[b, w, s] = [1] * lead + list(used)
          std = kernel_std(self._numerics, used) if bank == "kernel" else 1.0
          table.value[b, w, s] = 0.0 if bank == "bias" else std
    return table

  def init(self, rng: Array, branch: Array, width: Array) -> tuple[dict, dict]:
    """(params, batch_stats): banks of one layer.

    One draw of unit normals, scaled piece by piece: no switch is needed.
    """
    params = {
      name: _fill(table, self.mix.params[name], branch, width)
      for name, table in self._tables.items()
    }
    shape = params["kernel"].shape
    unit = jax.random.truncated_normal(rng, -2.0, 2.0, shape) / TRUNCATED_STD
    params["kernel"] *= unit
    return params, mixed.init_stats(self.mix)

  # --- (branch, skip), params, stats, x -> y, stats --------------------------

  def _run(self, index, params, stats, x):
    branch, skip = index
    states = _as_states(x)
    y, moments = self.mix.forward(branch, states, params)
    y = memory.materialise(y + self._shortcut(skip, states))
    keep = self._numerics.bn_decay
    new = mixed.running_stats(self.mix, keep, branch, stats, moments)
    return y, new, moments

  def _forward(self, index, params, stats, x):
    y, new, moments = self._run(index, params, stats, x)
    return (y, new), (index, params, x, moments)

  def _backward(self, saved, cotangents):
    (branch, skip), params, x, moments = saved
    states = (*_as_states(x), *_as_states(memory.materialise(cotangents[0])))
    (backward,) = self.mix.backward
    dx, dparams = backward(branch, states, params, moments, None)
    return None, dparams, None, dx + self._shortcut_backward(skip, states)

  def evaluate(self, index, params, stats, x):
    """y, with the running statistics."""
    branch, skip = index
    states = _as_states(x)
    y = self.mix.evaluate(branch, states, params, stats)
    return y + self._shortcut(skip, states)

  def extract(self, branch: int, params, stats) -> tuple[dict, dict]:
    """(params, batch_stats) that the branch's module finds in the banks."""
    found = self.mix.branches[branch]
    return (
      mixed.read_view(found.params, params),
      mixed.read_view(found.stats, stats),
    )


class _Table(NamedTuple):
  """Arrays of a bank, by branch and array; those of fewer axes than four have
  ones in front.

  Attributes:
    start: int32[branches, arrays].
    shape: int32[branches, arrays, 4].
    used: int32[branches, widths, arrays, 4], the part that is not 0.
    value: f32[branches, widths, arrays], of what is in it: of kernels the
      standard deviation.
  """

  start: np.ndarray
  shape: np.ndarray
  used: np.ndarray
  value: np.ndarray


def _fill(table: _Table, size: int, branch: Array, width: Array) -> Array:
  """f32[size], a bank of the table's values and of zeros."""
  start, shape = jnp.asarray(table.start)[branch], jnp.asarray(table.shape)
  shape = shape[branch]
  used = jnp.asarray(table.used)[branch, width]
  value = jnp.asarray(table.value)[branch, width]
  place, bank = jnp.arange(size), jnp.zeros(size)
  for s in range(table.start.shape[1]):
    rest = place - start[s]
    inside = (rest >= 0) & (rest < shape[s].prod())
    for axis in reversed(range(4)):
      inside &= rest % shape[s, axis] < used[s, axis]
      rest //= shape[s, axis]
    bank += jnp.where(inside, value[s], 0.0)
  return bank


def _as_states(x: Array):
  """What `switches.unbatched` takes for a single state."""
  return ((x[None], jnp.int32(0)),)


def _first_state(way, states):
  return way(mixed.read_state(states, 0))


def _pullback(way, states):
  """The gradient of what enters; the last state is that of what leaves."""
  x, g = (mixed.read_state(states, group) for group in range(2))
  return jax.vjp(way, x)[1](g)[0]
