"""Predictors of a child's accuracy from its decisions, and ensembles of them.

Liu et al. 2018, section 3.3: an architecture is a sequence of tokens, each
embedded; an LSTM reads them one by one, or an MLP sees the mean over blocks of
a block's concatenated embeddings; a sigmoid ends both. An ensemble fits each
member on a different part of the data. No strategy is here: `progressive` and
`predictor_search` are built on it.

Shapes: M members, n children, S blocks, W tokens of a block, T rows of all
embedding tables, E an embedding's width, H hidden units.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

# Children are scored in parts of this size and fits run in parts of so many
# steps, so that one program of each kind serves any number of them.
PART, STEPS = 4096, 64

# Accelerators multiply float32 in lower precision unless told otherwise.
_precise = jax.default_matmul_precision("float32")


@dataclasses.dataclass(frozen=True)
class Vocabulary:
  """Which embedding belongs to a token.

  Attributes:
    tables: rows of each embedding table.
    slots: the table of each of a block's W tokens; slots may share one.
  """

  tables: tuple[int, ...]
  slots: tuple[int, ...]

  @property
  def first_rows(self) -> np.ndarray:
    """int32[W]: where a slot's table starts among the T rows."""
    starts = np.cumsum((0, *self.tables[:-1]), dtype=np.int32)
    return starts[list(self.slots)]

  @property
  def width(self) -> int:
    """Rows of the largest table."""
    return max(self.tables)

  @property
  def slot_rows(self) -> np.ndarray:
    """int32[W, width]: the rows of each slot's table, the last one repeated."""
    sizes = np.asarray(self.tables)[list(self.slots)]
    places = np.minimum(np.arange(self.width), sizes[:, None] - 1)
    return (self.first_rows[:, None] + places).astype(np.int32)


class Tokens(NamedTuple):
  """Children as a predictor reads them.

  Attributes:
    values: int32[n, S, W], rows of each slot's own table.
    used: bool[n, S], blocks that are there; they come first.
  """

  values: Any
  used: Any


def list_vocabulary(num_choices) -> Vocabulary:
  """Any list of decisions: one block, each decision with its own table."""
  return Vocabulary(tuple(num_choices), tuple(range(len(num_choices))))


def list_tokens(decisions) -> Tokens:
  """int[n, D] -> Tokens of one block of D tokens."""
  values = np.asarray(decisions, np.int32)[:, None]
  return Tokens(values, np.ones(values.shape[:2], bool))


def cell_vocabulary(space) -> Vocabulary:
  """A `CellSpace`: inputs share a table, operations another (section 3.3).

  Where there are several cells or combiners, which the paper has not, each
  cell has rows of its own in the tables, and combiners have a third table.
  """
  cells = len(space.cells)
  tables = [cells * (space.num_blocks + 1), cells * len(space.operations)]
  slots = [0, 0, 1, 1]
  if len(space.combiners) > 1:
    tables.append(cells * 2)
    slots.append(2)
  return Vocabulary(tuple(tables), tuple(slots))


def cell_tokens(space, decisions) -> Tokens:
  """int[n, D] of a `CellSpace` -> Tokens: I1, I2, O1, O2 of each block.

  The blocks of all cells follow each other, without those that are left out.
  Equal cells become equal tokens if the decisions are canonical.
  """
  genotype = space.decode(decisions)
  cell = np.arange(len(space.cells), dtype=np.int32)[:, None, None]
  parts = [
    genotype.inputs + cell * (space.num_blocks + 1),
    genotype.ops + cell * len(space.operations),
  ]
  if len(space.combiners) > 1:
    parts.append(genotype.combine[..., None] + cell * 2)
  values = np.concatenate(parts, -1)
  values = values.reshape(len(values), -1, values.shape[-1])
  used = genotype.active.reshape(len(values), -1)
  order = np.argsort(~used, axis=-1, kind="stable")
  return Tokens(
    np.take_along_axis(values, order[..., None], 1),
    np.take_along_axis(used, order, 1),
  )


