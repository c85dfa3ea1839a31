"""A checkpoint written by one Python and JAX restores under another.

`.ci/run` runs this under each Python with one folder in common; alone, it
restores what it wrote itself.
"""

import os
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest


def _tree():
  """The kinds of leaves that a search saves; the same under every JAX."""
  return {
    "params": {"kernel": jnp.arange(12.0).reshape(3, 4) / 7},
    "half": jnp.arange(6, dtype=jnp.bfloat16),
    "key": jax.random.key_data(jax.random.key(3)),
    "step": jnp.int32(17),
    "active": jnp.array([True, False]),
  }


@pytest.mark.smoke
def test_a_checkpoint_restores_under_every_other_python(tmp_path):
  folder = pathlib.Path(os.environ.get("NASNET_JAX_EXCHANGE", tmp_path))
  version = "{}.{}".format(*sys.version_info[:2])
  name = f"python{version}-jax{jax.__version__}"
  want = _tree()
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save((folder / name).absolute(), want, force=True)
  for path in sorted(folder.iterdir()):
    with ocp.StandardCheckpointer() as checkpointer:
      got = checkpointer.restore(path.absolute(), want)
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want)):
      assert a.dtype == b.dtype
      np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    print(f"{name} restored {path.name}")
