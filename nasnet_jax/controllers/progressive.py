"""Progressive search: from small cells to larger ones, led by a predictor.

Liu et al. 2018 (PNAS): train all cells of one block and fit a
predictor of accuracy; expand each cell of the beam by every legal block, score
all of them, train the K most promising, fit again; and so on up to B blocks.
The search code was never released. Only the paper's abstract and introduction
were at hand: the loop is the paper's, the numbers are quoted from memory.

What the paper leaves open, and what is done here:

- Cells are canonical wherever they are stored, compared or scored: of equal
  candidates one is kept, and the predictor sees no cell in two forms.
- The predictor goes on from its last weights, with a new Adam state, and
  learns from all answers so far. (The paper fine-tunes it on those of the new
  level.) The order in which the answers came has no influence.
- The predictor's last bias starts at the mean accuracy of the first level.
  The paper's 1.8 is near that of its own children; briefly trained ones are
  far from it.
- Batch size and epochs are ours: on made-up landscapes, 20 to 200 epochs
  order the cells with one more block equally well, and fewer are faster.
- A cell that failed is not expanded, and teaches nothing.
- Spaces of several kinds of cells, which the paper does not have: the first
  level has one block in each, and each further level adds a block to one of
  them, in turn, until all have B.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from nasnet_jax.controllers import base, predictors, surrogate
from nasnet_jax.spaces.base import new_rows

# What became of a row's child.
WAITS, ASKED, GOOD, FAILED = range(4)

# So many candidates at a time are brought into canonical form, to save memory.
PART = 1 << 16


class State(NamedTuple):
  """The controller's state. C rows: the first level's, then K for each.

  Attributes:
    decisions: int32[C, D], canonical; row i is the child with id i. Zeros
      from `planned` on.
    rewards: f32[C], 0 where there is none.
    status: int8[C], WAITS, ASKED, GOOD or FAILED.
    level: int32[], the one under way; 0 is that of one-block cells.
    first: int32[], the level's first row.
    planned: int32[], the row after its last.
    next_id: int64[], the next child to be proposed.
    params: the ensemble's weights.
  """

  decisions: Any
  rewards: Any
  status: Any
  level: Any
  first: Any
  planned: Any
  next_id: Any
  params: Any


class Settings(NamedTuple):
  """What a search was given. L levels.

  Attributes:
    space: a `CellSpace` with min_blocks=1.
    model: the predictor that the ensemble has several of.
    grown: L numbers: which cell gets one block more at a level; None for the
      first level, which has one block in each.
    capacity: C, children of all levels.
    The others: see `progressive`.
  """

  space: Any
  model: Any
  grown: tuple[int | None, ...]
  capacity: int
  beam: int
  members: int
  first_level: int
  exploration: float
  first_learning_rate: float
  learning_rate: float
  epochs: int
  batch_size: int


def progressive(
  space,
  *,
  beam: int = 256,  # K; Liu et al. 2018
  predictor: str = "mlp",  # the same: the MLP ensemble was used for the search
  members: int = 5,  # the same
  first_level: int = 512,
  exploration: float = 0.0,  # the same: the mean alone counts
  embedding: int = 100,  # the same
  hidden: int = 100,  # the same
  first_learning_rate: float = 0.01,  # the same: at b = 1
  learning_rate: float = 0.002,  # the same: afterwards
  epochs: int = 20,
  batch_size: int = 32,
) -> base.Controller:
  """Liu et al. 2018 for cells of 1 to B blocks.

  A level's cells are proposed best first. An ask never reaches over the end of
  a level. It gives nothing while the next level waits for answers to this one,
  nor after the last level. Rewards are accuracies: the predictor's answers lie
  in (0, 1).

  Args:
    space: a `CellSpace` with min_blocks=1.
    beam: K, cells per level after the first.
    predictor: "mlp" or "lstm", see `surrogate`.
    members: of the predictor's ensemble, each fitted on a different part of
      the answers (4/5 of them if five).
    first_level: most cells of the first level; a random choice of so many
      where there are more cells of one block. (The PNAS space has 136.)
    exploration: a candidate's score is the members' mean + exploration *
      their standard deviation.
    embedding: width of an embedding.
    hidden: units of the predictor's layers.
    first_learning_rate: Adam's after the first level.
    learning_rate: Adam's after the others.
    epochs: over the answers, at each fit.
    batch_size: answers per step.

  Raises:
    ValueError: for a space of anything but cells of 1 to B blocks, an unknown
      predictor, or sizes below 1.
  """
  space = base.as_space(space)
  if getattr(space, "min_blocks", 0) != 1:
    raise ValueError(
      "progressive search grows cells from one block on: it needs a space of"
      " cells with min_blocks=1 (config.space.min_blocks)"
    )
  if predictor not in predictors.PREDICTORS:
    raise ValueError(
      f"predictor is {predictor!r}, not one of:"
      f" {', '.join(predictors.PREDICTORS)}"
    )
  sizes = (beam, members, first_level, embedding, hidden, epochs, batch_size)
  if min(sizes) < 1:
    raise ValueError(
      "beam, members, first_level, embedding, hidden, epochs and batch_size"
      " must be at least 1"
    )
  grown = (None,) + (space.num_blocks - 1) * tuple(range(len(space.cells)))
  one_block = len(new_blocks(space, 0)) ** len(space.cells)
  settings = Settings(
    space=space,
    model=predictors.PREDICTORS[predictor](
      predictors.cell_vocabulary(space), embedding, hidden
    ),
    grown=grown,
    capacity=min(first_level, one_block) + beam * (len(grown) - 1),
    beam=beam,
    members=members,
    first_level=first_level,
    exploration=exploration,
    first_learning_rate=first_learning_rate,
    learning_rate=learning_rate,
    epochs=epochs,
    batch_size=batch_size,
  )
  return base.bind(settings, init, ask, tell)


def init(settings: Settings, rng) -> State:
  """The state with the first level planned."""
  rng, space = base.generator(rng), settings.space
  cells = one_block_cells(space, rng, settings.first_level)
  size = settings.capacity
  state = State(
    decisions=np.zeros((size, len(space.num_choices)), np.int32),
    rewards=np.zeros(size, np.float32),
    status=np.full(size, WAITS, np.int8),
    level=np.zeros((), np.int32),
    first=np.zeros((), np.int32),
    planned=np.zeros((), np.int32),
    next_id=np.zeros((), np.int64),
    params=surrogate.init_ensemble(settings.model, rng, settings.members),
  )
  return _plan(state, cells)


def ask(
  settings: Settings, state: State, rng, n: int
) -> tuple[base.Proposals, State]:
  """The next cells of the level, or of the next one if this one is answered."""
  start = int(state.next_id)
  if n and start == int(state.planned) and not _is_waited_for(state):
    state = next_level(settings, state, base.generator(rng))
  stop = min(start + n, int(state.planned))
  status = np.array(state.status)
  status[start:stop] = ASKED
  decisions = np.asarray(state.decisions, np.int32)[start:stop]
  proposals, next_id = base.number(start, decisions)
  return proposals, state._replace(status=status, next_id=next_id)


def tell(settings: Settings, state: State, proposals, rewards, status) -> State:
  """The state with the answers in the children's rows."""
  del settings
  good = base.succeeded(proposals, rewards, status)
  rows = np.asarray(proposals.id)
  all_rewards, all_status = np.array(state.rewards), np.array(state.status)
  all_rewards[rows] = np.where(good, rewards, 0)
  all_status[rows] = np.where(good, GOOD, FAILED)
  return state._replace(rewards=all_rewards, status=all_status)