class MlpParams(NamedTuple):
  """Weights of the MLP.

  Attributes:
    embedding: f32[T, E], all tables, one below the other.
    kernel1: f32[W, E, H], of the W concatenated embeddings.
    bias1: f32[H].
    kernel2: f32[H, H].
    bias2: f32[H].
    head_kernel: f32[H].
    head_bias: f32[].
  """

  embedding: Any
  kernel1: Any
  bias1: Any
  kernel2: Any
  bias2: Any
  head_kernel: Any
  head_bias: Any


@dataclasses.dataclass(frozen=True)
class Mlp:
  """Two hidden layers on the mean over blocks of a block's embeddings.

  Attributes:
    vocabulary: Vocabulary.
    embedding: E; 100 in the paper.
    hidden: H; 100 in the paper.
    head_bias: where the last bias starts; sigmoid(1.8) = 0.858 is about the
      mean accuracy of one-block cells (the paper).
  """

  vocabulary: Vocabulary
  embedding: int = 100
  hidden: int = 100
  head_bias: float = 1.8

  def init(self, rng: np.random.Generator) -> MlpParams:
    """Embeddings uniform in +-0.1 (the paper). It says nothing of the rest:
    kernels are normal with variance 1 / fan-in, biases 0."""
    slots, hidden = len(self.vocabulary.slots), self.hidden
    fan_in = slots * self.embedding
    return MlpParams(
      embedding=_init_embedding(rng, self.vocabulary, self.embedding),
      kernel1=_normal(rng, (slots, self.embedding, hidden), fan_in),
      bias1=np.zeros(hidden, np.float32),
      kernel2=_normal(rng, (hidden, hidden), hidden),
      bias2=np.zeros(hidden, np.float32),
      head_kernel=_normal(rng, (hidden,), hidden),
      head_bias=np.array(self.head_bias, np.float32),
    )

  def inputs(self, tokens: Tokens) -> np.ndarray:
    """f32[n, W * width]: how often each token stands in each slot, in the
    mean over blocks. The embeddings' mean is linear in it."""
    n, blocks, slots = tokens.values.shape
    width = self.vocabulary.width
    share = tokens.used / np.maximum(tokens.used.sum(-1, keepdims=True), 1)
    share = share.astype(np.float32)
    counts = np.zeros((n, slots * width), np.float32)
    rows = np.arange(n)
    for block in range(blocks):
      for slot in range(slots):
        columns = slot * width + tokens.values[:, block, slot]
        counts[rows, columns] += share[:, block]
    return counts

  def apply(self, params: MlpParams, inputs, blocks):
    """f32[n] in (0, 1).

    Args:
      params: MlpParams.
      inputs: f32[n, W * width], see `inputs`.
      blocks: unused.
    """
    del blocks
    # Each token passes through the first kernel once, not once per child:
    # a quarter of the work.
    table = jnp.einsum(
      "wve,weh->wvh",
      params.embedding[self.vocabulary.slot_rows],
      params.kernel1,
    ).reshape(-1, self.hidden)
    hidden = jax.nn.relu(inputs @ table + params.bias1)
    hidden = jax.nn.relu(hidden @ params.kernel2 + params.bias2)
    return jax.nn.sigmoid(hidden @ params.head_kernel + params.head_bias)


class LstmParams(NamedTuple):
  """Weights of the LSTM.

  Attributes:
    embedding: f32[T, E].
    input_kernel: f32[E, 4H]; gates in the order input, forget, cell, output.
    hidden_kernel: f32[H, 4H].
    bias: f32[4H].
    head_kernel: f32[H].
    head_bias: f32[].
  """

  embedding: Any
  input_kernel: Any
  hidden_kernel: Any
  bias: Any
  head_kernel: Any
  head_bias: Any


