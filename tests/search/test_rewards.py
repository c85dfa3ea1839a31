"""What controllers are told: the paper's identities, and clear errors."""

import math

import pytest

from nasnet_jax.search import rewards

COSTS = {"params": 2_000_000, "macs": 3e8, "bytes": 5e6}


def test_the_plain_reward_is_the_accuracy():
  reward = rewards.make("accuracy", "bytes", 0.0)
  assert reward(0.7, {}) == 0.7


def test_twice_the_cost_for_5_percent_more_accuracy_changes_nothing():
  # Tan et al. 2019, section 3.1. The paper rounds ln(1 / 1.05) / ln 2.
  exact = math.log(1 / 1.05) / math.log(2)
  assert round(exact, 2) == -0.07
  for cost in (1e5, 1e6, 4e6):  # on both sides of the target
    soft = rewards.make("mnasnet_soft", "params", 1e6)
    once, twice = soft(0.6, {"params": cost}), soft(0.63, {"params": 2 * cost})
    assert twice == pytest.approx(once, rel=5e-4)
    rounded = rewards.make("mnasnet_soft", "params", 1e6, exact, exact)
    once = rounded(0.6, {"params": cost})
    assert rounded(0.63, {"params": 2 * cost}) == pytest.approx(once, rel=1e-12)


def test_the_hard_reward_looks_at_cost_beyond_the_target_only():
  hard = rewards.make("mnasnet_hard", "macs", 3e8)
  for macs in (1.0, 1e8, 2.9e8, 3e8):
    assert hard(0.6, {"macs": macs}) == 0.6
  assert hard(0.6, {"macs": 6e8}) == pytest.approx(0.3)
  assert hard(0.6, {"macs": 30e8}) == pytest.approx(0.06)


def test_at_the_target_a_reward_is_the_accuracy():
  for kind in ("mnasnet_soft", "mnasnet_hard"):
    for cost, value in COSTS.items():
      assert rewards.make(kind, cost, value)(0.61, COSTS) == 0.61


def test_given_exponents_take_the_place_of_the_papers():
  reward = rewards.make("mnasnet_soft", "params", 1e6, alpha=-0.5)
  assert (reward.alpha, reward.beta) == (-0.5, -0.07)
  assert reward(0.5, {"params": 250_000}) == pytest.approx(1.0)


@pytest.mark.parametrize(
  ("arguments", "words"),
  [
    ({"kind": "acuracy"}, "did you mean 'accuracy'"),
    ({"kind": "mnasnet_soft", "cost": "flops"}, r"'flops'; \(params, macs"),
    ({"kind": "mnasnet_soft"}, "search.reward.target is 0.0"),
    ({"kind": "mnasnet_hard", "target": -1.0}, "a number above 0"),
    ({"kind": "mnasnet_hard", "target": math.inf}, "a number above 0"),
    ({"kind": "mnasnet_soft", "target": 1.0, "alpha": 0.07}, "alpha is 0.07"),
    ({"kind": "mnasnet_soft", "target": 1.0, "beta": math.nan}, "beta is nan"),
  ],
)
def test_a_value_that_makes_no_reward_is_one_line(arguments, words):
  with pytest.raises(ValueError, match=words) as error:
    rewards.make(**arguments)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("costs", [{}, {"bytes": 0}, {"bytes": None}])
def test_a_cost_that_was_not_counted_is_one_line(costs):
  reward = rewards.make("mnasnet_soft", "bytes", 1e6)
  with pytest.raises(ValueError, match="does not count"):
    reward(0.5, costs)
