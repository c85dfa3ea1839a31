"""One cell as an ordinary static network.

A cell is a literal: (((in 1, in 2, op 1, op 2, combiner), ...), concat), a
tuple, so that a module can hold it. State 0 is h_i, 1 is h_{i-1}. A third
entry, "separate", makes it a `SeparateCell`: nothing is concatenated, and the
states in place of `concat` are its outputs, in order.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from nasnet_jax.models import drop_path as dp
from nasnet_jax.models.kernels import memory
from nasnet_jax.models.layers import (
  NORM_AXES,
  BatchNorm,
  ExampleNorm,
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


def halvings(side: tuple[int, int], target: tuple[int, int]) -> int:
  """Strides of 2 that lead from one (h, w) to another.

  Raises:
    ValueError: if none do.
  """
  count, here = 0, tuple(side)
  while here != tuple(target):
    if all(h <= t for h, t in zip(here, target, strict=True)):
      raise ValueError(f"maps of {side} cannot be halved to {target}")
    count, here = count + 1, tuple(-(-h // 2) for h in here)
  return count


class FitPrevious(nn.Module):
  """Gives h_{i-1} the shape of h_i with `features` channels, if it differs."""

  numerics: Numerics
  features: int

  @nn.compact
  def __call__(self, previous: Array, like: Array, train: bool) -> Array:
    count = halvings(previous.shape[1:3], like.shape[1:3])
    for i in range(count):  # more than one: from further back than h_{i-1}
      name = f"reduce_{i}" if i else "reduce"
      fit = FactorizedReduction(self.numerics, self.features, name=name)
      previous = fit(nn.relu(previous), train)
    if not count and self.numerics.width(previous) != self.features:
      return Project(self.numerics, self.features, name="project")(
        previous, train
      )
    return previous


class FitInputs(nn.Module):
  """Gives all states that a `SeparateCell` reads the shape of the first.

  The first is prepared as h_i is in a `Cell`, the others as h_{i-1}.
  """

  numerics: Numerics
  features: int

  @nn.compact
  def __call__(self, inputs: tuple[Array, ...], train: bool) -> list[Array]:
    num, features = self.numerics, self.features
    current, *others = inputs
    states = [Project(num, features, name="project")(current, train)]
    for j, state in enumerate(others, 1):
      fit = FitPrevious(num, features, name=f"fit_{j}")
      states.append(fit(state, current, train))
    return states


class Cell(nn.Module):
  """A cell of two inputs and one output.

  Attributes:
    cell: the literal.
    features: F, channels of every state made here.
    stride: 2 for a reduction: operations on the cell's inputs get stride 2.
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
    states = self._states([current, previous], train, drop)
    return self._output(states, self.cell[1], train)

  def _states(self, inputs: list[Array], train, drop) -> list[Array]:
    """The inputs, then the outputs of all blocks."""
    states = list(inputs)
    for b, block in enumerate(self.cell[0]):
      states.append(self._block(b, block, states, len(inputs), train, drop))
    return states

  def _block(self, b, block, states, num_inputs, train, drop) -> Array:
    left, right, *operations = block[:4]
    combiner = block[4] if len(block) > 4 else "add"
    sides = []
    for side, (state, op) in enumerate(
      zip((left, right), operations, strict=True)
    ):
      stride = self.stride if state < num_inputs else 1
      name = f"block_{b}_{side}"
      module = OPERATIONS[op](self.numerics, self.features, stride, name=name)
      y = module(states[state], train)
      if drop is not None and train and op != "identity":
        mask = dp.edge_mask(drop, self.index, 2 * b + side, y.shape[0])
        y = y * mask.astype(y.dtype)
      sides.append(y)
    name = f"block_{b}_combine"
    if combiner == "concat":
      both = jnp.concatenate(sides, -1)
      return Project(self.numerics, self.features, name=name)(both, train)
    total = memory.materialise(sides[0] + sides[1])
    if combiner == "add":
      return total
    norm = ExampleNorm(NORM_AXES[combiner], name=name)
    return memory.materialise(norm(total))

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
    return memory.materialise(jnp.concatenate(parts, -1))


class SeparateCell(Cell):
  """A cell that passes on each of its outputs by itself (NASNet-B).

  Attributes: as `Cell`.
  """

  @nn.compact
  def __call__(
    self, inputs: tuple[Array, ...], train: bool, drop=None
  ) -> tuple[Array, ...]:
    """inputs: h_i, h_{i-1}, ...: [N, H, W, C] each, the later ones possibly of
    larger H and W.

    Returns:
      as many states [N, ceil(H/stride), ceil(W/stride), F].
    """
    fit = FitInputs(self.numerics, self.features, name="inputs")
    states = self._states(fit(inputs, train), train, drop)
    return tuple(states[s] for s in self.cell[1])
