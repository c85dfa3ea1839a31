"""A cell whose architecture is data: the traced twin of `cell.Cell`.

States of a cell are one stack [B+I, N, h, w, F]: its I inputs (2, or B where
outputs are passed on separately), then the outputs of its B blocks. Where
inputs have another shape (in a reduction cell; the raw stem in the first cell)
they stand in a second stack, `raw`. The output is the stack itself with a mask
of the states that belong to it; consumers read only those, in place of a
concatenation.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from nasnet_jax.models import folded, stacked_plan
from nasnet_jax.models.cell import FitInputs
from nasnet_jax.models.kernels import convolutions, memory
from nasnet_jax.models.layers import (
  NORM_AXES,
  TRUNCATED_STD,
  BatchNorm,
  ExampleNorm,
  Numerics,
  kernel_std,
  shift_by_one,
)
from nasnet_jax.models.stacked_plan import CellShape, SeparateShape
from nasnet_jax.population import mixed
from nasnet_jax.spaces.genotype import COMBINERS, CONCAT, Genes

Array = jax.Array


class Output(NamedTuple):
  """A cell's output, or the stem's.

  Attributes:
    states: [k, N, h, w, F].
    used: bool[k], the states that are concatenated, or passed on separately.
  """

  states: Array
  used: Array


# --- sums over the used states -------------------------------------------


def slot_sum(contribution: Callable) -> Callable:
  """f(used, states, kernels) = sum of contribution(states[k], kernels[k]).

  Only over used k, at run time: a state that is not used costs nothing. Equal
  to one convolution of the concatenation.

  Args:
    contribution: (x [N, h, w, F], kernels of one state) -> [N, h', w', G].
  """

  def order(used):
    return jnp.argsort(~used), used.sum()

  def take(stack, place):
    return lax.dynamic_index_in_dim(stack, place, 0, keepdims=False)

  @mixed.unbatched
  def total(used, states, weights):
    ((stack, place),) = states
    slots, count = order(used)
    row = functools.partial(take, place=0)
    shape = jax.eval_shape(contribution, row(stack), jax.tree.map(row, weights))

    def add(i, acc):
      weight = jax.tree.map(lambda w: take(w, slots[i]), weights)
      return acc + contribution(take(stack, place + slots[i]), weight)

    zeros = jnp.zeros(shape.shape, shape.dtype)
    return lax.fori_loop(0, count, add, zeros)

  @mixed.unbatched
  def gradients(used, states, weights, g):
    ((stack, place),) = states
    slots, count = order(used)

    def add(i, grads):
      dstack, dweights = grads
      weight = jax.tree.map(lambda w: take(w, slots[i]), weights)
      x = take(stack, place + slots[i])
      dx, dw = jax.vjp(contribution, x, weight)[1](g)

      def put(a, v):
        return lax.dynamic_update_index_in_dim(a, v, slots[i], 0)

      return put(dstack, dx), jax.tree.map(put, dweights, dw)

    dstack = jnp.zeros((used.shape[0], *stack.shape[1:]), stack.dtype)
    zeros = jax.tree.map(jnp.zeros_like, weights)
    return lax.fori_loop(0, count, add, (dstack, zeros))

  @jax.custom_vjp
  def apply(used, stack, weights):
    return total(used, ((stack, jnp.int32(0)),), weights)

  def forward(used, stack, weights):
    return apply(used, stack, weights), (used, stack, weights)

  def backward(saved, g):
    used, stack, weights = saved
    g = memory.materialise(g)
    return None, *gradients(used, ((stack, jnp.int32(0)),), weights, g)

  apply.defvjp(forward, backward)
  return apply


def _relu_pointwise(x, kernel):
  return convolutions.pointwise_conv(jax.nn.relu(x), kernel.astype(x.dtype))


def _halves(x, weights, relu):
  first, second = weights
  x = jax.nn.relu(x) if relu else x
  a = convolutions.pointwise_conv(x[:, ::2, ::2], first.astype(x.dtype))
  shifted = shift_by_one(x)[:, ::2, ::2]
  b = convolutions.pointwise_conv(shifted, second.astype(x.dtype))
  return folded.join([a, b], x.shape[-1] // first.shape[0])


project_sum = slot_sum(_relu_pointwise)
reduce_sum = slot_sum(functools.partial(_halves, relu=True))


# --- the blocks ------------------------------------------------------------


def branch_numbers(
  genes: Genes, mix: mixed.Mixed, raw_places: tuple[int, ...]
) -> tuple[Array, Array]:
  """(branch int32[B, 2], place in the raw stack int32[B, 2]) of each edge.

  Args:
    raw_places: for each state its place in the raw stack, or -1.
  """
  raw = jnp.asarray(raw_places, jnp.int32)[genes.inputs]
  branch = genes.ops + jnp.where(raw >= 0, mix.num_operations, 0)
  branch = jnp.where(genes.active[:, None], branch, mix.inactive)
  return branch, jnp.maximum(raw, 0)


def _combine(
  numerics: Numerics, combiners: tuple[str, ...], train: bool = True
) -> list[Callable]:
  """Branches (states, ys [2, ...], params, stats) -> (y, stats), by the code
  of the combiner, up to the last of `combiners`. All norms view the same scale
  and offset."""

  def add(states, ys, params, stats):
    del states, params
    return ys[0] + ys[1], stats

  def concat(states, ys, params, stats):
    del states
    kernel = params["conv"]["kernel"]
    y = sum(_relu_pointwise(ys[side], kernel[side]) for side in range(2))
    return _norm(numerics, y, params["norm"], stats, train)

  def normalised(axes, states, ys, params, stats):
    total, _ = add(states, ys, params, stats)
    found = {"params": params["norm"]}
    return ExampleNorm(axes, numerics.fold).apply(found, total), stats

  made = {"add": add, "concat": concat}
  for name, axes in NORM_AXES.items():
    made[name] = functools.partial(normalised, axes)
  last = max(map(COMBINERS.index, combiners))
  return [made[combiner] for combiner in COMBINERS[: last + 1]]


def _norm(numerics, x, params, stats, train):
  found = {"params": params, "batch_stats": stats["norm"]}
  if not train:
    return BatchNorm(numerics).apply(found, x, False), stats
  y, new = BatchNorm(numerics).apply(found, x, True, mutable=["batch_stats"])
  return y, {"norm": new["batch_stats"]}


def _have_a_switch(combiners: tuple[str, ...]) -> bool:
  """Whether blocks need a combiner's switch and weights: not if all add."""
  return combiners != ("add",)


