"""Switches that stay switches under `vmap`.

A switch whose index is batched becomes a select that runs every branch. Here
the index stays scalar: the batching rule maps over the batch and calls the
function itself, so vmap of vmap works too.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap

Array = jax.Array


def unbatched(function: Callable) -> Callable:
  """f(index, states, *operands) that never sees a batch, also under `vmap`.

  Args:
    function: (index, states, *operands). `index` is a pytree of small arrays
      that decide what runs. `states` is a tuple of (stack [k, ...], place),
      of which stack[place + i] is read: the batching rule flattens batched
      stacks and moves the places, so that no child's stack is ever copied.
  """

  @custom_vmap
  def run(index, states, *operands):
    return function(index, states, *operands)

  @run.def_vmap
  def rule(axis_size, batched, index, states, *operands):
    states = _flat_states(axis_size, batched[1], states)
    stacks = [stack for stack, _ in states]
    flags = (batched[0], tuple(batched[2:]))
    mapped, row_of = _mapped(flags, (index, operands))

    def one(args):
      places, mapped = args
      index, operands = row_of(mapped)
      return run(index, tuple(zip(stacks, places, strict=True)), *operands)

    places = [place for _, place in states]
    ys = lax.map(one, (places, mapped))
    return ys, jax.tree.map(lambda _: True, ys)

  return run


def switch_one(branches: list[Callable]) -> Callable:
  """f(index, states, *operands) that runs exactly one branch, also in vmap.

  Args:
    branches: functions of (states, *operands) of equal output shapes.
  """
  return unbatched(
    lambda index, states, *operands: lax.switch(
      index, branches, states, *operands
    )
  )


def scope(first: int, behind: int, count: int) -> str:
  """The name of what only runs where a switch of `count` branches takes one of
  first, first + 1, ..., behind - 1."""
  return f"if_branch_{first}_to_{behind}_of_{count}"


def unbatched_in_place(function: Callable) -> Callable:
  """As `unbatched`, of a function that also changes a stack in place.

  Args:
    function: (index, states, (stack, places), *operands) -> (stack, ys).
      `places` is int[n], of the stack; the rest is as for `unbatched`.
  """

  @custom_vmap
  def run(index, states, changed, *operands):
    return function(index, states, changed, *operands)

  @run.def_vmap
  def rule(axis_size, batched, index, states, changed, *operands):
    states = _flat_states(axis_size, batched[1], states)
    stack, places = changed
    if not batched[2][0]:  # from now on each child has its own
      stack = jnp.broadcast_to(stack, (axis_size, *stack.shape))
    shape, flags = stack.shape, (True, batched[2][1])
    ((stack, places),) = _flat_states(axis_size, (flags,), ((stack, places),))
    flags = (batched[0], tuple(batched[3:]))
    mapped, row_of = _mapped(flags, (index, operands))

    def one(stack, args):
      places_of_states, places, mapped = args
      index, operands = row_of(mapped)
      stacks = [stack for stack, _ in states]
      found = tuple(zip(stacks, places_of_states, strict=True))
      return run(index, found, (stack, places), *operands)

    xs = (tuple(place for _, place in states), places, mapped)
    flat, ys = lax.scan(one, stack, xs)
    out = (flat.reshape(shape), ys)
    return out, jax.tree.map(lambda _: True, out)

  return run


def _flat_states(axis_size: int, batched, states):
  """(stack of all children's states, places in it [axis_size, ...])."""
  numbers, flat = jnp.arange(axis_size, dtype=jnp.int32), []
  for (stack, place), flags in zip(states, batched, strict=True):
    if not flags[1]:
      place = jnp.broadcast_to(place, (axis_size, *jnp.shape(place)))
    if flags[0]:
      first = numbers * stack.shape[1]
      place = place + first.reshape(-1, *[1] * (place.ndim - 1))
      stack = stack.reshape(-1, *stack.shape[2:])
    flat.append((stack, place))
  return flat


def _mapped(flags, tree):
  """(the batched leaves, a function from those of one child to the tree)."""
  leaves, treedef = jax.tree.flatten(tree)
  flags = jax.tree.leaves(flags)
  pairs = list(zip(leaves, flags, strict=True))

  def row_of(mapped):
    rest = iter(mapped)
    return jax.tree.unflatten(
      treedef, [next(rest) if flag else x for x, flag in pairs]
    )

  return [x for x, flag in pairs if flag], row_of
