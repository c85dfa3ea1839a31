"""The Linen module of a separable convolution, by the fused kernels."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from absl import logging

from nasnet_jax.models.fused import separable as kernels

Array = jax.Array


def fits(module: nn.Module, x: Array) -> bool:
  """Whether the kernels take this `ops.SeparableConv` on x; says why not."""
  num = module.numerics
  features = module.features * num.fold
  why = kernels.misfit(x.shape, features, module.stride, x.dtype)
  if num.bn_axis is not None:
    why = "devices share the statistics of a batch norm (mesh.data)"
  elif num.bn_parts > 1 or num.bn_frozen:
    why = "the batch norm is not that of the whole batch (bn_group)"
  if why:
    _tell(module.size, x.shape, why)
  return why is None


@functools.cache
def _tell(size: int, shape: tuple[int, ...], why: str):
  """Once for each shape."""
  logging.warning(
    "kernels=pallas is not used for separable %dx%d convolutions of %s: %s",
    size, size, list(shape), why,
  )  # fmt: skip


def separable(module: nn.Module, x: Array) -> Array:
  """What `ops.SeparableConv` gives in training, and keeps of its batch norms.

  Args:
    module: bound, with its variables.
    x: [N, H, W, C], see `fits`.
  """
  num, variables = module.numerics, module.variables
  layers = tuple(_layer(variables["params"], i) for i in range(2))
  known = None
  if "moments" in variables:
    known = tuple(_of_whole_batch(variables["moments"], i) for i in range(2))
  options = kernels.Options(module.stride, module.dilation, num.bn_epsilon)
  y, moments = kernels.separable_conv(options, x, layers, known)
  if known is None:
    for i, (mean, variance) in enumerate(moments):
      _keep(module, f"norm_{i}", {"mean": mean, "var": variance})
  return y


def _layer(params, i: int) -> kernels.Layer:
  norm = params[f"norm_{i}"]
  return kernels.Layer(
    params[f"depthwise_{i}"]["kernel"],
    params[f"pointwise_{i}"]["kernel"],
    norm["scale"],
    norm["bias"],
  )


def _of_whole_batch(moments, i: int):
  """They come as [1, F]: the batch is in one part."""
  return tuple(moments[f"norm_{i}"][name][0] for name in ("mean", "var"))


def _keep(module: nn.Module, name: str, moments: dict[str, Array]):
  """As `layers.BatchNorm` does."""
  if module.is_mutable_collection("moments"):
    parts = {key: value[None] for key, value in moments.items()}
    module.put_variable("moments", name, parts)
  keep = module.numerics.bn_decay
  first = {"mean": jnp.zeros, "var": jnp.ones}
  old = module.get_variable(
    "batch_stats", name, {k: first[k](m.shape) for k, m in moments.items()}
  )
  new = {k: keep * old[k] + (1 - keep) * m for k, m in moments.items()}
  module.put_variable("batch_stats", name, new)
