"""A policy that writes architectures: an LSTM with one softmax per decision.

What it decided at step t-1 is its input at step t (Zoph & Le 2017, section
3.1). The strategies that teach it, `ppo` and `reinforce`, differ in their loss.
What they share is here: the network, sampling, gathering answers into batches,
and the moving average of rewards that is their baseline.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nasnet_jax.controllers import base

# Sampling is compiled per padded batch: powers of two between these, so that
# rounds of any size share eight programs and memory stays bounded.
SMALLEST_BATCH, LARGEST_BATCH = 32, 4096

# The logit of a choice that a decision does not have. It is finite, because
# the entropy's 0 * -inf would be NaN, and exp() of it is exactly 0.
NO_CHOICE = -1e9


class Params(NamedTuple):
  """Weights. D decisions, C the most choices of any, L layers of H units.

  Attributes:
    embedding: f32[D, C, H], row t embeds decision t-1; [0, 0] is the start.
    input_kernel: f32[L H, 4H], layer below layer; gates in the order input,
      forget, cell, output.
    hidden_kernel: f32[L H, 4H].
    bias: f32[L 4H], without the 1 that some add to the forget gate's.
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


class Settings(NamedTuple):
  """What a strategy that teaches a policy was given.

  Attributes:
    num_choices: D ints.
    learn: (params, opt_state, baseline, updates, batch) -> the first four,
      new. The batch has batch_size children, in the order they were told.
    hidden: H.
    layers: L.
    init_scale: weights and biases start uniform in +-init_scale.
    learning_rate: Adam's.
    batch_size: answers per update; those left over wait in the state.
  """

  num_choices: tuple[int, ...]
  learn: Callable
  hidden: int
  layers: int
  init_scale: float
  learning_rate: float
  batch_size: int


def controller(settings: Settings) -> base.Controller:
  """A controller that samples the policy and learns from full batches."""
  return base.bind(settings, init, ask, tell)


def init(settings: Settings, rng) -> State:
  """The state of a new policy."""
  params = init_params(
    rng,
    settings.num_choices,
    settings.hidden,
    settings.init_scale,
    settings.layers,
  )
  return State(
    params=params,
    opt_state=optax.adam(settings.learning_rate).init(params),
    baseline=jnp.zeros((), jnp.float32),
    updates=jnp.zeros((), jnp.int32),
    buffer=_pad(_empty(len(settings.num_choices)), settings.batch_size),
    filled=np.zeros((), np.int64),
    next_id=np.zeros((), np.int64),
  )


def ask(
  settings: Settings, state: State, rng, n: int
) -> tuple[base.Proposals, State]:
  """Samples of the policy."""
  decisions, log_prob = propose(state.params, rng, n, settings.num_choices)
  proposals, next_id = base.number(
    state.next_id, decisions, {"log_prob": log_prob}
  )
  return proposals, state._replace(next_id=next_id)


def tell(settings: Settings, state: State, proposals, rewards, status) -> State:
  """The state after as many updates as there are full batches."""
  good = base.succeeded(proposals, rewards, status)
  answers = Batch(
    np.asarray(proposals.decisions, np.int32)[good],
    np.asarray(proposals.extras["log_prob"], np.float32)[good],
    np.asarray(rewards, np.float32)[good],
  )
  filled, size = int(state.filled), settings.batch_size
  waiting = jax.tree.map(
    lambda old, new: np.concatenate([np.asarray(old)[:filled], new]),
    state.buffer,
    answers,
  )
  learnt = state.params, state.opt_state, state.baseline, state.updates
  while len(waiting.rewards) >= size:
    batch = jax.tree.map(lambda x: x[:size], waiting)
    waiting = jax.tree.map(lambda x: x[size:], waiting)
    learnt = settings.learn(*learnt, batch)
  filled = np.array(len(waiting.rewards), np.int64)
  return State(*learnt, _pad(waiting, size), filled, state.next_id)