def next_level(
  settings: Settings, state: State, rng: np.random.Generator
) -> State:
  """The state with a further level planned; unchanged after the last level, or
  if no cell of this one succeeded."""
  level = int(state.level) + 1
  parents = np.arange(int(state.first), int(state.planned))
  parents = parents[np.asarray(state.status)[parents] == GOOD]
  if level == len(settings.grown) or not len(parents):
    return state
  params = learn(settings, state, rng)
  parents = np.asarray(state.decisions, np.int32)[parents]
  candidates = expand(settings.space, parents, settings.grown[level])
  scores = score(settings, params, candidates)
  best = candidates[np.argsort(-scores, kind="stable")[: settings.beam]]
  level = np.array(level, np.int32)
  return _plan(state._replace(level=level, params=params), best)


def learn(settings: Settings, state: State, rng: np.random.Generator):
  """The predictor's weights after a fit to all answers."""
  rows = np.flatnonzero(np.asarray(state.status) == GOOD)
  decisions = np.asarray(state.decisions, np.int32)
  tokens = predictors.cell_tokens(settings.space, decisions)
  params, rate = state.params, settings.learning_rate
  if not int(state.level):
    # The paper's 1.8 fits the accuracy of its own cells of one block.
    mean = state.rewards[rows].mean().clip(0.01, 0.99)
    bias = np.full(settings.members, np.log(mean / (1 - mean)), np.float32)
    params = params._replace(head_bias=bias)
    rate = settings.first_learning_rate
  return surrogate.fit(
    settings.model,
    params,
    settings.model.inputs(tokens),
    state.rewards,
    rows,
    rng,
    blocks=int(tokens.used[rows].sum(-1).max()),
    steps=math.ceil(settings.epochs * len(rows) / settings.batch_size),
    learning_rate=rate,
    batch_size=settings.batch_size,
  )