class Blocks:
  """The blocks of a cell, as a function with a backward pass of its own.

  The backward pass is written out: it walks the blocks in reverse, computes
  each operation again from the stored states and the moments of its batch
  norms, and adds gradients up in place. So a cell keeps B+I states.
  """

  def __init__(
    self,
    mix: mixed.Mixed,
    numerics: Numerics,
    raw_places: tuple[int, ...],
    combiners: tuple[str, ...],
    num_inputs: int,
  ):
    self.mix, self.raw_places = mix, raw_places
    self.num_inputs, self.combines = num_inputs, _have_a_switch(combiners)
    self.fold = numerics.fold
    branches = _combine(numerics, combiners)
    self.combine_forward = mixed.switch_one(branches)
    self.combine_backward = mixed.switch_one(list(map(_pullback, branches)))

    @jax.custom_vjp
    def train(*args):
      return self._run(*args)[:2]

    train.defvjp(self._forward, self._backward)
    self._train = train

  def __call__(self, genes, params, stats, stack, raw, masks):
    """-> (stack, stats).

    Args:
      params: {"edges": banks [B, 2, ...], "combine": [B, ...] if any}.
      stats: the same for the running statistics.
      stack: [B+I, N, h, w, F] with the cell's inputs in front, 0 elsewhere.
      raw: tuple of at most one stack [r, N, H, W, C].
      masks: f32[B, 2, N] of ScheduledDropPath, or None. Here and below N, F
        and C are those of a folded map, if `numerics.fold` says so.
    """
    return self._train(genes, params, stats, stack, raw, masks)

  def _per_block(self, genes, raw_places_of_edges):
    """What a scan over blocks reads of the genes."""
    branch, raw_place = raw_places_of_edges
    numbers = jnp.arange(genes.active.shape[0])
    # `concat` is per state, not per block: any array of B stands in for it.
    return numbers, genes._replace(concat=genes.active), branch, raw_place

  def _run(self, genes, params, stats, stack, raw, masks):
    """-> (stack, new stats, (moments of the batch, ys)): the last is for the
    backward pass."""
    edges = branch_numbers(genes, self.mix, self.raw_places)
    xs = (*self._per_block(genes, edges), params, stats, masks)
    block = functools.partial(self._block, raw)
    stack, (stats, kept) = lax.scan(block, stack, xs)
    return stack, stats, kept

  def _block(self, raw, stack, xs):
    b, genes, branch, raw_place, params, stats, masks = xs
    first = self.num_inputs

    def edge(stack, args):
      side, i, place, raw_i, params, stats, mask = args
      states = ((stack, place), *((r, raw_i) for r in raw))
      y, new, moments = self.mix.forward(i, states, params, stats)
      if mask is not None:
        y = folded.masked(y, mask, self.fold)
      # The first side finds 0 in the block's place, or what a child that
      # sat here before left: it is overwritten.
      old = lax.dynamic_index_in_dim(stack, b + first, 0, keepdims=False)
      total = jnp.where(side == 0, y, old + y)
      stack = lax.dynamic_update_index_in_dim(stack, total, b + first, 0)
      return stack, (new, moments, y if self.combines else ())

    stack, (new, moments, ys) = lax.scan(
      edge,
      stack,
      (
        jnp.arange(2),
        branch,
        genes.inputs,
        raw_place,
        params["edges"],
        stats["edges"],
        masks,
      ),
    )
    new_stats = {"edges": new}
    if self.combines:
      y, new_stats["combine"] = self.combine_forward(
        genes.combine, (), ys, params["combine"], stats["combine"]
      )
      stack = lax.dynamic_update_index_in_dim(stack, y, b + first, 0)
    return stack, (new_stats, (moments, ys))

  def _forward(self, genes, params, stats, stack, raw, masks):
    final, new, kept = self._run(genes, params, stats, stack, raw, masks)
    return (final, new), (genes, params, stats, final, raw, masks, kept)

  def _backward(self, saved, cotangents):
    genes, params, stats, stack, raw, masks, kept = saved
    edges = branch_numbers(genes, self.mix, self.raw_places)
    xs = (*self._per_block(genes, edges), params, stats, masks, kept)
    grads = (cotangents[0], *(jnp.zeros_like(r) for r in raw))
    block = functools.partial(self._block_backward, stack, raw)
    grads, dparams = lax.scan(block, grads, xs, reverse=True)
    return None, dparams, None, grads[0], grads[1:], None

  def _block_backward(self, stack, raw, grads, xs):
    b, genes, branch, raw_place, params, stats, masks, (moments, ys) = xs
    first, dparams, gs = self.num_inputs, {}, None
    if self.combines:
      g = lax.dynamic_index_in_dim(grads[0], b + first, 0, keepdims=False)
      gs, dparams["combine"] = self.combine_backward(
        genes.combine, (), ys, params["combine"], stats["combine"], g
      )

    def edge(grads, args):
      side, i, place, raw_i, params, moments, mask = args
      source = (gs, side) if self.combines else (grads[0], b + first)
      states = ((stack, place), *((r, raw_i) for r in raw), source)
      dxs, dparams = self.mix.backward(i, states, params, moments, mask)
      grads = tuple(
        _add_at(grad, where, dx)
        for grad, where, dx in zip(
          grads, (place, raw_i)[: len(grads)], dxs, strict=True
        )
      )
      return grads, dparams

    grads, dparams["edges"] = lax.scan(
      edge,
      grads,
      (
        jnp.arange(2),
        branch,
        genes.inputs,
        raw_place,
        params["edges"],
        moments,
        masks,
      ),
    )
    return grads, dparams


