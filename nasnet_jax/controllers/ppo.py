"""The NASNet controller: an LSTM that writes architectures, taught by PPO.

Zoph et al. 2018, appendix A: a one-layer LSTM of 100 units with one softmax
per decision; what it decided at step t-1 is its input at step t. Weights start
uniform in [-0.1, 0.1]. The controller learns from 20 finished children at a
time by PPO (Schulman et al. 2017), with Adam, a small entropy bonus and an
exponential moving average of rewards as the baseline.

The temperature and the tanh constant of later work (ENAS) are not in the
paper, and not here.
"""

import functools

import jax
import jax.numpy as jnp

from nasnet_jax.controllers import base, policy


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
  - The baseline starts at the first batch's mean and then moves reward by
    reward: see `policy.learn`.
  - Advantages are not normalised, because the paper does not mention it; with
    `normalise` they are divided by the batch's standard deviation.
  - Ratios are relative to the log-probabilities at sampling time (in
    `Proposals.extras`), so answers that come some updates late count correctly.

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
  return policy.controller(
    policy.Settings(
      num_choices=num_choices,
      learn=learn,
      hidden=hidden,
      layers=1,
      init_scale=init_scale,
      learning_rate=learning_rate,
      batch_size=batch_size,
    )
  )


def loss_fn(
  params: policy.Params,
  batch: policy.Batch,
  advantages,
  *,
  num_choices,
  clip,
  entropy_weight,
):
  """PPO's clipped objective and the entropy bonus, negated: f32[].

  Schulman et al. 2017, equation 7, summed over the decisions of a child.

  Args:
    params: the policy's.
    batch: n children, with the log_prob of the policy that sampled them.
    advantages: f32[n].
    num_choices: tuple of D ints.
    clip: half the width of the ratio's range.
    entropy_weight: of the entropy in nats.
  """
  log_prob, entropy = policy.evaluate(params, batch.decisions, num_choices)
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
@policy.precise
def update(
  params: policy.Params,
  opt_state,
  baseline,
  updates,
  batch: policy.Batch,
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

  The arguments are those of `ppo` and the fields of `policy.State`.
  """
  loss = functools.partial(
    loss_fn, num_choices=num_choices, clip=clip, entropy_weight=entropy_weight
  )
  return policy.learn(
    params,
    opt_state,
    baseline,
    updates,
    batch,
    loss_fn=loss,
    learning_rate=learning_rate,
    baseline_decay=baseline_decay,
    steps=epochs,
    normalise=normalise,
  )
