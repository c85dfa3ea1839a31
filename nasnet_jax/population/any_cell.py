"""A cell whose architecture is data: the traced twin of `cell.Cell`.

States of a cell are one stack [B+I, N, h, w, F]: its I inputs (2, or B where
outputs are passed on separately), then the outputs of its B blocks. Where
inputs have another shape (in a reduction cell; the raw stem in the first cell)
they stand in a second stack, `raw`. The output is the stack itself with a mask
of the states that belong to it; consumers read only those, in place of a
concatenation.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from nasnet_jax.models import folded, stacked_plan
from nasnet_jax.models.cell import FitInputs
from nasnet_jax.models.kernels import convolutions, memory
from nasnet_jax.models.layers import TRUNCATED_STD, Numerics, kernel_std
from nasnet_jax.models.stacked_plan import CellShape, SeparateShape
from nasnet_jax.population import cell_blocks, mixed, state_sums
from nasnet_jax.spaces.genotype import CONCAT, Genes

Array = jax.Array


class Output(NamedTuple):
  """A cell's output, or the stem's.

  Attributes:
    states: [k, N, h, w, F].
    used: bool[k], the states that are concatenated, or passed on separately.
  """

  states: Array
  used: Array


class AnyCell:
  """One cell of the network, for any genes.

  Attributes:
    shape: what is static about it.
    mix: its mixed operation.
  """

  def __init__(
    self,
    shape: CellShape | SeparateShape,
    operations: tuple[str, ...],
    num_blocks: int,
    numerics: Numerics,
    combiners: tuple[str, ...],
    concat_inputs: bool,
  ):
    """combiners: those of the space. concat_inputs: whether genes may
    concatenate states 0 and 1; no sampled cell does, NASNet-A does."""
    self.shape, self.numerics = shape, numerics
    self.num_blocks = num_blocks
    self._combines = cell_blocks.have_a_switch(combiners)
    self.raw_places, self._groups = stacked_plan.groups_of(shape, num_blocks)
    self.mix = mixed.make(operations, self._groups, shape.features, numerics)
    self._blocks = cell_blocks.Blocks(
      self.mix, numerics, self.raw_places, combiners, shape.num_inputs
    )
    self._fitted = [
      s for s in (0, 1) if self.raw_places[s] >= 0 and concat_inputs
    ]

  def init(self, rng, genes: Genes, used: tuple[Array | None, ...]):
    """-> (params, stats).

    Args:
      used: bool[k] for h_i and h_{i-1}, the states that are concatenated; None
        for the h_{i-1} of a first cell.
    """
    used_current, used_previous = used
    keys = iter(jax.random.split(rng, 8))
    features, params, stats = self.shape.features, {}, {}
    params["edges"], stats["edges"] = self._init_edges(next(keys), genes)
    made = {
      "project": _used_kernels(
        next(keys),
        self.numerics,
        used_current,
        self.shape.current[1],
        features,
      )
    }
    if self.shape.previous is not None:
      made["fit_previous"] = self._init_fit_previous(next(keys), used_previous)
    if self._combines:
      params["combine"], stats["combine"] = self._init_combine(
        next(keys), genes
      )
    for s in self._fitted:
      made[f"fit_state_{s}"] = self._init_fit_state(next(keys), genes, s)
    for name, kernel in made.items():
      params[name] = {"conv": kernel, "norm": _norm_params(features)}
      stats[name] = {"norm": _norm_stats(features)}
    return params, stats

  def _init_edges(self, rng, genes):
    branch, _ = cell_blocks.branch_numbers(genes, self.mix, self.raw_places)
    init = functools.partial(mixed.init_params, self.mix, self.numerics)
    params = jax.vmap(jax.vmap(init))(
      branch, jax.random.split(rng, branch.shape)
    )
    stats = jax.tree.map(
      lambda s: jnp.broadcast_to(s, (*branch.shape, *s.shape)),
      mixed.init_stats(self.mix),
    )
    return params, stats

  def _init_fit_previous(self, rng, used):
    features, (_, width, side) = self.shape.features, self.shape.previous
    if side != self.shape.side:
      return tuple(
        _used_kernels(key, self.numerics, used, width, half)
        for key, half in zip(
          jax.random.split(rng), _half(features), strict=True
        )
      )
    kernel = _used_kernels(rng, self.numerics, used, width, features)
    fits = self.takes_previous_as_it_is(used)
    # A kernel that is not used must be 0, or weight decay would see it.
    return jax.tree.map(lambda k: jnp.where(fits, 0.0, k), kernel)

  def takes_previous_as_it_is(self, used: Array) -> Array:
    """bool[]: whether h_{i-1}, of these used states, needs no projection."""
    _, width, side = self.shape.previous
    fits = _fits(used, width, self.shape.features)
    return fits & (side == self.shape.side)

  def _init_combine(self, rng, genes):
    blocks, features = self.num_blocks, self.shape.features
    kernel = _kernel(rng, self.numerics, (blocks, 2, features, features))
    chosen = genes.active & (genes.combine == CONCAT)
    kernel = kernel * chosen[:, None, None, None]  # unused: 0, as above

    def spread(x):
      return jnp.broadcast_to(x, (blocks, *x.shape))

    params = {
      "conv": {"kernel": kernel * _concat_fan(self.numerics)},
      "norm": jax.tree.map(spread, _norm_params(features)),
    }
    return params, {"norm": jax.tree.map(spread, _norm_stats(features))}

  def _init_fit_state(self, rng, genes, state: int):
    features, width = self.shape.features, self._groups[1][0][2]
    if self.shape.stride == 1:
      made = {"kernel": _kernel(rng, self.numerics, (width, features))}
    else:
      made = tuple(
        {"kernel": _kernel(key, self.numerics, (width, half))}
        for key, half in zip(
          jax.random.split(rng), _half(features), strict=True
        )
      )
    unused = ~genes.concat[state]
    return jax.tree.map(lambda k: jnp.where(unused, 0.0, k), made)

  def apply(
    self,
    params,
    stats,
    genes: Genes,
    read: tuple[Output | None, ...],
    masks,
    train: bool,
  ) -> tuple[Output, dict]:
    """-> (output, statistics).

    Args:
      read: outputs of the cells that this one reads; None for the h_{i-1} of a
        first cell.
      masks: see `cell_blocks.Blocks`.
    """
    inputs, new = self._inputs(params, stats, read, train)
    stack, raw = self._stacks(inputs)
    banks = {k: v for k, v in params.items() if k in ("edges", "combine")}
    bank_stats = {k: v for k, v in stats.items() if k in banks}
    if train:
      stack, bank_stats = self._blocks(
        genes, banks, bank_stats, stack, raw, masks
      )
    else:
      stack = self._blocks.evaluate(genes, banks, bank_stats, stack, raw)
    for s in self._fitted:
      name = f"fit_state_{s}"
      y, new[name] = self._fit_state(
        params[name], stats[name], raw[0][self.raw_places[s]], train
      )
      stack = stack.at[s].set(y)
    return Output(stack, genes.concat), {**new, **bank_stats}

  def _stacks(self, inputs):
    """The stack of states, and that of inputs in another shape, if any."""
    first = inputs[0]
    width = self.shape.features * self.numerics.fold
    shape = (first.shape[0], *self.shape.out_side, width)
    empty = jnp.zeros(shape, first.dtype)
    pairs = list(zip(inputs, self.raw_places, strict=False))
    made = [x if place < 0 else empty for x, place in pairs]
    raws = [x for x, place in pairs if place >= 0]
    raw = (jnp.stack(raws),) if raws else ()
    return jnp.stack(made + [empty] * self.num_blocks), raw

  def _inputs(self, params, stats, read, train):
    """-> ((state 0, state 1), statistics)."""
    current, previous = read
    new = {}

    def fit(name, y):
      fold = y.shape[-1] // self.shape.features  # of the cell that is read
      y = folded.refold(y, fold, self.numerics.fold)
      y, new[name] = cell_blocks.norm(
        self.numerics, y, params[name]["norm"], stats[name], train
      )
      return memory.materialise(y)

    weights = params["project"]["conv"]["kernel"]
    first = fit(
      "project", state_sums.project_sum(current.used, current.states, weights)
    )
    if previous is None:
      return (first, current.states[0]), new
    conv = params["fit_previous"]["conv"]
    if self.shape.previous[2] != self.shape.side:
      pair = tuple(c["kernel"] for c in conv)
      y = state_sums.reduce_sum(previous.used, previous.states, pair)
      return (first, fit("fit_previous", y)), new

    def projected():
      y = state_sums.project_sum(previous.used, previous.states, conv["kernel"])
      return fit("fit_previous", y), new.pop("fit_previous")

    def untouched():
      place = previous.used.argmax()
      return previous.states[place], stats["fit_previous"]

    features = self.shape.features
    if self.shape.previous[1] != features:
      second, new["fit_previous"] = projected()
    else:
      fits = self.takes_previous_as_it_is(previous.used)
      second, new["fit_previous"] = lax.cond(fits, untouched, projected)
    return (first, second), new

  def _fit_state(self, params, stats, x, train):
    """An input in the shape of the output, for the concatenation."""
    conv = params["conv"]
    if self.shape.stride == 1:
      y = convolutions.pointwise_conv(x, conv["kernel"].astype(x.dtype))
    else:
      y = state_sums.halves(x, tuple(c["kernel"] for c in conv), relu=False)
    return cell_blocks.norm(self.numerics, y, params["norm"], stats, train)


class AnySeparateCell(AnyCell):
  """The traced twin of `cell.SeparateCell`.

  What its inputs are does not depend on genes: they are prepared by the same
  module as in the static network.
  """

  def __init__(self, shape: SeparateShape, *args):
    """args: as `AnyCell`."""
    super().__init__(shape, *args)
    self._fit = FitInputs(self.numerics, shape.features)

  def init(self, rng, genes: Genes, used: tuple[Array, ...]):
    """-> (params, stats). used: not read, blocks are all passed on."""
    del used
    edges_key, inputs_key, combine_key = jax.random.split(rng, 3)
    params, stats = {}, {}
    params["edges"], stats["edges"] = self._init_edges(edges_key, genes)
    inputs = tuple(
      jnp.zeros((1, *side, width * self.numerics.fold))
      for width, side in self.shape.inputs
    )
    made = self._fit.init(inputs_key, inputs, False)
    params["inputs"], stats["inputs"] = made["params"], made["batch_stats"]
    if self._combines:
      params["combine"], stats["combine"] = self._init_combine(
        combine_key, genes
      )
    return params, stats

  def _inputs(self, params, stats, read, train):
    """-> (states, statistics)."""
    found = {"params": params["inputs"], "batch_stats": stats["inputs"]}
    count = self.shape.num_inputs
    inputs = []
    for j, (output, (width, _)) in enumerate(zip(read, self.shape.inputs)):
      # The outputs are the last states. The stem is a single one.
      x = output.states[max(j - count, -output.states.shape[0])]
      x = folded.refold(x, x.shape[-1] // width, self.numerics.fold)
      inputs.append(x)
    inputs = tuple(inputs)
    if not train:
      return self._fit.apply(found, inputs, False), {}
    states, new = self._fit.apply(found, inputs, True, mutable=["batch_stats"])
    states = [memory.materialise(state) for state in states]
    return states, {"inputs": new["batch_stats"]}


def _fits(used, width: int, features: int):
  """Whether an output needs no projection: one used state of F channels."""
  return (used.sum() == 1) & (width == features)


def _half(features: int) -> tuple[int, int]:
  return features // 2, features - features // 2


def _kernel(rng, numerics, shape, fan_in=None):
  unit = jax.random.truncated_normal(rng, -2.0, 2.0, shape)
  return unit * (kernel_std(numerics, shape[-2:], fan_in) / TRUNCATED_STD)


def _concat_fan(numerics):
  """The combiner's kernel has 2F inputs; `_kernel` saw F of each side."""
  return 0.5**0.5 if numerics.init == "fan_in" else 1.0


def _used_kernels(rng, numerics, used, width, features):
  """{"kernel": [k, width, features]}: fan-in counts used states only; the
  kernels of the others are 0 and stay so."""
  fan_in = jnp.maximum(used.sum(), 1) * width
  kernel = _kernel(rng, numerics, (used.shape[0], width, features), fan_in)
  return {"kernel": kernel * used[:, None, None]}


def _norm_params(features):
  return {"scale": jnp.ones(features), "bias": jnp.zeros(features)}


def _norm_stats(features):
  return {"mean": jnp.zeros(features), "var": jnp.ones(features)}