def _pullback(branch):
  """(states, ys, params, stats, g) -> gradients of a combiner's ys, params."""

  def run(states, ys, params, stats, g):
    del states

    def only_y(ys, params):
      return branch((), ys, params, stats)[0]

    return jax.vjp(only_y, ys, params)[1](g)

  return run


def _add_at(stack, place, value):
  old = lax.dynamic_index_in_dim(stack, place, 0, keepdims=False)
  return lax.dynamic_update_index_in_dim(stack, old + value, place, 0)


# --- the cell ----------------------------------------------------------------


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
    self._combines = _have_a_switch(combiners)
    self.raw_places, self._groups = stacked_plan.groups_of(shape, num_blocks)
    self.mix = mixed.make(operations, self._groups, shape.features, numerics)
    self._blocks = Blocks(
      self.mix, numerics, self.raw_places, combiners, shape.num_inputs
    )
    self._combine = mixed.switch_one(_combine(numerics, combiners, train=False))
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
      "project": _slot_kernels(
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
    branch, _ = branch_numbers(genes, self.mix, self.raw_places)
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
        _slot_kernels(key, self.numerics, used, width, half)
        for key, half in zip(
          jax.random.split(rng), _half(features), strict=True
        )
      )
    kernel = _slot_kernels(rng, self.numerics, used, width, features)
    fits = _fits(used, width, features)
    # A kernel that is not used must be 0, or weight decay would see it.
    return jax.tree.map(lambda k: jnp.where(fits, 0.0, k), kernel)

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
      masks: see `Blocks`.
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
      stack = self._evaluate(genes, banks, bank_stats, stack, raw)
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
      y, new[name] = _norm(
        self.numerics, y, params[name]["norm"], stats[name], train
      )
      return memory.materialise(y)

    weights = params["project"]["conv"]["kernel"]
    first = fit("project", project_sum(current.used, current.states, weights))
    if previous is None:
      return (first, current.states[0]), new
    conv = params["fit_previous"]["conv"]
    if self.shape.previous[2] != self.shape.side:
      pair = tuple(c["kernel"] for c in conv)
      y = reduce_sum(previous.used, previous.states, pair)
      return (first, fit("fit_previous", y)), new

    def projected():
      y = project_sum(previous.used, previous.states, conv["kernel"])
      return fit("fit_previous", y), new.pop("fit_previous")

    def untouched():
      slot = previous.used.argmax()
      return previous.states[slot], stats["fit_previous"]

    features = self.shape.features
    if self.shape.previous[1] != features:
      second, new["fit_previous"] = projected()
    else:
      fits = _fits(previous.used, features, features)
      second, new["fit_previous"] = lax.cond(fits, untouched, projected)
    return (first, second), new

  def _fit_state(self, params, stats, x, train):
    """An input in the shape of the output, for the concatenation."""
    conv = params["conv"]
    if self.shape.stride == 1:
      y = convolutions.pointwise_conv(x, conv["kernel"].astype(x.dtype))
    else:
      y = _halves(x, tuple(c["kernel"] for c in conv), relu=False)
    return _norm(self.numerics, y, params["norm"], stats, train)

  def _evaluate(self, genes, params, stats, stack, raw):
    """The blocks with running statistics, keeping nothing for a backward."""
    branch, raw_place = branch_numbers(genes, self.mix, self.raw_places)

    def block(stack, xs):
      b, genes, branch, raw_place, params, stats = xs

      def edge(args):
        i, place, raw_i, params, stats = args
        states = ((stack, place), *((r, raw_i) for r in raw))
        return self.mix.evaluate(i, states, params, stats)

      args = (branch, genes.inputs, raw_place, params["edges"], stats["edges"])
      ys = lax.map(edge, args)
      if self._combines:
        y, _ = self._combine(
          genes.combine, (), ys, params["combine"], stats["combine"]
        )
      else:
        y = ys[0] + ys[1]
      out = b + self.shape.num_inputs
      return lax.dynamic_update_index_in_dim(stack, y, out, 0), None

    per_block = genes._replace(concat=genes.active)
    numbers = jnp.arange(self.num_blocks)
    xs = (numbers, per_block, branch, raw_place, params, stats)
    return lax.scan(block, stack, xs)[0]


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


def _slot_kernels(rng, numerics, used, width, features):
  """{"kernel": [k, width, features]}: fan-in counts used slots only; the
  kernels of the others are 0 and stay so."""
  fan_in = jnp.maximum(used.sum(), 1) * width
  kernel = _kernel(rng, numerics, (used.shape[0], width, features), fan_in)
  return {"kernel": kernel * used[:, None, None]}


def _norm_params(features):
  return {"scale": jnp.ones(features), "bias": jnp.zeros(features)}


def _norm_stats(features):
  return {"mean": jnp.zeros(features), "var": jnp.ones(features)}


def init_classifier(rng, numerics, used, width, num_classes):
  """{"kernel": [k * width, classes], "bias"}; see `_slot_kernels`."""
  shape = (used.shape[0] * width, num_classes)
  fan_in = jnp.maximum(used.sum(), 1) * width
  std = kernel_std(numerics, shape, fan_in)
  unit = jax.random.truncated_normal(rng, -2.0, 2.0, shape)
  mask = jnp.repeat(used, width)[:, None]
  return {"kernel": unit * std * mask, "bias": jnp.zeros(num_classes)}
