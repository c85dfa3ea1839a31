"""A cell whose architecture is data: the traced twin of `cell.Cell`.

States of a cell are one stack [B+2, N, h, w, F]. Where a cell's inputs have
another shape (in a reduction cell; the raw stem in the first cell) they stand
in a second stack, `raw`. The output is the stack itself with a mask of the
states that belong to it; consumers read only those, in place of a
concatenation.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from nasnet_jax.models import kernels, mixed
from nasnet_jax.models.layers import (
  TRUNCATED_STD,
  BatchNorm,
  Numerics,
  kernel_std,
  shift_by_one,
)
from nasnet_jax.models.stacked import CellShape
from nasnet_jax.spaces.genotype import CONCAT

Array = jax.Array


class Output(NamedTuple):
  """A cell's output, or the stem's.

  Attributes:
    states: [k, N, h, w, F].
    used: bool[k], the states that are concatenated.
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
    g = kernels.materialise(g)
    return None, *gradients(used, ((stack, jnp.int32(0)),), weights, g)

  apply.defvjp(forward, backward)
  return apply


def _relu_pointwise(x, kernel):
  return kernels.pointwise_conv(jax.nn.relu(x), kernel.astype(x.dtype))


def _halves(x, weights, relu):
  first, second = weights
  x = jax.nn.relu(x) if relu else x
  a = kernels.pointwise_conv(x[:, ::2, ::2], first.astype(x.dtype))
  shifted = shift_by_one(x)[:, ::2, ::2]
  b = kernels.pointwise_conv(shifted, second.astype(x.dtype))
  return jnp.concatenate([a, b], -1)


project_sum = slot_sum(_relu_pointwise)
reduce_sum = slot_sum(functools.partial(_halves, relu=True))


# --- the blocks ------------------------------------------------------------


class Genes(NamedTuple):
  """One cell of a genotype, traced: a slice of `Genotype`."""

  inputs: Array  # int32[B, 2]
  ops: Array  # int32[B, 2]
  combine: Array  # int32[B]
  active: Array  # bool[B]
  concat: Array  # bool[B+2]


def branch_numbers(
  genes: Genes, mix: mixed.Mixed, raw_places: tuple[int, ...]
) -> tuple[Array, Array]:
  """(branch int32[B, 2], place in the raw stack int32[B, 2]) of each edge.

  Args:
    raw_places: for each state 0..B+1 its place in the raw stack, or -1.
  """
  raw = jnp.asarray(raw_places, jnp.int32)[genes.inputs]
  branch = genes.ops + jnp.where(raw >= 0, mix.num_operations, 0)
  branch = jnp.where(genes.active[:, None], branch, mix.inactive)
  return branch, jnp.maximum(raw, 0)


def _combine(numerics: Numerics):
  """Branches (add, concatenate and 1x1) of (states, ys [2, ...], params)."""

  def add(states, ys, params, stats):
    del states, params
    return ys[0] + ys[1], stats

  def concat(states, ys, params, stats):
    del states
    kernel = params["conv"]["kernel"]
    y = sum(_relu_pointwise(ys[side], kernel[side]) for side in range(2))
    return _norm(numerics, y, params["norm"], stats, True)

  return add, concat


def _norm(numerics, x, params, stats, train):
  found = {"params": params, "batch_stats": stats["norm"]}
  if not train:
    return BatchNorm(numerics).apply(found, x, False), stats
  y, new = BatchNorm(numerics).apply(found, x, True, mutable=["batch_stats"])
  return y, {"norm": new["batch_stats"]}


