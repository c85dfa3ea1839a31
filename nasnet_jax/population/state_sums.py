"""Sums over the states that an output consists of, in place of a concatenation.

A cell passes on all of its states and says which of them are used. What reads
them adds up one product per used state: a convolution of the concatenation,
which is never formed.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from nasnet_jax.models import folded
from nasnet_jax.models.kernels import convolutions, memory
from nasnet_jax.models.layers import shift_by_one
from nasnet_jax.population import switches


def sum_of_used(contribution: Callable) -> Callable:
  """f(used, states, kernels) = sum of contribution(states[k], kernels[k]).

  Only over used k, at run time: a state that is not used costs nothing. Equal
  to one convolution of the concatenation.

  Args:
    contribution: (x [N, h, w, F], kernels of one state) -> [N, h', w', G].
  """

  def order(used):
    """(the places of used states, then the others; how many are used).

    Without a sort: XLA:CPU cannot write down a program that has some kinds of
    them, so no cache could keep it.
    """
    count = used.sum()
    rank = jnp.where(used, used.cumsum() - 1, count + (~used).cumsum() - 1)
    places = jnp.arange(len(used))
    return ((rank == places[:, None]) * places).sum(1), count

  def take(stack, place):
    return lax.dynamic_index_in_dim(stack, place, 0, keepdims=False)

  @switches.unbatched
  def total(used, states, weights):
    ((stack, place),) = states
    places, count = order(used)
    row = functools.partial(take, place=0)
    shape = jax.eval_shape(contribution, row(stack), jax.tree.map(row, weights))

    def add(i, acc):
      weight = jax.tree.map(lambda w: take(w, places[i]), weights)
      return acc + contribution(take(stack, place + places[i]), weight)

    zeros = jnp.zeros(shape.shape, shape.dtype)
    return lax.fori_loop(0, count, add, zeros)

  @switches.unbatched
  def gradients(used, states, weights, g):
    ((stack, place),) = states
    places, count = order(used)

    def add(i, grads):
      dstack, dweights = grads
      weight = jax.tree.map(lambda w: take(w, places[i]), weights)
      x = take(stack, place + places[i])
      dx, dw = jax.vjp(contribution, x, weight)[1](g)

      def put(a, v):
        return lax.dynamic_update_index_in_dim(a, v, places[i], 0)

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


def relu_pointwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """ReLU and 1x1 convolution: [N, h, w, C] * [C, F] -> [N, h, w, F]."""
  return convolutions.pointwise_conv(jax.nn.relu(x), kernel.astype(x.dtype))


def halves(x: jax.Array, weights, relu: bool) -> jax.Array:
  """A factorised reduction of stride 2; weights: of its two convolutions."""
  first, second = weights
  x = jax.nn.relu(x) if relu else x
  a = convolutions.pointwise_conv(x[:, ::2, ::2], first.astype(x.dtype))
  shifted = shift_by_one(x)[:, ::2, ::2]
  b = convolutions.pointwise_conv(shifted, second.astype(x.dtype))
  return folded.join([a, b], x.shape[-1] // first.shape[0])


project_sum = sum_of_used(relu_pointwise)
reduce_sum = sum_of_used(functools.partial(halves, relu=True))
