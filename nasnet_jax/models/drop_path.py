"""ScheduledDropPath: whole edges of a cell dropped, more so as training goes.

Zoph et al. 2018, section A.7 describes the ramp over time; the released code
(slim, nasnet_utils.py, drop_connect_version v3) also ramps over the cells.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array

VERSIONS = ("time", "layer", "both", "constant", "depth")


class DropPath(NamedTuple):
  """What a training step tells the cells about dropping.

  Attributes:
    rng: key of this step.
    keep_prob: f32[total cells], probability that an edge of cell i is kept.
    positions: int[N], place of each example in the whole batch, for a device
      that holds a part of it; None: 0..N-1.
  """

  rng: Array
  keep_prob: Array
  positions: Array | None = None


def check(keep_end: float, version: str):
  """Raises ValueError, in a line, for what is no way of dropping."""
  if not 0 < keep_end <= 1:
    raise ValueError(
      f"drop_path_keep is {keep_end}: give a number above 0, 1 at most"
    )
  if version not in VERSIONS:
    raise ValueError(
      f"drop_path_version {version!r} is not one of: {', '.join(VERSIONS)}"
    )


def keep_probs(
  keep_end: float, progress: Array, num_cells: int, version: str = "both"
) -> Array:
  """f32[num_cells], probabilities at this moment of training.

  Args:
    keep_end: of the last cell at the end of training; 1 drops nothing.
    progress: step / total steps, in [0, 1].
    version: "time" (slim's v1, the paper's), "layer" (v2), "both" (v3);
      "constant": keep_end from the start and everywhere, plain DropPath;
      "depth": EfficientNet's stochastic depth, constant in time, block i of n
      kept with 1 - (1 - keep_end) i / n from i = 0 (tensorflow/tpu,
      efficientnet_model.py).
  """
  keep = jnp.full(num_cells, keep_end, jnp.float32)
  if version in ("layer", "both"):
    ratio = (jnp.arange(num_cells) + 1) / num_cells
    keep = 1 - ratio * (1 - keep_end)
  if version == "depth":
    keep = 1 - jnp.arange(num_cells) / num_cells * (1 - keep_end)
  if version in ("time", "both"):
    keep = 1 - jnp.minimum(progress, 1.0) * (1 - keep)
  return keep


def edge_mask(drop: DropPath, cell: int, edge: Array, batch: int) -> Array:
  """f32[batch, 1, 1, 1]: 0, or 1 / keep: one coin per example and edge.

  Args:
    cell: index of the cell in the whole network.
    edge: 2 * block + side.
  """
  keep = drop.keep_prob[cell]
  rng = jax.random.fold_in(jax.random.fold_in(drop.rng, cell), edge)
  positions = jnp.arange(batch) if drop.positions is None else drop.positions
  keys = jax.vmap(functools.partial(jax.random.fold_in, rng))(positions)
  uniform = jax.vmap(jax.random.uniform)(keys)
  kept = jnp.floor(keep + uniform)
  # A keep probability of 0 drops everything; 0 / 0 would be NaN.
  return (kept / jnp.maximum(keep, 1e-6))[:, None, None, None]


def make(
  rng: Array,
  keep_end: float,
  progress: Array,
  num_cells: int,
  version: str = "both",
  positions: Array | None = None,
) -> Any:
  """DropPath for one step, or None where nothing is ever dropped."""
  if keep_end >= 1.0:
    return None
  probs = keep_probs(keep_end, progress, num_cells, version)
  return DropPath(rng, probs, positions)
