"""One cell as an ordinary static network.

A cell is a literal: (((in 1, in 2, op 1, op 2, combiner), ...), concat), a
tuple, so that a module can hold it. State 0 is h_i, 1 is h_{i-1}.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from nasnet_jax.models import drop_path as dp
from nasnet_jax.models import kernels
from nasnet_jax.models.layers import (
  BatchNorm,
  FactorizedReduction,
  Numerics,
  PointwiseConv,
)
from nasnet_jax.models.ops import OPERATIONS

Array = jax.Array


class Project(nn.Module):
  """ReLU, 1x1 to `features`, batch norm."""

  numerics: Numerics
  features: int

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    num = self.numerics
    x = PointwiseConv(num, self.features, name="conv")(nn.relu(x))
    return BatchNorm(num, name="norm")(x, train)


class FitPrevious(nn.Module):
  """Gives h_{i-1} the shape of h_i with `features` channels, if it differs."""

  numerics: Numerics
  features: int

  @nn.compact
  def __call__(self, previous: Array, like: Array, train: bool) -> Array:
    if previous.shape[1:3] != like.shape[1:3]:
      fit = FactorizedReduction(self.numerics, self.features, name="reduce")
      return fit(nn.relu(previous), train)
    if previous.shape[-1] != self.features:
      return Project(self.numerics, self.features, name="project")(
        previous, train
      )
    return previous


class Cell(nn.Module):
  """A cell of any space.

  Attributes:
    cell: the literal.
    features: F, channels of every state made here.
    stride: 2 for a reduction: operations on states 0 and 1 get stride 2.
    index: of this cell in the network, for drop path.
  """

  numerics: Numerics
  cell: Any
  features: int
  stride: int = 1
  index: int = 0

  @nn.compact
  def __call__(
    self, current: Array, previous: Array | None, train: bool, drop=None
  ) -> Array:
    """current: h_i [N, H, W, C]; previous: h_{i-1}, or None in a first cell.

    Returns:
      [N, ceil(H/stride), ceil(W/stride), number of concatenated states * F].
    """
    num, features = self.numerics, self.features
    if previous is None:
      previous = current  # as it is, not even projected (slim, CIFAR cell 0)
    else:
      previous = FitPrevious(num, features, name="fit_previous")(
        previous, current, train
      )
    current = Project(num, features, name="project")(current, train)
    states = [current, previous]
    blocks, concat = self.cell
    for b, block in enumerate(blocks):
      states.append(self._block(b, block, states, train, drop))
    return self._output(states, concat, train)

  def _block(self, b, block, states, train, drop) -> Array:
    left, right, *operations = block[:4]
    combiner = block[4] if len(block) > 4 else "add"
    sides = []
    for side, (state, op) in enumerate(
      zip((left, right), operations, strict=True)
    ):
      stride = self.stride if state < 2 else 1
      name = f"block_{b}_{side}"
      module = OPERATIONS[op](self.numerics, self.features, stride, name=name)
      y = module(states[state], train)
      if drop is not None and train and op != "identity":
        mask = dp.edge_mask(drop, self.index, 2 * b + side, y.shape[0])
        y = y * mask.astype(y.dtype)
      sides.append(y)
    if combiner == "add":
      return kernels.materialise(sides[0] + sides[1])
    both = jnp.concatenate(sides, -1)
    combine = Project(self.numerics, self.features, name=f"block_{b}_combine")
    return combine(both, train)

  def _output(self, states, concat, train) -> Array:
    side = states[-1].shape[1:3]
    parts = []
    for s in concat:
      state = states[s]
      if state.shape[1:3] != side or state.shape[-1] != self.features:
        stride = 2 if state.shape[1:3] != side else 1
        fit = FactorizedReduction(
          self.numerics, self.features, stride, name=f"fit_state_{s}"
        )
        state = fit(state, train)
      parts.append(state)
    return kernels.materialise(jnp.concatenate(parts, -1))
