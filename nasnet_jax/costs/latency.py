"""How long a network takes to answer: measured, on this device.

A measured number is not there twice: searches write down what they measured,
and go on with that (`evaluator.PopulationEvaluator.remember`).
"""

import functools
import statistics
import time

import flax.linen as nn
import jax
import jax.numpy as jnp

CALLS, WARM_UP = 30, 3


def measure(
  network: nn.Module, shape: tuple[int, int, int], batch_size: int = 1
) -> float:
  """Seconds for one batch: the median of `CALLS` calls, after `WARM_UP`.

  The network, called with ([N, *shape], train), is compiled by itself; its
  weights are zeros, which take as long as any. What else the device does
  meanwhile makes the number larger.

  Args:
    batch_size: N; 1, as Tan et al. 2019 measure.
  """
  images = jax.ShapeDtypeStruct((batch_size, *shape), jnp.float32)
  init = functools.partial(network.init, train=False)
  variables = jax.eval_shape(init, jax.random.key(0), images)

  def answer(variables, images):
    return network.apply(variables, images, False)[0]

  compiled = jax.jit(answer).lower(variables, images).compile()
  arguments = jax.device_put(
    jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), (variables, images))
  )
  seconds = []
  for _ in range(WARM_UP + CALLS):
    start = time.perf_counter()
    jax.block_until_ready(compiled(*arguments))
    seconds.append(time.perf_counter() - start)
  return statistics.median(seconds[WARM_UP:])
