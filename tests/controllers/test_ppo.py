"""The NASNet controller against its definition in plain NumPy."""

import functools
import importlib.util
import math
import pathlib

import jax
import numpy as np
import pytest

from nasnet_jax.controllers import base, policy, ppo

_spec = importlib.util.spec_from_file_location(
  "numpy_policy", pathlib.Path(__file__).with_name("numpy_policy.py")
)
numpy_policy = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(numpy_policy)

CHOICES = (2, 3, 1, 4)
CLIP, ENTROPY = 0.2, 0.01


def key(i):
  return jax.random.fold_in(jax.random.key(11), i)


def reference_loss(params, batch, advantages, num_choices=CHOICES):
  """Equation 7 of Schulman et al., decision by decision; float64."""
  log_prob, entropy = numpy_policy.evaluate(
    params, batch.decisions, num_choices
  )
  total = 0.0
  for i, advantage in enumerate(np.asarray(advantages, np.float64)):
    for t in range(len(num_choices)):
      ratio = math.exp(log_prob[i, t] - batch.log_prob[i, t])
      clipped = min(max(ratio, 1 - CLIP), 1 + CLIP)
      total += min(ratio * advantage, clipped * advantage)
      total += ENTROPY * entropy[i, t]
  return -total / len(advantages)


def reference_gradient(params, *args):
  return numpy_policy.gradient(lambda p: reference_loss(p, *args), params)


def tiny_case(shift):
  """Params of 3 units, 4 children whose old policy differs by up to shift."""
  params = policy.init_params(key(0), CHOICES, 3, 1.0)
  decisions, log_prob = policy.propose(params, key(1), 4, CHOICES)
  random = np.random.default_rng(5)
  old = log_prob + random.uniform(-shift, shift, log_prob.shape)
  advantages = np.array([0.5, -0.25, 1.0, -1.5], np.float32)
  batch = policy.Batch(decisions, old.astype(np.float32), advantages)
  return params, batch, advantages


def loss(params, batch, advantages):
  return ppo.loss_fn(
    params,
    batch,
    advantages,
    num_choices=CHOICES,
    clip=CLIP,
    entropy_weight=ENTROPY,
  )


def ask_and_tell(controller, state, rewards, i=1, status=None):
  """Asks for as many as there are rewards and tells them."""
  rewards = np.asarray(rewards, np.float32)
  proposals, state = controller.ask(state, key(i), len(rewards))
  if status is None:
    status = np.zeros(len(rewards), np.int32)
  return proposals, controller.tell(state, proposals, rewards, status)


def equal(a, b):
  return all(
    np.array_equal(x, y)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  )


def some_rewards(n=20):
  return np.random.default_rng(n).uniform(0.5, 0.9, n).astype(np.float32)


def test_a_new_controller_samples_almost_uniformly():
  num_choices = (2, 3, 6, 13, 13, 1, 2)
  params = ppo.ppo(num_choices).init(key(0)).params
  decisions, _ = policy.propose(params, key(1), 4000, num_choices)
  _, entropy = policy.evaluate(params, decisions[:100], num_choices)
  assert (entropy >= 0.99 * np.log(num_choices)).all()
  for column, choices in zip(decisions.T, num_choices):
    shares = np.bincount(column, minlength=choices) / len(column) * choices
    assert ((shares > 0.7) & (shares < 1.4)).all()


def test_weights_start_uniform_within_a_tenth():
  params = ppo.ppo((13,) * 10).init(key(0)).params
  for leaf in params:
    assert np.abs(leaf).max() <= 0.1
    assert np.std(leaf) == pytest.approx(0.1 / np.sqrt(3), rel=0.1)
  assert params.hidden_kernel.shape == (100, 400)


@pytest.mark.parametrize("shift", [0.05, 0.6])
def test_loss_and_gradient_are_those_of_the_clipped_objective(shift):
  params, batch, advantages = tiny_case(shift)
  log_prob, _ = numpy_policy.evaluate(
    numpy_policy.as_float64(params), batch.decisions, CHOICES
  )
  outside = np.abs(np.exp(log_prob - batch.log_prob) - 1) > CLIP
  assert outside.any() == (shift > CLIP)  # both cases are really tried
  run = jax.jit(jax.value_and_grad(loss))
  value, gradient = run(params, batch, advantages)
  expected = numpy_policy.as_float64(params)
  assert value == pytest.approx(
    reference_loss(expected, batch, advantages), abs=1e-6
  )
  slopes = reference_gradient(expected, batch, advantages)
  for ours, theirs in zip(gradient, slopes, strict=True):
    np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_first_step_is_adam_on_rewards_less_their_mean():
  controller = ppo.ppo(
    CHOICES,
    hidden=3,
    init_scale=1.0,
    batch_size=4,
    epochs=1,
    learning_rate=0.01,
    entropy_weight=ENTROPY,
    clip=CLIP,
  )
  start = controller.init(key(0))
  rewards = np.array([0.1, 0.9, 0.4, 0.5], np.float32)
  proposals, state = ask_and_tell(controller, start, rewards)
  # log_prob of the reference itself: the ratio is 1 to the last bit.
  params = numpy_policy.as_float64(start.params)
  log_prob, _ = numpy_policy.evaluate(params, proposals.decisions, CHOICES)
  batch = policy.Batch(proposals.decisions, log_prob, rewards)
  slopes = reference_gradient(params, batch, rewards - rewards.mean())
  for old, new, slope in zip(params, state.params, slopes):
    clear = np.abs(slope) > 1e-4  # Adam's first step is the slope's sign
    step = np.asarray(new, np.float64) - old
    np.testing.assert_allclose(
      step[clear], -0.01 * np.sign(slope[clear]), rtol=1e-2
    )


