import flax.linen as nn
from digits import images, labels

import nasnet_jax as nas
from nasnet_jax.models.kernels import pools
from nasnet_jax.models.layers import BatchNorm, Numerics, PointwiseConv


@nas.operation("mixed_pool_3x3")
class MixedPool(nn.Module):
  numerics: Numerics
  features: int
  stride: int = 1

  @nn.compact
  def __call__(self, x, train):
    x = pools.max_pool(x, 3, self.stride) + pools.avg_pool(x, 3, self.stride)
    x = PointwiseConv(self.numerics, self.features, name="conv")(x / 2)
    return BatchNorm(self.numerics, name="norm")(x, train)


space = nas.cells(["identity", "mixed_pool_3x3"], blocks=2)
study = nas.search(
  images,
  labels,
  space=space,
  config="search_digits:tiny",
  folder="runs/operation",
)
print(study.best(1)[0]["reward"])