def init_params(
  rng, num_choices, hidden: int, scale: float, layers: int = 1
) -> Params:
  """Params, all of them uniform in [-scale, scale]."""
  depth, width = len(num_choices), max(num_choices)
  shapes = Params(
    embedding=(depth, width, hidden),
    input_kernel=(layers * hidden, 4 * hidden),
    hidden_kernel=(layers * hidden, 4 * hidden),
    bias=(layers * 4 * hidden,),
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


def _layers(params: Params) -> list[tuple]:
  """(input kernel, hidden kernel, bias) of each layer, the lowest first."""
  rows, gates = params.hidden_kernel.shape
  parts = params.input_kernel, params.hidden_kernel, params.bias
  return list(zip(*(jnp.split(x, 4 * rows // gates) for x in parts)))


def _logits(params: Params, carry, previous, step: _Step):
  """One step of the LSTM: (carry of each layer, logits f32[n, C])."""
  layers, below = [], None
  for (hidden, cell), (enter, recur, bias) in zip(carry, _layers(params)):
    if below is None:
      # Embeddings pass through the input kernel once per choice, not once per
      # child: half of the work of sampling a large batch. (In one product for
      # all steps, JAX 0.10's sums would depend on the number of cores.)
      inputs = (step.embedding @ enter + bias)[previous]
    else:
      inputs = below @ enter + bias
    below, cell = _lstm(inputs + hidden @ recur, cell)
    layers.append((below, cell))
  logits = below @ step.head_kernel + step.head_bias
  return tuple(layers), jnp.where(step.allowed, logits, NO_CHOICE)


def _lstm(gates, cell):
  """f32[n, 4H], f32[n, H] -> (hidden, cell), both f32[n, H]."""
  enter, forget, new, leave = jnp.split(gates, 4, axis=-1)
  cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(enter) * jnp.tanh(new)
  return jax.nn.sigmoid(leave) * jnp.tanh(cell), cell


def _start(params: Params, n: int):
  """(hidden, cell) of each layer, all zeros f32[n, H]."""
  zeros = jnp.zeros((n, params.hidden_kernel.shape[1] // 4), jnp.float32)
  return ((zeros, zeros),) * len(_layers(params))


def _pick(log_probs, decisions):
  """f32[n, C], int32[n] -> f32[n], the chosen entries."""
  return jnp.take_along_axis(log_probs, decisions[:, None], axis=-1)[:, 0]


def _draw(key, log_probs):
  """int32[n]: a choice for each row of f32[n, C], by its cumulative odds.

  One random number per decision: `jax.random.categorical` draws one per
  choice, which took a third of a proposal's time.
  """
  odds = jnp.cumsum(jnp.exp(log_probs), axis=-1)
  # Scaled by the sum as it was rounded, so never beyond the last real choice.
  level = jax.random.uniform(key, odds.shape[:1])[:, None] * odds[:, -1:]
  return jnp.sum(odds < level, axis=-1, dtype=jnp.int32)


# Accelerators multiply float32 in lower precision unless told otherwise; then
# ratios of an unchanged policy would not be 1. The LSTM is too small to care.
precise = jax.default_matmul_precision("float32")


@functools.partial(jax.jit, static_argnames=("n", "num_choices"))
@precise
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


def learn(
  params: Params,
  opt_state,
  baseline,
  updates,
  batch: Batch,
  *,
  loss_fn: Callable,
  learning_rate: float,
  baseline_decay: float,
  steps: int = 1,
  normalise: bool = False,
):
  """Learns from one batch: the new (params, opt_state, baseline, updates).

  The baseline starts at the first batch's mean. If it started at zero, all
  early advantages would be positive, and the policy would run after whatever it
  happened to sample first. After each batch it moves by the batch's rewards,
  one by one in the order in which they were told.

  Args:
    params, opt_state, baseline, updates: fields of `State`.
    batch: Batch.
    loss_fn: (params, batch, advantages f32[n]) -> f32[].
    learning_rate: Adam's.
    baseline_decay: per reward.
    steps: of Adam, each on the whole batch.
    normalise: divide advantages by their standard deviation.
  """
  tx = optax.adam(learning_rate)
  baseline = jnp.where(updates == 0, jnp.mean(batch.rewards), baseline)
  advantages = batch.rewards - baseline
  if normalise:
    advantages = advantages / (jnp.std(advantages) + 1e-8)

  def step(carry, _):
    params, opt_state = carry
    grads = jax.grad(loss_fn)(params, batch, advantages)
    changes, opt_state = tx.update(grads, opt_state, params)
    return (optax.apply_updates(params, changes), opt_state), None

  (params, opt_state), _ = jax.lax.scan(
    step, (params, opt_state), None, length=steps
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
