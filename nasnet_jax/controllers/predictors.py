"""Predictors of a child's accuracy from its decisions: an MLP and an LSTM.

Liu et al. 2018: an architecture is a sequence of tokens, each embedded; an LSTM
reads them one by one, or an MLP sees the mean over blocks of a block's
concatenated embeddings; a sigmoid ends both. Only the paper's abstract and
introduction were at hand: what is called "the paper" below is from memory of
the rest. `surrogate` fits ensembles of them.

Shapes: n children, S blocks, W tokens of a block, T rows of all embedding
tables, E an embedding's width, H hidden units.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


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
  """A `CellSpace`: inputs share a table, operations another (the paper).

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
