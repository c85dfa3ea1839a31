"""The blocks of a cell whose architecture is data, forwards and backwards."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from nasnet_jax.models import folded
from nasnet_jax.models.layers import (
  NORM_AXES,
  BatchNorm,
  ExampleNorm,
  Numerics,
)
from nasnet_jax.population import mixed, state_sums, switches
from nasnet_jax.spaces.genotype import COMBINERS, Genes

Array = jax.Array


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


def _combiner_branches(
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
    y = sum(
      state_sums.relu_pointwise(ys[side], kernel[side]) for side in range(2)
    )
    return norm(numerics, y, params["norm"], stats, train)

  def normalised(axes, states, ys, params, stats):
    total, _ = add(states, ys, params, stats)
    found = {"params": params["norm"]}
    return ExampleNorm(axes, numerics.fold).apply(found, total), stats

  made = {"add": add, "concat": concat}
  for name, axes in NORM_AXES.items():
    made[name] = functools.partial(normalised, axes)
  last = max(map(COMBINERS.index, combiners))
  return [made[combiner] for combiner in COMBINERS[: last + 1]]


def norm(
  numerics: Numerics, x: Array, params, stats, train: bool
) -> tuple[Array, dict]:
  """(y, {"norm": statistics}): batch norm with variables given by hand."""
  found = {"params": params, "batch_stats": stats["norm"]}
  if not train:
    return BatchNorm(numerics).apply(found, x, False), stats
  y, new = BatchNorm(numerics).apply(found, x, True, mutable=["batch_stats"])
  return y, {"norm": new["batch_stats"]}


def have_a_switch(combiners: tuple[str, ...]) -> bool:
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
    self.num_inputs, self.combines = num_inputs, have_a_switch(combiners)
    self.fold, self.bn_decay = numerics.fold, numerics.bn_decay
    branches = _combiner_branches(numerics, combiners)
    self.combine_forward = switches.switch_one(branches)
    self.combine_evaluate = switches.switch_one(
      _combiner_branches(numerics, combiners, train=False)
    )
    self.combine_backward = switches.switch_one(list(map(_pullback, branches)))

    num_groups = len(mix.backward)
    self._add_gradients = [self._adder(group) for group in range(num_groups)]

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

  def evaluate(self, genes, params, stats, stack, raw):
    """-> stack, with running statistics, keeping nothing for a backward."""

    def block(stack, xs):
      b, genes, branch, raw_place, params, stats = xs

      def edge(args):
        i, place, raw_i, params, stats = args
        states = ((stack, place), *((r, raw_i) for r in raw))
        return self.mix.evaluate(i, states, params, stats)

      args = (branch, genes.inputs, raw_place, params["edges"], stats["edges"])
      ys = lax.map(edge, args)
      if self.combines:
        y, _ = self.combine_evaluate(
          genes.combine, (), ys, params["combine"], stats["combine"]
        )
      else:
        y = ys[0] + ys[1]
      out = b + self.num_inputs
      return lax.dynamic_update_index_in_dim(stack, y, out, 0), None

    edges = branch_numbers(genes, self.mix, self.raw_places)
    xs = (*self._per_block(genes, edges), params, stats)
    return lax.scan(block, stack, xs)[0]

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
    combine = stats.get("combine")
    xs = (*self._per_block(genes, edges), params, combine, masks)
    block = functools.partial(self._block, raw)
    stack, (combine, kept) = lax.scan(block, stack, xs)
    moments, _ = kept
    running = mixed.running_stats(
      self.mix, self.bn_decay, edges[0], stats["edges"], moments
    )
    new = {"edges": running}
    if self.combines:
      new["combine"] = combine
    return stack, new, kept

  def _block(self, raw, stack, xs):
    b, genes, branch, raw_place, params, combine, masks = xs
    first = self.num_inputs

    def edge(stack, args):
      side, i, place, raw_i, params, mask = args
      states = ((stack, place), *((r, raw_i) for r in raw))
      y, moments = self.mix.forward(i, states, params)
      if mask is not None:
        y = folded.masked(y, mask, self.fold)
      # The first side finds 0 in the block's place, or what the child before
      # left here: it is overwritten.
      old = lax.dynamic_index_in_dim(stack, b + first, 0, keepdims=False)
      total = jnp.where(side == 0, y, old + y)
      stack = lax.dynamic_update_index_in_dim(stack, total, b + first, 0)
      return stack, (moments, y if self.combines else ())

    stack, (moments, ys) = lax.scan(
      edge,
      stack,
      (
        jnp.arange(2),
        branch,
        genes.inputs,
        raw_place,
        params["edges"],
        masks,
      ),
    )
    if self.combines:
      y, combine = self.combine_forward(
        genes.combine, (), ys, params["combine"], combine
      )
      stack = lax.dynamic_update_index_in_dim(stack, y, b + first, 0)
    return stack, (combine, (moments, ys))

  def _forward(self, genes, params, stats, stack, raw, masks):
    final, new, kept = self._run(genes, params, stats, stack, raw, masks)
    return (final, new), (genes, params, stats, final, raw, masks, kept)

  def _backward(self, saved, cotangents):
    genes, params, stats, stack, raw, masks, kept = saved
    edges = branch_numbers(genes, self.mix, self.raw_places)
    combine = stats.get("combine")
    xs = (*self._per_block(genes, edges), params, combine, masks, kept)
    grads = (cotangents[0], *(jnp.zeros_like(r) for r in raw))
    block = functools.partial(self._block_backward, stack, raw)
    grads, dparams = lax.scan(block, grads, xs, reverse=True)
    return None, dparams, None, grads[0], grads[1:], None

  def _block_backward(self, stack, raw, grads, xs):
    b, genes, branch, raw_place, params, combine, masks, (moments, ys) = xs
    first, dparams, gs = self.num_inputs, {}, None
    if self.combines:
      g = lax.dynamic_index_in_dim(grads[0], b + first, 0, keepdims=False)
      gs, dparams["combine"] = self.combine_backward(
        genes.combine, (), ys, params["combine"], combine, g
      )

    def edge(grads, args):
      side, i, place, raw_i, params, moments, mask = args
      bank = jax.tree.map(jnp.zeros_like, params)
      states = ((stack, place), *((r, raw_i) for r in raw))
      stacks = list(grads)
      places = (jnp.stack([place, b + first]), raw_i[None])
      for group, add in enumerate(self._add_gradients):
        source = ((gs, side),) if self.combines else ()
        if group and not self.combines:
          source = ((stacks[0], b + first),)
        changed = (stacks[group], places[group])
        stacks[group], bank = add(
          i, (*states, *source), changed, params, moments, mask, bank
        )
      return tuple(stacks), bank

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

  def _adder(self, group: int) -> Callable:
    """(branch, states, (gradients, [place of the state that was read, place of
    the block]), params, moments, mask, bank) -> (gradients, dparams), both as
    they were where the edge reads another stack.

    In place: a loop of no or one turn, since a conditional copies what it
    passes on. Where gradients of outputs lie in another stack, or come out of
    a combiner, they are the last of `states`.
    """
    size, count = self.mix.num_operations, self.mix.inactive + 1
    first, behind = group * size, (group + 1) * size
    in_stack = group == 0 and not self.combines

    def add(branch, states, changed, params, moments, mask, bank):
      def turn(i, carry):
        grads, _ = carry
        source = ((grads, places[1]),) if in_stack else ()
        # Of this turn: XLA would take what all turns share out of the loop,
        # and run it where there is no turn.
        number, _ = lax.optimization_barrier((branch - first, i))
        dx, bank = self.mix.backward[group](
          number, (*states, *source), params, moments, mask
        )
        return _add_at(grads, places[0], dx), bank

      grads, places = changed
      reads = (first <= branch) & (branch < behind)
      # By this name `preflight.costs` knows how often the loop turns.
      with jax.named_scope(switches.scope(first, behind, count)):
        turns = reads.astype(jnp.int32)
        return lax.fori_loop(0, turns, turn, (grads, bank))

    return switches.unbatched_in_place(add)


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
