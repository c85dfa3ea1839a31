"""The NASNet controller: an LSTM that writes architectures, taught by PPO.

Zoph et al. 2018, appendix A: a one-layer LSTM of 100 units with one softmax
per decision; what it decided at step t-1 is its input at step t. Weights start
uniform in [-0.1, 0.1]. Of 20 finished children at a time the controller learns
by PPO (Schulman et al. 2017), with Adam, a small entropy bonus and an
exponential moving average of rewards as the baseline.

The temperature and the tanh constant of later work (ENAS) are not in the
paper, and not here.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nasnet_jax.controllers import base

# Sampling is compiled per padded batch: powers of two between these, so that
# rounds of any size share eight programs and memory stays bounded.
SMALLEST_BATCH, LARGEST_BATCH = 32, 4096

# The logit of a choice that a decision does not have. Finite, since the
# entropy's 0 * -inf would be NaN; exp() of it is exactly 0.
NO_CHOICE = -1e9


class Params(NamedTuple):
  """Weights. D decisions, C the most choices of any, E = H hidden units.

  Attributes:
    embedding: f32[D, C, E], row t embeds decision t-1; [0, 0] is the start.
    input_kernel: f32[E, 4H]; gates in the order input, forget, cell, output.
    hidden_kernel: f32[H, 4H].
    bias: f32[4H], without the extra 1 some add to the forget gate.
    head_kernel: f32[D, H, C], a softmax of its own for each decision.
    head_bias: f32[D, C].
  """

  embedding: Any
  input_kernel: Any
  hidden_kernel: Any
  bias: Any
  head_kernel: Any
  head_bias: Any


class Batch(NamedTuple):
  """Finished children.

  Attributes:
    decisions: int32[n, D].
    log_prob: f32[n, D], of each decision when it was sampled.
    rewards: f32[n].
  """

  decisions: Any
  log_prob: Any
  rewards: Any


class State(NamedTuple):
  """The controller's state.

  Attributes:
    params: Params.
    opt_state: Adam's moments.
    baseline: f32[], moving average of rewards; meaningless before an update.
    updates: int32[], batches learnt from.
    buffer: Batch of batch_size rows, the answers of the next update; zeros
      beyond `filled`.
    filled: int64[], answers in the buffer.
    next_id: int64[].
  """

  params: Params
  opt_state: Any
  baseline: Any
  updates: Any
  buffer: Batch
  filled: Any
  next_id: Any


def ppo(
  space,
  *,
  hidden: int = 100,  # Zoph et al. 2018, appendix A
  learning_rate: float = 3.5e-4,  # the same; Adam
  batch_size: int = 20,  # the same: children per update
  entropy_weight: float = 1e-5,  # the same
  baseline_decay: float = 0.95,  # the same
  init_scale: float = 0.1,  # the same: uniform in [-0.1, 0.1]
  clip: float = 0.2,  # Schulman et al. 2017, section 6.1
  epochs: int = 10,  # Schulman et al. 2017, table 3
  normalise: bool = False,
) -> base.Controller:
  """The NASNet controller for any list of decisions.

  What the paper leaves open, and what is done here:

  - `clip` and `epochs` are PPO's own published setting (0.2, and 10 passes
    over a batch at a step size of 3e-4, next to this paper's 3.5e-4). With one
    pass all ratios are 1 and clipping would have nothing to do.
  - Each decision is an action with its own ratio, and all decisions of a child
    share the child's advantage. One ratio of whole architectures would leave
    the clip range after tiny steps when there are 40 or 50 decisions.
  - The loss sums over decisions and averages over children, as REINFORCE does
    for the probability of a whole architecture; so does the entropy bonus.
  - The baseline starts at the first batch's mean. Starting at zero, all early
    advantages would be positive, and the controller would run after whatever
    it happened to sample first. Then it moves reward by reward, in the order
    they are told, after the batch that they belong to.
  - Advantages are not normalised, as the paper says nothing of it; with
    `normalise` they are divided by the batch's standard deviation.
  - Ratios are taken to the log-probabilities at sampling time (in
    `Proposals.extras`), so answers that come updates later count correctly.

  Replay is exact with the same library versions on the same kind of machine,
  whatever its number of cores.

  Args:
    space: see `base.as_space`.
    hidden: units of the LSTM and width of the embeddings.
    learning_rate: Adam's. The paper's is meant for 20,000 children.
    batch_size: answers per update; those left over wait in the state.
    entropy_weight: of the sum of all decisions' entropies, in nats.
    baseline_decay: per reward.
    init_scale: weights and biases start uniform in +-init_scale.
    clip: the ratio's range is [1 - clip, 1 + clip].
    epochs: Adam steps per batch, each on the whole batch.
    normalise: divide advantages by their standard deviation.

  Raises:
    ValueError: for a decision without a choice, or sizes below 1.
  """
  num_choices = base.as_space(space).num_choices
  if min(hidden, batch_size, epochs) < 1:
    raise ValueError("hidden, batch_size and epochs must be at least 1")
  learn = functools.partial(
    update,
    num_choices=num_choices,
    learning_rate=learning_rate,
    entropy_weight=entropy_weight,
    baseline_decay=baseline_decay,
    clip=clip,
    epochs=epochs,
    normalise=normalise,
  )

  def init(rng) -> State:
    params = init_params(rng, num_choices, hidden, init_scale)
    return State(
      params=params,
      opt_state=optax.adam(learning_rate).init(params),
      baseline=jnp.zeros((), jnp.float32),
      updates=jnp.zeros((), jnp.int32),
      buffer=_pad(_empty(len(num_choices)), batch_size),
      filled=np.zeros((), np.int64),
      next_id=np.zeros((), np.int64),
    )

  def ask(state: State, rng, n: int) -> tuple[base.Proposals, State]:
    decisions, log_prob = propose(state.params, rng, n, num_choices)
    proposals, next_id = base.number(
      state.next_id, decisions, {"log_prob": log_prob}
    )
    return proposals, state._replace(next_id=next_id)

  def tell(state: State, proposals, rewards, status) -> State:
    good = base.succeeded(proposals, rewards, status)
    answers = Batch(
      np.asarray(proposals.decisions, np.int32)[good],
      np.asarray(proposals.extras["log_prob"], np.float32)[good],
      np.asarray(rewards, np.float32)[good],
    )
    filled = int(state.filled)
    waiting = jax.tree.map(
      lambda old, new: np.concatenate([np.asarray(old)[:filled], new]),
      state.buffer,
      answers,
    )
    learnt = state.params, state.opt_state, state.baseline, state.updates
    while len(waiting.rewards) >= batch_size:
      batch = jax.tree.map(lambda x: x[:batch_size], waiting)
      waiting = jax.tree.map(lambda x: x[batch_size:], waiting)
      learnt = learn(*learnt, batch)
    filled = np.array(len(waiting.rewards), np.int64)
    buffer = _pad(waiting, batch_size)
    return State(*learnt, buffer, filled, state.next_id)

  return base.Controller(init, ask, tell)


def init_params(rng, num_choices, hidden: int, scale: float) -> Params:
  """Params, all of them uniform in [-scale, scale]."""
  depth, width = len(num_choices), max(num_choices)
  shapes = Params(
    embedding=(depth, width, hidden),
    input_kernel=(hidden, 4 * hidden),
    hidden_kernel=(hidden, 4 * hidden),
    bias=(4 * hidden,),
    head_kernel=(depth, hidden, width),
    head_bias=(depth, width),
  )
  return Params(
    *(
      jax.random.uniform(key, shape, jnp.float32, -scale, scale)
      for key, shape in zip(
        jax.random.split(rng, len(shapes)), shapes, strict=True
      )
    )
  )


class _Step(NamedTuple):
  """What one step of the LSTM reads; stacked over D, the input of a scan.

  Attributes:
    embedding: f32[C, E], of each possible last decision.
    head_kernel: f32[H, C].
    head_bias: f32[C].
    allowed: bool[C].
  """

  embedding: Any
  head_kernel: Any
  head_bias: Any
  allowed: Any


def _steps(params: Params, num_choices) -> _Step:
  width = params.head_bias.shape[-1]
  allowed = np.arange(width) < np.asarray(num_choices)[:, None]
  return _Step(params.embedding, params.head_kernel, params.head_bias, allowed)


def _logits(params: Params, carry, previous, step: _Step):
  """One LSTM step. Returns ((hidden, cell) f32[n, H], logits f32[n, C])."""
  hidden, cell = carry
  # Embeddings pass through the input kernel once per choice, not once per
  # child: half of the work of sampling a large batch. (In one product for all
  # steps, JAX 0.10's sums would depend on the number of cores.)
  inputs = step.embedding @ params.input_kernel + params.bias
  gates = inputs[previous] + hidden @ params.hidden_kernel
  enter, forget, new, leave = jnp.split(gates, 4, axis=-1)
  cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(enter) * jnp.tanh(new)
  hidden = jax.nn.sigmoid(leave) * jnp.tanh(cell)
  logits = hidden @ step.head_kernel + step.head_bias
  return (hidden, cell), jnp.where(step.allowed, logits, NO_CHOICE)


def _start(params: Params, n: int):
  zeros = jnp.zeros((n, params.hidden_kernel.shape[0]), jnp.float32)
  return zeros, zeros


def _pick(log_probs, decisions):
  """f32[n, C], int32[n] -> f32[n], the chosen entries."""
  return jnp.take_along_axis(log_probs, decisions[:, None], axis=-1)[:, 0]


def _draw(key, log_probs):
  """int32[n]: a choice of each row of f32[n, C], by its cumulated odds.

  One random number per decision: `jax.random.categorical` draws one per
  choice, which took a third of a proposal's time.
  """
  odds = jnp.cumsum(jnp.exp(log_probs), axis=-1)
  # Scaled by the sum as it was rounded, so never beyond the last real choice.
  level = jax.random.uniform(key, odds.shape[:1])[:, None] * odds[:, -1:]
  return jnp.sum(odds < level, axis=-1, dtype=jnp.int32)


# Accelerators multiply float32 in lower precision unless told otherwise; then
# ratios of an unchanged policy would not be 1. The LSTM is too small to care.
_precise = jax.default_matmul_precision("float32")


@functools.partial(jax.jit, static_argnames=("n", "num_choices"))
@_precise
def sample(params: Params, rng, n: int, num_choices):
  """n architectures: decisions int32[n, D] and their log_prob f32[n, D]."""

  def step(carry, inputs):
    lstm, previous = carry
    now, key = inputs
    lstm, logits = _logits(params, lstm, previous, now)
    log_probs = jax.nn.log_softmax(logits)
    decisions = _draw(key, log_probs)
    log_prob = _pick(log_probs, decisions)
    return (lstm, decisions), (decisions, log_prob)

  keys = jax.random.split(rng, len(num_choices))
  carry = _start(params, n), jnp.zeros(n, jnp.int32)
  _, outputs = jax.lax.scan(step, carry, (_steps(params, num_choices), keys))
  return tuple(x.T for x in outputs)


def evaluate(params: Params, decisions, num_choices):
  """Log-probabilities of given decisions, and the softmaxes' entropies.

  Args:
    params: Params.
    decisions: int32[n, D].
    num_choices: tuple of D ints.

  Returns:
    (log_prob f32[n, D], entropy f32[n, D] in nats)
  """

  def step(lstm, inputs):
    now, previous, chosen = inputs
    lstm, logits = _logits(params, lstm, previous, now)
    log_probs = jax.nn.log_softmax(logits)
    entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)
    return lstm, (_pick(log_probs, chosen), entropy)

  chosen = jnp.asarray(decisions).T
  previous = jnp.concatenate([jnp.zeros_like(chosen[:1]), chosen[:-1]])
  inputs = _steps(params, num_choices), previous, chosen
  _, outputs = jax.lax.scan(step, _start(params, chosen.shape[1]), inputs)
  return tuple(x.T for x in outputs)


def propose(params: Params, rng, n: int, num_choices):
  """`sample` for any n, in padded batches: NumPy int32 and f32 [n, D]."""
  parts = []
  for start in range(0, max(n, 1), LARGEST_BATCH):
    rows = min(n - start, LARGEST_BATCH)
    padded = max(SMALLEST_BATCH, 1 << max(rows - 1, 0).bit_length())
    key = jax.random.fold_in(rng, start)
    outputs = sample(params, key, padded, num_choices)
    parts.append([np.asarray(x)[:rows] for x in outputs])
  return tuple(np.concatenate(x) for x in zip(*parts, strict=True))


def loss_fn(
  params: Params, batch: Batch, advantages, *, num_choices, clip, entropy_weight
):
  """PPO's clipped objective and the entropy bonus, negated: f32[].

  Schulman et al. 2017, equation 7, summed over the decisions of a child.

  Args:
    params: Params.
    batch: Batch of n children; its log_prob is the policy that sampled them.
    advantages: f32[n].
    num_choices: tuple of D ints.
    clip: half the width of the ratio's range.
    entropy_weight: of the entropy in nats.
  """
  log_prob, entropy = evaluate(params, batch.decisions, num_choices)
  ratio = jnp.exp(log_prob - batch.log_prob)
  advantages = advantages[:, None]
  objective = jnp.minimum(
    ratio * advantages, jnp.clip(ratio, 1 - clip, 1 + clip) * advantages
  )
  return -jnp.mean(jnp.sum(objective + entropy_weight * entropy, axis=-1))


@functools.partial(
  jax.jit,
  static_argnames=(
    "num_choices",
    "learning_rate",
    "entropy_weight",
    "baseline_decay",
    "clip",
    "epochs",
    "normalise",
  ),
)
@_precise
def update(
  params: Params,
  opt_state,
  baseline,
  updates,
  batch: Batch,
  *,
  num_choices,
  learning_rate,
  entropy_weight,
  baseline_decay,
  clip,
  epochs,
  normalise,
):
  """Learns from one batch: the new (params, opt_state, baseline, updates).

  The arguments are those of `ppo` and the fields of `State`.
  """
  tx = optax.adam(learning_rate)
  baseline = jnp.where(updates == 0, jnp.mean(batch.rewards), baseline)
  advantages = batch.rewards - baseline
  if normalise:
    advantages = advantages / (jnp.std(advantages) + 1e-8)

  def step(carry, _):
    params, opt_state = carry
    grads = jax.grad(loss_fn)(
      params,
      batch,
      advantages,
      num_choices=num_choices,
      clip=clip,
      entropy_weight=entropy_weight,
    )
    changes, opt_state = tx.update(grads, opt_state, params)
    return (optax.apply_updates(params, changes), opt_state), None

  (params, opt_state), _ = jax.lax.scan(
    step, (params, opt_state), None, length=epochs
  )
  return (
    params,
    opt_state,
    moving_average(baseline, batch.rewards, baseline_decay),
    updates + 1,
  )


def moving_average(baseline, rewards, decay: float):
  """f32[]: `b = decay * b + (1 - decay) * r` for each r of f32[n], in order."""
  n = rewards.shape[0]
  weights = (1 - decay) * decay ** np.arange(n - 1, -1, -1, dtype=np.float64)
  return decay**n * baseline + jnp.sum(weights.astype(np.float32) * rewards)


def _empty(depth: int) -> Batch:
  return Batch(
    np.zeros((0, depth), np.int32),
    np.zeros((0, depth), np.float32),
    np.zeros(0, np.float32),
  )


def _pad(batch: Batch, size: int) -> Batch:
  """The batch with zeros below, up to `size` rows."""

  def pad(x):
    rows = np.zeros((size - len(x), *x.shape[1:]), x.dtype)
    return np.concatenate([x, rows])

  return jax.tree.map(pad, batch)
