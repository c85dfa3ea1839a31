"""The surrogate of a search: an ensemble of predictors, fitted to the answers.

Liu et al. 2018 fit each member on a different part of the data. Only the
paper's abstract and introduction were at hand: what is called "the paper" below
is from memory of the rest. No strategy is here: `progressive` and
`predictor_search` are built on it.

Shapes: M members, n children.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

# Children are scored PART at a time and fits run STEPS at a time, so that one
# program of each kind serves any number of them.
PART, STEPS = 4096, 64


# Accelerators multiply float32 in lower precision unless told otherwise.
_precise = jax.default_matmul_precision("float32")


def init_ensemble(predictor, rng: np.random.Generator, members: int):
  """Weights of an ensemble: the predictor's, with a leading axis M."""
  each = [predictor.init(rng) for _ in range(members)]
  return jax.tree.map(lambda *leaves: np.stack(leaves), *each)


def member_rows(rows, members: int) -> list[np.ndarray]:
  """Which children each member is fitted on: all but every M-th.

  With five members each sees 4/5 of the data, and a different 4/5 (the paper).
  Which member leaves a child out follows from its row modulo M alone, so it
  does not change as answers come in. A single member sees all.

  Args:
    rows: int[n], n >= 1; a row's number must say nothing of its child.
    members: M.

  Returns:
    M arrays of rows, none of them empty.
  """
  rows = np.asarray(rows)
  parts = [rows[rows % members != member] for member in range(members)]
  return [part if len(part) else rows for part in parts]


def draw_batches(
  rng: np.random.Generator, rows, steps: int, size: int
) -> np.ndarray:
  """int32[steps, size]: rows in random order, again and again.

  Args:
    rows: int[n], n >= 1. Each comes once before any comes again.
  """
  passes = -(-steps * size // len(rows))
  order = rng.permuted(np.tile(rows, (passes, 1)), axis=1)
  return order.ravel()[: steps * size].reshape(steps, size).astype(np.int32)


def fit(
  predictor,
  params,
  inputs,
  targets,
  rows,
  rng: np.random.Generator,
  *,
  blocks: int,
  steps: int,
  learning_rate: float,
  batch_size: int,
):
  """The ensemble's weights after some steps of Adam on the L1 loss.

  Adam's moments start at zero. One program serves any number of children and
  steps, since its shapes are those of the whole memory.

  Args:
    predictor: `Mlp` or `Lstm`.
    params: the ensemble's weights to start from.
    inputs: of `predictor.inputs`, leaves [C, ...]; another C compiles anew.
    targets: f32[C].
    rows: int[n], n >= 1, the rows of inputs that may be learnt from.
    rng: draws the batches.
    blocks: the most blocks of any child.
    steps: of Adam.
    learning_rate: Adam's.
    batch_size: children per step and member.
  """
  members = len(jax.tree.leaves(params)[0])
  parts = [
    draw_batches(rng, part, steps, batch_size)
    for part in member_rows(rows, members)
  ]
  batches = np.stack(parts, 1)
  data = jax.device_put((inputs, np.asarray(targets, np.float32)))
  carry = params, jax.tree.map(np.asarray, _TX.init(params))
  for start in range(0, steps, STEPS):
    carry = _learn(
      predictor,
      carry,
      data,
      _part(batches, start, STEPS),
      np.int32(min(STEPS, steps - start)),
      np.int32(blocks),
      np.float32(learning_rate),
    )
  return carry[0]


_TX = optax.scale_by_adam()


@functools.partial(jax.jit, static_argnames=("predictor",))
@_precise
def _learn(predictor, carry, data, batches, steps, blocks, learning_rate):
  """The carry (weights, Adam's moments) after the first batches."""
  inputs, targets = data

  def loss_fn(params, batch):
    batch_inputs = jax.tree.map(lambda x: x[batch], inputs)
    predicted = predictor.apply(params, batch_inputs, blocks)
    return jnp.mean(jnp.abs(predicted - targets[batch]))

  def step(i, carry):
    params, opt_state = carry
    grads = jax.vmap(jax.grad(loss_fn))(params, batches[i])
    changes, opt_state = _TX.update(grads, opt_state)
    params = jax.tree.map(lambda p, c: p - learning_rate * c, params, changes)
    return params, opt_state

  return jax.lax.fori_loop(0, steps, step, carry)


@functools.partial(jax.jit, static_argnames=("predictor",))
@_precise
def _predict(predictor, params, inputs, blocks):
  apply = jax.vmap(predictor.apply, in_axes=(0, None, None))
  return apply(params, inputs, blocks)


def predict(predictor, params, inputs, *, blocks: int) -> np.ndarray:
  """f32[M, n]: what each member expects of each child.

  Args:
    predictor: `Mlp` or `Lstm`.
    params: the ensemble's weights.
    inputs: of `predictor.inputs`, leaves [n, ...].
    blocks: the most blocks of any child.
  """
  n = len(jax.tree.leaves(inputs)[0])
  found = np.zeros((len(jax.tree.leaves(params)[0]), n), np.float32)
  for start in range(0, n, PART):
    part = jax.tree.map(lambda x, at=start: _part(x, at, PART), inputs)
    scores = np.asarray(_predict(predictor, params, part, np.int32(blocks)))
    found[:, start : start + PART] = scores[:, : n - start]
  return found


def _part(x, start: int, size: int) -> np.ndarray:
  """`size` rows from `start` on, filled up with zeros at the end."""
  x = x[start : start + size]
  return np.concatenate([x, np.zeros((size - len(x), *x.shape[1:]), x.dtype)])