def score(settings: Settings, params, decisions) -> np.ndarray:
  """f32[n]: the ensemble's mean and `exploration` standard deviations more."""
  tokens = predictors.cell_tokens(settings.space, decisions)
  found = surrogate.predict(
    settings.model,
    params,
    settings.model.inputs(tokens),
    blocks=int(tokens.used.sum(-1).max()),
  )
  return found.mean(0) + np.float32(settings.exploration) * found.std(0)


def new_blocks(space, blocks: int) -> np.ndarray:
  """int32[u, decisions_per_block]: every block that may follow `blocks` others.

  Where a block's sides are alike, each pair of them once: (input, operation)
  of the first is not above that of the second. In the PNAS space 136, 300,
  528, 820, 1,176 for 0 to 4 blocks.
  """
  width = space.decisions_per_block
  start = 1 + blocks * width  # behind the number of blocks
  choices = space.num_choices[start : start + width]
  rows = np.stack(np.unravel_index(np.arange(math.prod(choices)), choices), -1)
  if space.sides_alike:
    first, second = rows[:, [0, 2]], rows[:, [1, 3]]
    side = np.array([choices[2], 1])
    rows = rows[first @ side <= second @ side]
  return rows.astype(np.int32)


def one_block_cells(space, rng: np.random.Generator, most: int) -> np.ndarray:
  """int32[n, D]: all combinations of one-block cells, canonical, in random
  order; no more than `most` of them."""
  blocks = new_blocks(space, 0)
  cells = len(space.cells)
  size = len(blocks) ** cells
  numbers = rng.choice(size, min(size, most), replace=False)
  rows = np.zeros((len(numbers), len(space.num_choices)), np.int32)
  for cell in range(cells):
    numbers, chosen = np.divmod(numbers, len(blocks))
    start = cell * space.decisions_per_cell + 1
    rows[:, start : start + blocks.shape[1]] = blocks[chosen]
  return rows


def expand(space, parents, cell: int) -> np.ndarray:
  """int32[m, D]: every parent with one more block, in every legal way.

  Args:
    space: a `CellSpace` with min_blocks=1.
    parents: int32[k, D]. All have as many blocks in that cell, and fewer than
      the space allows.
    cell: number of the cell that gets the block.

  Returns:
    canonical architectures, each once, in the order of the parents.
  """
  header = cell * space.decisions_per_cell
  blocks = int(parents[0, header]) + 1
  added = new_blocks(space, blocks)
  start = header + 1 + blocks * space.decisions_per_block
  rows = np.repeat(parents, len(added), 0)
  rows[:, header] += 1
  rows[:, start : start + added.shape[1]] = np.tile(added, (len(parents), 1))
  parts = np.split(rows, range(PART, len(rows), PART))
  rows = np.concatenate([space.canonical(part) for part in parts])
  return new_rows(rows, rows[:0])


def _plan(state: State, decisions) -> State:
  """The state with these cells as its next level."""
  first = int(state.planned)
  planned = first + len(decisions)
  all_decisions = np.array(state.decisions, np.int32)
  all_decisions[first:planned] = decisions
  return state._replace(
    decisions=all_decisions,
    first=np.array(first, np.int32),
    planned=np.array(planned, np.int32),
  )


def _is_waited_for(state: State) -> bool:
  return bool((np.asarray(state.status) == ASKED).any())
