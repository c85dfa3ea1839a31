"""`training.checkpoint` reads what it wrote under another Python and JAX.

As in `test_checkpoint_exchange.py`, in a folder beside that one's.
"""

import os
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasnet_jax.training import checkpoint


@pytest.mark.smoke
def test_weights_restore_under_every_other_python(tmp_path):
  common = os.environ.get("NASNET_JAX_EXCHANGE")
  folder = pathlib.Path(f"{common}-weights") if common else tmp_path
  version = "{}.{}".format(*sys.version_info[:2])
  want = {
    "params": {"kernel": jnp.arange(12.0).reshape(3, 4) / 7},
    "next_id": np.array(2**40, np.int64),
  }
  checkpoint.write(folder / f"python{version}-jax{jax.__version__}", want)
  template = jax.tree.map(np.zeros_like, want)
  for path in sorted(folder.iterdir()):
    got = checkpoint.read(path, template)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
      assert a.dtype == b.dtype
      np.testing.assert_array_equal(a, b)
