"""REINFORCE: the controller of the first neural architecture search.

Zoph & Le 2017, sections 3.2 and 4.1: an LSTM of two layers of 35 units writes
an architecture decision by decision, and Adam follows the policy gradient
(Williams 1992) of rewards minus an exponential moving average of earlier ones.
"""

import functools

import jax
import jax.numpy as jnp

from nasnet_jax.controllers import base, policy


def reinforce(
  space,
  *,
  hidden: int = 35,  # Zoph & Le 2017, section 4.1
  layers: int = 2,  # the same
  learning_rate: float = 6e-4,  # the same; Adam
  batch_size: int = 8,  # the same: children per controller replica
  baseline_decay: float = 0.95,  # not in the paper; Zoph et al. 2018's
  init_scale: float = 0.08,  # Zoph & Le 2017: uniform in [-0.08, 0.08]
) -> base.Controller:
  """The controller of Zoph & Le for any list of decisions.

  Where this differs from the paper:

  - One controller learns. The paper's hundred replicas each compute a gradient
    of their eight children and send it to shared parameters, so an update here
    is what one replica sends.
  - The gradient is taken at the parameters of the moment, also for children
    that were sampled updates earlier, as in the paper's asynchronous updates.
    (PPO's ratio corrects for that; see `ppo`.)
  - Skip connections are decisions like others; the paper chooses them by
    attention over earlier layers.
  - Rewards count as they are told. The job computes them, such as the paper's
    cube of the accuracy.

  Args:
    space: see `base.as_space`.
    hidden: units of each layer and width of the embeddings.
    layers: of the LSTM.
    learning_rate: Adam's. The paper's is meant for 12,800 children.
    batch_size: answers per update; those left over wait in the state.
    baseline_decay: per reward; see `policy.learn`.
    init_scale: weights and biases start uniform in +-init_scale.

  Raises:
    ValueError: for a decision without a choice, or sizes below 1.
  """
  num_choices = base.as_space(space).num_choices
  if min(hidden, layers, batch_size) < 1:
    raise ValueError("hidden, layers and batch_size must be at least 1")
  learn = functools.partial(
    update,
    num_choices=num_choices,
    learning_rate=learning_rate,
    baseline_decay=baseline_decay,
  )
  return policy.controller(
    policy.Settings(
      num_choices=num_choices,
      learn=learn,
      hidden=hidden,
      layers=layers,
      init_scale=init_scale,
      learning_rate=learning_rate,
      batch_size=batch_size,
    )
  )


def loss_fn(
  params: policy.Params, batch: policy.Batch, advantages, *, num_choices
):
  """Minus the log-probability of each child times its advantage, mean: f32[].

  Its gradient is the estimate of Zoph & Le 2017, section 3.2, negated.

  Args:
    params: the policy's.
    batch: n children.
    advantages: f32[n].
    num_choices: tuple of D ints.
  """
  log_prob, _ = policy.evaluate(params, batch.decisions, num_choices)
  return -jnp.mean(jnp.sum(log_prob, axis=-1) * advantages)


@functools.partial(
  jax.jit, static_argnames=("num_choices", "learning_rate", "baseline_decay")
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
  baseline_decay,
):
  """Learns from one batch: the new (params, opt_state, baseline, updates).

  The arguments are those of `reinforce` and the fields of `policy.State`.
  """
  return policy.learn(
    params,
    opt_state,
    baseline,
    updates,
    batch,
    loss_fn=functools.partial(loss_fn, num_choices=num_choices),
    learning_rate=learning_rate,
    baseline_decay=baseline_decay,
  )
