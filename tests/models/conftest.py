"""Random variables, so that nothing is hidden by ones and zeros."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest


def random_variables(network, side, seed=0, channels=3):
  """All weights, scales, biases and statistics of a network at random."""
  images = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
  shapes = jax.eval_shape(network.init, jax.random.key(0), images)
  rng = np.random.default_rng(seed)

  def fill(path, shape):
    name, size = path[-1].key, shape.shape
    if name == "kernel":
      fan = np.prod(size[:-1]) if len(size) != 3 else size[0] * size[1]
      return rng.normal(0, fan**-0.5, size).astype(np.float32)
    if name in ("scale", "var"):
      return rng.uniform(0.5, 1.5, size).astype(np.float32)
    return rng.normal(0, 0.3, size).astype(np.float32)

  return jax.tree_util.tree_map_with_path(fill, shapes)


@pytest.fixture(name="random_variables", scope="session")
def _random_variables():
  return random_variables
