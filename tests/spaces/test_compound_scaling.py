"""The compound rule, its rounding and its grid."""

import pytest

from nasnet_jax.models import (
  block_network,
  families,
  stacked_plan,
  stage_network,
)
from nasnet_jax.spaces import compound_scaling
from nasnet_jax.spaces.blocks import BLOCKS
from nasnet_jax.spaces.compound_scaling import Coefficients, Factors

B = compound_scaling.EFFICIENTNET


def test_the_papers_coefficients_cost_what_it_says():
  assert round(B.cost, 3) == 1.92
  assert compound_scaling.factors(B, 0) == (1, 1, 1)
  assert compound_scaling.factors(B, 1) == B
  depth, width, resolution = compound_scaling.factors(B, 3)
  assert depth == pytest.approx(1.728)
  assert depth * width**2 * resolution**2 == pytest.approx(B.cost**3)


def test_the_grid_has_every_point_near_two_and_no_other():
  points = compound_scaling.grid()
  assert B in points
  assert Coefficients(2.0, 1.0, 1.0) in points
  assert Coefficients(1.0, 1.4, 1.0) in points
  assert len(points) == len(set(points)) == 111
  assert all(min(p) >= 1 and 1.9 <= p.cost <= 2.1 + 1e-9 for p in points)
  # By counting on whole steps, in hundredths.
  steps = range(100, 215, 5)
  count = sum(
    19 * 10**9 <= a * b * b * g * g <= 21 * 10**9
    for a in steps
    for b in steps
    for g in steps
  )
  assert count == len(points)


def test_a_grid_without_points_gets_one_clear_line():
  with pytest.raises(ValueError, match=r"no coefficients in steps of 0\.7"):
    compound_scaling.grid(step=0.7, tolerance=0.01)
  with pytest.raises(ValueError, match=r"target 0\.5, tolerance"):
    compound_scaling.grid(target=0.5)


def test_the_best_point_is_the_most_accurate_and_then_the_cheapest():
  assert compound_scaling.best([0.5, 0.9, 0.9, 0.9], [1, 7, 6, 6]) == 2


@pytest.mark.parametrize(
  ("features", "width", "rounded"),
  [
    (32, 1.0, 32),
    (32, 1.1, 32),  # 35.2
    (24, 1.2, 32),  # 28.8
    (16, 1.2, 24),  # 19.2: 16, the nearest, would take away over a tenth
    (40, 1.1, 48),  # 44.0: a tie goes up
    (16, 0.35, 8),  # never below the multiple
    (1280, 1.4, 1792),
    (12, 1.0, 12),  # at 1 nothing is rounded
  ],
)
def test_channels_are_rounded_as_in_efficientnets_code(
  features, width, rounded
):
  assert compound_scaling.round_features(features, width) == rounded


def test_layers_are_rounded_up_and_sides_to_even_numbers():
  assert [compound_scaling.round_repeats(n, 1.1) for n in (1, 2, 4)] == [
    2,
    3,
    5,
  ]
  assert compound_scaling.round_repeats(3, 1.0) == 3
  assert compound_scaling.round_side(224, 1.15) == 258
  assert compound_scaling.round_side(33, 1.0) == 33


def test_cells_grow_by_their_number_and_their_width():
  config = stacked_plan.NetworkConfig(num_cells=2, features=24)
  grown = stacked_plan.scaled(config, Factors(1.2, 1.4, 3.0))
  assert (grown.num_cells, grown.features) == (3, 34)
  assert stacked_plan.scaled(config, Factors(1.0, 1.0, 2.0)) == config


def test_blocks_grow_by_factors_that_add_up():
  config = block_network.BlockConfig(width=1.1, depth=1.2)
  grown = block_network.scaled(config, compound_scaling.factors(B, 2))
  assert grown.width == pytest.approx(1.1**3)
  assert grown.depth == pytest.approx(1.2**3)
  assert families.of(BLOCKS).scaled is block_network.scaled


def test_stages_cannot_grow():
  with pytest.raises(ValueError, match="have no depth to scale"):
    stage_network.scaled(stage_network.StageConfig(), Factors(2.0, 1.0, 1.0))