def make_blocks(
  mix: mixed.Mixed,
  numerics: Numerics,
  raw_places: tuple[int, ...],
  concat_combiner: bool,
) -> Callable:
  """blocks(genes, params, stats, stack, raw, masks) -> (stack, stats).

  The backward pass is written out: it walks the blocks in reverse, computes
  each operation again from the stored states and the moments of its batch
  norms, and adds gradients up in place. So a cell keeps B+2 states.

  Args of the result:
    params: {"edges": banks [B, 2, ...], "combine": [B, ...] if any}.
    stats: the same for the running statistics.
    stack: [B+2, N, h, w, F] with the cell's inputs in 0 and 1, 0 elsewhere.
    raw: tuple of at most one stack [r, N, H, W, C].
    masks: f32[B, 2, N] of ScheduledDropPath, or None.
  """
  add, concat = _combine(numerics)
  combine_forward = mixed.switch_one([add, concat])

  def pullback(branch):
    def run(states, ys, params, stats, g):
      del states

      def only_y(ys, params):
        return branch((), ys, params, stats)[0]

      return jax.vjp(only_y, ys, params)[1](g)

    return run

  combine_backward = mixed.switch_one([pullback(add), pullback(concat)])

  def run(genes, params, stats, stack, raw, masks):
    # -> (stack, new stats, (moments of the batch, ys)): the last for backward
    branch, raw_place = branch_numbers(genes, mix, raw_places)

    def block(stack, xs):
      b, genes, branch, raw_place, params, stats, masks = xs

      def edge(stack, args):
        side, i, place, raw_i, params, stats, mask = args
        states = ((stack, place), *((r, raw_i) for r in raw))
        y, new, moments = mix.forward(i, states, params, stats)
        if mask is not None:
          y = y * mask[:, None, None, None].astype(y.dtype)
        # The first side finds 0 in the block's place, or what a child that
        # sat here before left: it is overwritten.
        old = lax.dynamic_index_in_dim(stack, b + 2, 0, keepdims=False)
        total = jnp.where(side == 0, y, old + y)
        stack = lax.dynamic_update_index_in_dim(stack, total, b + 2, 0)
        return stack, (new, moments, y if concat_combiner else ())

      sides = jnp.arange(2)
      stack, (new, moments, ys) = lax.scan(
        edge,
        stack,
        (
          sides,
          branch,
          genes.inputs,
          raw_place,
          params["edges"],
          stats["edges"],
          masks,
        ),
      )
      new_stats = {"edges": new}
      if concat_combiner:
        y, new_stats["combine"] = combine_forward(
          genes.combine, (), ys, params["combine"], stats["combine"]
        )
        stack = lax.dynamic_update_index_in_dim(stack, y, b + 2, 0)
      return stack, (new_stats, (moments, ys))

    numbers = jnp.arange(genes.active.shape[0])
    per_block = genes._replace(concat=genes.active)  # any [B] array
    xs = (numbers, per_block, branch, raw_place, params, stats, masks)
    stack, (stats, kept) = lax.scan(block, stack, xs)
    return stack, stats, kept

  @jax.custom_vjp
  def blocks(genes, params, stats, stack, raw, masks):
    return run(genes, params, stats, stack, raw, masks)[:2]

  def forward(genes, params, stats, stack, raw, masks):
    final, new_stats, kept = run(genes, params, stats, stack, raw, masks)
    return (final, new_stats), (genes, params, stats, final, raw, masks, kept)

  def backward(saved, cotangents):
    genes, params, stats, stack, raw, masks, kept = saved
    branch, raw_place = branch_numbers(genes, mix, raw_places)

    def block(grads, xs):
      b, genes, branch, raw_place, params, stats, masks, (moments, ys) = xs
      dparams = {}
      if concat_combiner:
        g = lax.dynamic_index_in_dim(grads[0], b + 2, 0, keepdims=False)
        gs, dparams["combine"] = combine_backward(
          genes.combine, (), ys, params["combine"], stats["combine"], g
        )

      def edge(grads, args):
        side, i, place, raw_i, params, moments, mask = args
        source = (gs, side) if concat_combiner else (grads[0], b + 2)
        states = ((stack, place), *((r, raw_i) for r in raw), source)
        dxs, dparams = mix.backward(i, states, params, moments, mask)
        grads = tuple(
          _add_at(grad, where, dx)
          for grad, where, dx in zip(
            grads, (place, raw_i)[: len(grads)], dxs, strict=True
          )
        )
        return grads, dparams

      sides = jnp.arange(2)
      grads, dparams["edges"] = lax.scan(
        edge,
        grads,
        (
          sides,
          branch,
          genes.inputs,
          raw_place,
          params["edges"],
          moments,
          masks,
        ),
      )
      return grads, dparams

    numbers = jnp.arange(genes.active.shape[0])
    per_block = genes._replace(concat=genes.active)
    grads = (cotangents[0], *(jnp.zeros_like(r) for r in raw))
    grads, dparams = lax.scan(
      block,
      grads,
      (numbers, per_block, branch, raw_place, params, stats, masks, kept),
      reverse=True,
    )
    return None, dparams, None, grads[0], grads[1:], None

  blocks.defvjp(forward, backward)
  return blocks


