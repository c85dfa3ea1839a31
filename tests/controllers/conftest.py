"""A landscape of cells that several test files search."""

import numpy as np
import pytest


def cell_quality(space, decisions, seed=0):
  """f64[n]: a made-up accuracy that depends on operations, on what they read
  and on the number of blocks; equal cells have equal ones.

  Args:
    space: of one kind of cell and PNAS's 8 operations or fewer.
    decisions: int[n, D].
    seed: names the landscape.
  """
  rng = np.random.default_rng(seed)
  shift, slope = rng.normal(0, 0.5, 8), rng.uniform(0.2, 1, 8)
  genotype = space.decode(decisions)
  inputs, ops = genotype.inputs[:, 0], genotype.ops[:, 0]
  active, rows = genotype.active[:, 0], np.arange(len(decisions))
  values = np.zeros((len(decisions), space.num_blocks + 2))
  values[:, 0], values[:, 1] = 0.6, 0.3
  for b in range(space.num_blocks):
    sides = [
      shift[ops[:, b, s]] + slope[ops[:, b, s]] * values[rows, inputs[:, b, s]]
      for s in (0, 1)
    ]
    values[:, b + 2] = np.tanh(sides).sum(0) / 2
  blocks = active.sum(-1)
  mean = (values[:, 2:] * active).sum(-1) / blocks
  return 0.9 - 0.1 * np.exp(-mean - 0.25 * np.log(blocks))


@pytest.fixture(scope="session")
def quality():
  """The function `cell_quality`."""
  return cell_quality
