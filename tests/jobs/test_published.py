"""How pictures of published networks are prepared, and under which name."""

import pytest

from nasnet_jax.export import named_weights
from nasnet_jax.jobs import published


@pytest.mark.parametrize(
  ("name", "other"),
  [
    ("efficientnet_b0", "efficientnet_b1"),
    ("nasnet_a_mobile", "nasnet_a_large"),
  ],
)
def test_a_network_of_the_sizes_of_another_is_not_saved_as_this(name, other):
  network = named_weights.network(other, num_classes=3, dropout=0.1)
  published.check_sizes(other, network.config)
  with pytest.raises(ValueError, match=f"sizes of {other}: save it by that"):
    published.check_sizes(name, network.config)


def test_a_network_of_sizes_of_its_own_may_have_any_name():
  network = named_weights.network("efficientnet_b0", width=0.1)
  published.check_sizes("efficientnet_b1", network.config)
