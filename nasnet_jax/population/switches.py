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
    _, batched_states, *_ = batched
    numbers = jnp.arange(axis_size, dtype=jnp.int32)
    stacks, places = [], []
    for (stack, place), flags in zip(states, batched_states, strict=True):
      place = place if flags[1] else jnp.broadcast_to(place, (axis_size,))
      if flags[0]:
        place = place + numbers * stack.shape[1]
        stack = stack.reshape(-1, *stack.shape[2:])
      stacks.append(stack)
      places.append(place)
    leaves, treedef = jax.tree.flatten((index, operands))
    flags = jax.tree.leaves((batched[0], tuple(batched[2:])))
    mapped = [x for x, flag in zip(leaves, flags, strict=True) if flag]

    def one(args):
      place, mapped = args
      rest = iter(mapped)
      row = [
        next(rest) if flag else x for x, flag in zip(leaves, flags, strict=True)
      ]
      index, operands = jax.tree.unflatten(treedef, row)
      return run(index, tuple(zip(stacks, place, strict=True)), *operands)

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


@custom_vmap
def add_where(flag: Array, stack: Array, place: Array, value: Array) -> Array:
  """The stack with value added at stack[place], if the scalar flag is set.

  In place: a loop of no or one turn, since a conditional copies what it passes
  on. Also under `vmap`, where a flag that is batched would be a select over
  all of the stack.
  """

  def add(_, stack):
    old = lax.dynamic_index_in_dim(stack, place, 0, keepdims=False)
    return lax.dynamic_update_index_in_dim(stack, old + value, place, 0)

  return lax.fori_loop(0, flag.astype(jnp.int32), add, stack)


@add_where.def_vmap
def _add_where_batched(axis_size, batched, *args):
  flag, stack, place, value = (
    x if is_batched else jnp.broadcast_to(x, (axis_size, *x.shape))
    for x, is_batched in zip(args, batched, strict=True)
  )
  num_states = stack.shape[1]

  def child(i, flat):
    return add_where(flag[i], flat, place[i] + i * num_states, value[i])

  flat = stack.reshape(-1, *stack.shape[2:])
  flat = lax.fori_loop(0, axis_size, child, flat)
  return flat.reshape(stack.shape), True