@dataclasses.dataclass(frozen=True)
class Lstm:
  """One layer over the tokens of all blocks; its last state is the summary.

  Attributes: see `Mlp`.
  """

  vocabulary: Vocabulary
  embedding: int = 100
  hidden: int = 100
  head_bias: float = 1.8

  def init(self, rng: np.random.Generator) -> LstmParams:
    """As `Mlp.init`."""
    width, hidden = self.embedding, self.hidden
    return LstmParams(
      embedding=_init_embedding(rng, self.vocabulary, width),
      input_kernel=_normal(rng, (width, 4 * hidden), width),
      hidden_kernel=_normal(rng, (hidden, 4 * hidden), hidden),
      bias=np.zeros(4 * hidden, np.float32),
      head_kernel=_normal(rng, (hidden,), hidden),
      head_bias=np.array(self.head_bias, np.float32),
    )

  def inputs(self, tokens: Tokens) -> tuple[np.ndarray, np.ndarray]:
    """(int32[n, S, W] rows among all T, bool[n, S] blocks that are there)."""
    return tokens.values + self.vocabulary.first_rows, tokens.used

  def apply(self, params: LstmParams, inputs, blocks):
    """f32[n] in (0, 1).

    Args:
      params: LstmParams.
      inputs: see `inputs`.
      blocks: int32[], the most blocks of any child. None beyond are computed,
        though the shapes stay those of the largest cell.
    """
    rows, used = inputs
    n, _, slots = rows.shape
    # Each token passes through the input kernel once, not once per child.
    table = params.embedding @ params.input_kernel + params.bias

    def read(carry, row, used):
      after = _lstm_step(params, carry, table[row])
      return jax.tree.map(
        lambda new, old: jnp.where(used[:, None], new, old), after, carry
      )

    def step(carry, token):
      place, row, used = token
      is_there = place < blocks * slots
      return jax.lax.cond(is_there, read, _skip, carry, row, used), None

    zeros = jnp.zeros((n, self.hidden), jnp.float32)
    rows = rows.reshape(n, -1).T
    tokens = jnp.arange(len(rows)), rows, jnp.repeat(used.T, slots, 0)
    (hidden, _), _ = jax.lax.scan(step, (zeros, zeros), tokens)
    return jax.nn.sigmoid(hidden @ params.head_kernel + params.head_bias)


def _skip(carry, row, used):
  del row, used
  return carry


def _lstm_step(params: LstmParams, carry, inputs):
  """(hidden, cell) f32[n, H] after one token of gate inputs f32[n, 4H]."""
  hidden, cell = carry
  gates = inputs + hidden @ params.hidden_kernel
  enter, forget, new, leave = jnp.split(gates, 4, axis=-1)
  cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(enter) * jnp.tanh(new)
  return jax.nn.sigmoid(leave) * jnp.tanh(cell), cell


def _init_embedding(rng, vocabulary: Vocabulary, width: int) -> np.ndarray:
  shape = sum(vocabulary.tables), width
  return rng.uniform(-0.1, 0.1, shape).astype(np.float32)


def _normal(rng, shape, fan_in: int) -> np.ndarray:
  return (rng.normal(size=shape) * fan_in**-0.5).astype(np.float32)


PREDICTORS = {"mlp": Mlp, "lstm": Lstm}


def init_ensemble(predictor, rng: np.random.Generator, members: int):
  """Weights of an ensemble: the predictor's, with a leading axis M."""
  each = [predictor.init(rng) for _ in range(members)]
  return jax.tree.map(lambda *leaves: np.stack(leaves), *each)


def member_rows(rows, members: int) -> list[np.ndarray]:
  """Which children each member is fitted on: all but every M-th.

  With five members each sees 4/5 of the data, and a different 4/5 (the paper).
  A child is left out by its row modulo M, whenever its answer came; rows must
  therefore be in no order that the members would notice. A single member sees
  all.

  Args:
    rows: int[n], n >= 1.
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

  Adam starts anew. One program serves any number of children and steps: its
  shapes are those of the whole memory.

  Args:
    predictor: `Mlp` or `Lstm`.
    params: the ensemble's weights to start from.
    inputs: of `predictor.inputs`, leaves [C, ...]; C is the same in all calls.
    targets: f32[C].
    rows: int[n], n >= 1, the rows of inputs that may be learnt from.
    rng: of the batches.
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
  """So many rows from start on, zeros where there are none."""
  x = x[start : start + size]
  return np.concatenate([x, np.zeros((size - len(x), *x.shape[1:]), x.dtype)])