def _add_at(stack, place, value):
  old = lax.dynamic_index_in_dim(stack, place, 0, keepdims=False)
  return lax.dynamic_update_index_in_dim(stack, old + value, place, 0)


# --- the cell ----------------------------------------------------------------


class AnyCell(NamedTuple):
  """Functions of one cell of the network, for any genes.

  Attributes:
    init: (rng, genes, used of current, used of previous) -> (params, stats).
    apply: (params, stats, genes, current, previous, masks, train) ->
      (Output, stats).
  """

  init: Callable
  apply: Callable
  mix: mixed.Mixed


def make_cell(
  shape: CellShape,
  operations: tuple[str, ...],
  num_blocks: int,
  numerics: Numerics,
  concat_combiner: bool,
  concat_inputs: bool,
) -> AnyCell:
  """Builds the functions of a cell.

  Args:
    concat_inputs: whether genes may concatenate states 0 and 1; no sampled
      cell does, NASNet-A does.
  """
  features, stride = shape.features, shape.stride
  raw_places, groups = groups_of(shape, num_blocks)
  mix = mixed.make(operations, groups, features, numerics)
  blocks = make_blocks(mix, numerics, raw_places, concat_combiner)
  fitted = [s for s in (0, 1) if raw_places[s] >= 0 and concat_inputs]

  def init(rng, genes, used_current, used_previous):
    keys = iter(jax.random.split(rng, 8))
    branch, _ = branch_numbers(genes, mix, raw_places)
    edge_keys = jax.random.split(next(keys), branch.shape)
    init_edge = functools.partial(mixed.init_params, mix, numerics)
    per_edge = jax.vmap(jax.vmap(init_edge))
    one_stats = mixed.init_stats(mix)
    params = {"edges": per_edge(branch, edge_keys)}
    stats = {
      "edges": jax.tree.map(
        lambda s: jnp.broadcast_to(s, (num_blocks, 2, *s.shape)), one_stats
      )
    }

    def conv_norm(name, kernels_of):
      params[name] = {"conv": kernels_of, "norm": _norm_params(features)}
      stats[name] = {"norm": _norm_stats(features)}

    conv_norm(
      "project",
      _slot_kernels(
        next(keys), numerics, used_current, shape.current[1], features
      ),
    )
    if shape.previous is not None:
      _, width, side = shape.previous
      if side != shape.side:
        key = jax.random.split(next(keys))
        conv_norm(
          "fit_previous",
          tuple(
            _slot_kernels(k, numerics, used_previous, width, f)
            for k, f in zip(key, _half(features), strict=True)
          ),
        )
      else:
        kernel = _slot_kernels(
          next(keys), numerics, used_previous, width, features
        )
        fits = _fits(used_previous, width, features)
        # A kernel that is not used must be 0, or weight decay would see it.
        kernel = jax.tree.map(lambda k: jnp.where(fits, 0.0, k), kernel)
        conv_norm("fit_previous", kernel)
    if concat_combiner:
      kernel = _kernel(
        next(keys), numerics, (num_blocks, 2, features, features)
      )
      chosen = genes.active & (genes.combine == CONCAT)
      kernel = kernel * chosen[:, None, None, None]  # unused: 0, as above

      def spread(x):
        return jnp.broadcast_to(x, (num_blocks, *x.shape))

      params["combine"] = {
        "conv": {"kernel": kernel * _concat_fan(numerics)},
        "norm": jax.tree.map(spread, _norm_params(features)),
      }
      stats["combine"] = {"norm": jax.tree.map(spread, _norm_stats(features))}
    for s in fitted:
      width = groups[1][0][2]
      if stride == 1:
        kernels_of = {
          "kernel": _kernel(next(keys), numerics, (width, features))
        }
      else:
        kernels_of = tuple(
          {"kernel": _kernel(k, numerics, (width, f))}
          for k, f in zip(
            jax.random.split(next(keys)), _half(features), strict=True
          )
        )
      unused = ~genes.concat[s]
      kernels_of = jax.tree.map(
        lambda k, unused=unused: jnp.where(unused, 0.0, k), kernels_of
      )
      conv_norm(f"fit_state_{s}", kernels_of)
    return params, stats

  def inputs(params, stats, current, previous, train):
    new = {}

    def fit(name, y):
      y, new[name] = _norm(
        numerics, y, params[name]["norm"], stats[name], train
      )
      return kernels.materialise(y)

    weights = params["project"]["conv"]["kernel"]
    first = fit("project", project_sum(current.used, current.states, weights))
    if previous is None:
      return first, current.states[0], new
    conv = params["fit_previous"]["conv"]
    if shape.previous[2] != shape.side:
      pair = tuple(c["kernel"] for c in conv)
      y = reduce_sum(previous.used, previous.states, pair)
      return first, fit("fit_previous", y), new

    def projected():
      y = project_sum(previous.used, previous.states, conv["kernel"])
      return fit("fit_previous", y), new.pop("fit_previous")

    def untouched():
      slot = previous.used.argmax()
      return previous.states[slot], stats["fit_previous"]

    if shape.previous[1] != features:
      second, new["fit_previous"] = projected()
    else:
      fits = _fits(previous.used, features, features)
      second, new["fit_previous"] = lax.cond(fits, untouched, projected)
    return first, second, new

  def apply(params, stats, genes, current, previous, masks, train):
    first, second, new = inputs(params, stats, current, previous, train)
    batch = first.shape[0]
    empty = jnp.zeros((batch, *shape.out_side, features), first.dtype)
    made = [
      x if raw_places[s] < 0 else empty for s, x in enumerate((first, second))
    ]
    raws = [x for s, x in enumerate((first, second)) if raw_places[s] >= 0]
    raw = (jnp.stack(raws),) if raws else ()
    stack = jnp.stack(made + [empty] * num_blocks)
    banks = {k: v for k, v in params.items() if k in ("edges", "combine")}
    bank_stats = {k: v for k, v in stats.items() if k in banks}
    if train:
      stack, bank_stats = blocks(genes, banks, bank_stats, stack, raw, masks)
    else:
      stack = evaluate(genes, banks, bank_stats, stack, raw)
    for s in fitted:
      conv = params[f"fit_state_{s}"]["conv"]
      x = raw[0][raw_places[s]]
      if stride == 1:
        y = kernels.pointwise_conv(x, conv["kernel"].astype(x.dtype))
      else:
        y = _halves(x, tuple(c["kernel"] for c in conv), relu=False)
      y, new[f"fit_state_{s}"] = _norm(
        numerics,
        y,
        params[f"fit_state_{s}"]["norm"],
        stats[f"fit_state_{s}"],
        train,
      )
      stack = stack.at[s].set(y)
    return Output(stack, genes.concat), {**new, **bank_stats}

  add, _concat = _combine(numerics)

  def concat_evaluated(states, ys, params, stats):
    del states
    kernel = params["conv"]["kernel"]
    y = sum(_relu_pointwise(ys[side], kernel[side]) for side in range(2))
    return _norm(numerics, y, params["norm"], stats, False)

  combine = mixed.switch_one([add, concat_evaluated])

  def evaluate(genes, params, stats, stack, raw):
    branch, raw_place = branch_numbers(genes, mix, raw_places)

    def block(stack, xs):
      b, genes, branch, raw_place, params, stats = xs

      def edge(args):
        i, place, raw_i, params, stats = args
        states = ((stack, place), *((r, raw_i) for r in raw))
        return mix.evaluate(i, states, params, stats)

      args = (branch, genes.inputs, raw_place, params["edges"], stats["edges"])
      ys = lax.map(edge, args)
      if concat_combiner:
        y, _ = combine(
          genes.combine, (), ys, params["combine"], stats["combine"]
        )
      else:
        y = ys[0] + ys[1]
      return lax.dynamic_update_index_in_dim(stack, y, b + 2, 0), None

    per_block = genes._replace(concat=genes.active)
    numbers = jnp.arange(num_blocks)
    xs = (numbers, per_block, branch, raw_place, params, stats)
    return lax.scan(block, stack, xs)[0]

  return AnyCell(init, apply, mix)


def groups_of(shape: CellShape, num_blocks: int):
  """(place of each state in the raw stack or -1, groups for `mixed.make`)."""
  places = [-1] * (num_blocks + 2)
  own = ((*shape.out_side, shape.features), 1)
  if shape.stride > 1:
    places[0], places[1] = 0, 1
    return tuple(places), (own, ((*shape.side, shape.features), shape.stride))
  raw_width = shape.current[0] * shape.current[1]
  if shape.previous is None and raw_width != shape.features:
    places[1] = 0
    return tuple(places), (own, ((*shape.side, raw_width), 1))
  return tuple(places), (own,)


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
