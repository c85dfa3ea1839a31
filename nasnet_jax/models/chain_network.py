"""A network of a user's modules, one after another."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from nasnet_jax.models.layers import Numerics, drop_features
from nasnet_jax.models.stacked import Classifier

Array = jax.Array

NO_PATHS = "a chain of modules has no paths to drop: set drop_path_keep to 1"


@dataclasses.dataclass(frozen=True)
class ChainConfig:
  """Sizes of a chain; all others are its modules'.

  Attributes:
    num_classes: outputs.
    dropout: probability of dropping a feature before the classifier.
    numerics: of the classifier, and how kernels of children are drawn.
  """

  num_classes: int = 10
  dropout: float = 0.0
  numerics: Numerics = dataclasses.field(default_factory=Numerics)

  @property
  def summary(self) -> str:
    """The sizes in a few words."""
    return "modules of one's own"


class ChainNetwork(nn.Module):
  """Modules in a row, a mean over the map, and a classifier.

  Attributes:
    layers: each called with (x, train), [N, H, W, C] -> [N, H', W', C'].
  """

  config: ChainConfig
  layers: tuple

  @property
  def num_layers(self) -> int:
    """Modules; no paths are dropped."""
    return len(self.layers)

  @nn.compact
  def __call__(
    self,
    images: Array,
    train: bool = False,
    drop=None,
    positions: Array | None = None,
  ) -> tuple[Array, None, dict[str, Any]]:
    """images: [N, H, W, C], whitened. drop: must be None, no path is dropped.
    positions: int[N], for dropout, as in `layers.drop_features`.

    Returns:
      logits f32[N, classes]; None, there is no auxiliary head; endpoints.
    """
    config, num = self.config, self.config.numerics
    if drop is not None:
      raise ValueError(NO_PATHS)
    x, endpoints = images.astype(num.dtype), {}
    for i, layer in enumerate(self.layers):
      x = endpoints[layer_name(i)] = layer(x, train)
    pooled = endpoints["pooled"] = x.astype(jnp.float32).mean((1, 2))
    if config.dropout and train:
      rng = self.make_rng("dropout")
      pooled = drop_features(rng, pooled, config.dropout, positions)
    classifier = Classifier(num, config.num_classes, name="classifier")
    return classifier(pooled), None, endpoints


def layer_name(i: int) -> str:
  """As Linen calls the i-th of the field `layers`."""
  return f"layers_{i}"


def as_modules(space, genotype) -> tuple[nn.Module, ...]:
  """The modules of a genotype; each a copy, so that none shares weights."""
  row = space.encode(genotype).tolist()
  return tuple(
    modules[i].clone() for modules, i in zip(space.modules, row, strict=True)
  )


def check_side(config: ChainConfig, side: tuple[int, int]):
  """The modules say themselves what is too small."""
  del config, side


def scaled(config: ChainConfig, factors) -> ChainConfig:
  """A chain is as deep as it is: ValueError, in a line."""
  del config, factors
  raise ValueError("a chain of modules has no depth to scale: take cells")