def test_ratio_of_an_unchanged_policy_is_one():
  controller = ppo.ppo(CHOICES)
  state = controller.init(key(0))
  proposals, state = controller.ask(state, key(1), 20)
  log_prob, _ = policy.evaluate(state.params, proposals.decisions, CHOICES)
  np.testing.assert_allclose(
    np.exp(log_prob - proposals.extras["log_prob"]), 1, atol=2e-6
  )


def test_a_stale_answer_beyond_the_clip_range_pushes_no_further():
  params, batch, _ = tiny_case(0.0)
  much_likelier_now = batch._replace(log_prob=batch.log_prob - 1.0)

  options = {"num_choices": CHOICES, "clip": CLIP, "entropy_weight": 0.0}
  gradient_of = jax.jit(jax.grad(functools.partial(ppo.loss_fn, **options)))

  def slope(advantage):
    gradient = gradient_of(params, much_likelier_now, np.full(4, advantage))
    return max(np.abs(x).max() for x in gradient)

  assert slope(1.0) == 0
  assert slope(-1.0) > 0.1


def test_learning_waits_for_twenty_answers():
  controller = ppo.ppo(CHOICES)
  start = controller.init(key(0))
  _, state = ask_and_tell(controller, start, some_rewards(19))
  assert equal(state.params, start.params)
  assert int(state.filled) == 19
  _, state = ask_and_tell(controller, state, some_rewards(1), 2)
  assert not equal(state.params, start.params)
  assert (int(state.filled), int(state.updates)) == (0, 1)
  _, state = ask_and_tell(controller, state, some_rewards(45), 3)
  assert (int(state.filled), int(state.updates)) == (5, 3)


def test_failed_children_are_as_if_never_told():
  controller = ppo.ppo(CHOICES)
  start = controller.init(key(0))
  proposals, start = controller.ask(start, key(1), 60)
  rewards, status = some_rewards(60), np.zeros(60, np.int32)
  good = np.arange(60) % 4 != 1
  rewards[1::8], status[5::8] = np.nan, base.FAILED
  with_failures = controller.tell(start, proposals, rewards, status)
  without = controller.tell(
    start, proposals.rows(good), rewards[good], status[good]
  )
  assert int(without.updates) == 2
  assert equal(with_failures, without)


def test_swapping_two_rewards_changes_the_controller():
  controller = ppo.ppo(CHOICES)
  start = controller.init(key(0))
  rewards = some_rewards()
  proposals, state = ask_and_tell(controller, start, rewards)
  a, b = 0, int((proposals.decisions != proposals.decisions[0]).any(1).argmax())
  rewards[[a, b]] = rewards[[b, a]]
  _, other = ask_and_tell(controller, start, rewards)
  for ours, theirs in zip(state.params, other.params):
    assert not np.array_equal(ours, theirs)


def test_baseline_starts_at_the_first_mean_and_then_follows_each_reward():
  controller = ppo.ppo(CHOICES)
  state = controller.init(key(0))
  expected = None
  for i in range(3):
    rewards = np.random.default_rng(i).uniform(size=20).astype(np.float32)
    _, state = ask_and_tell(controller, state, rewards, i)
    expected = rewards.mean() if expected is None else expected
    for reward in rewards:
      expected = 0.95 * expected + 0.05 * reward
    assert float(state.baseline) == pytest.approx(expected, abs=1e-6)


def test_equal_rewards_teach_nothing_at_first():
  controller = ppo.ppo(CHOICES, entropy_weight=0.0)
  start = controller.init(key(0))
  _, state = ask_and_tell(controller, start, np.full(20, 0.5))
  assert equal(state.params, start.params)


@pytest.mark.parametrize("weight", [0.1, -0.1])
def test_the_entropy_term_pushes_towards_more_entropy(weight):
  controller = ppo.ppo(CHOICES, entropy_weight=weight)
  start = controller.init(key(0))
  peaked = start.params._replace(head_bias=start.params.head_bias * 10)
  start = start._replace(params=peaked)
  proposals, state = ask_and_tell(controller, start, np.full(20, 0.5))

  def entropy(state):
    return policy.evaluate(state.params, proposals.decisions, CHOICES)[1].sum()

  assert (entropy(state) - entropy(start)) * weight > 0


def test_normalised_advantages_forget_the_rewards_scale():
  def learn(normalise, scale):
    controller = ppo.ppo(
      CHOICES, batch_size=8, normalise=normalise, entropy_weight=0.1
    )
    rewards = some_rewards(8) * scale
    return ask_and_tell(controller, controller.init(key(0)), rewards)[1].params

  for normalise in (True, False):
    one, other = learn(normalise, 1), learn(normalise, 4)
    same = all(np.allclose(a, b, atol=2e-5) for a, b in zip(one, other))
    assert same == normalise
