"""A classification network in two halves: up to the map on which regions are
proposed, and from crops of that map to the end.

As in the TF Object Detection API, the cut lies before the last reduction. In
networks of cells the map is the concatenation of the two outputs that the next
cell reads, h_{i-1} first, so that a crop can be divided into both again.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from nasnet_jax.models import (
  block_network,
  blocks,
  feature_maps,
  ops,
  stacked,
  stacked_plan,
)
from nasnet_jax.models.layers import BatchNorm

Array = jax.Array


class Halves(NamedTuple):
  """Where a network is cut, and what its halves are.

  Attributes:
    stop, start: names of the last cell or block of the first half and of the
      first one of the second.
    maps: endpoints whose concatenation is the map, in its order.
    width: channels of the first of two maps.
    end: the endpoint at which the second half stops.
    relu: whether a ReLU follows there.
    strides: of every layer that makes maps smaller, from the image on; 0 stands
      for a stride of 2 without padding.
  """

  stop: str
  start: str
  maps: tuple[str, ...]
  width: int
  end: str
  relu: bool
  strides: tuple[int, ...]

  @property
  def stride(self) -> int:
    """Pixels of the image between features of the map."""
    product = 1
    for stride in self.strides:
      product *= stride or 2
    return product


def halves(network: nn.Module) -> Halves:
  """Where a network is cut.

  Raises:
    ValueError: in one line, for a network that cannot be cut.
  """
  if isinstance(network, stacked.StackedNetwork):
    return _halves_of_cells(network)
  if isinstance(network, block_network.BlockNetwork):
    return _halves_of_blocks(network)
  raise ValueError(
    f"{type(network).__name__} is no backbone of a detector: take a network of"
    " cells or of blocks"
  )


def _halves_of_cells(network: stacked.StackedNetwork) -> Halves:
  config = network.config
  if network.num_separate:
    raise ValueError(
      "cells that pass on their outputs separately (NASNet-B) are no backbone"
      " of a detector: take another space's"
    )
  cells = stacked_plan.plan(config)
  reductions = [cell for cell in cells if cell.stride > 1 and cell.index > 1]
  if not reductions:
    raise ValueError(
      "a backbone is cut before its last reduction, and this has none: raise"
      " network.num_reductions"
    )
  start = reductions[-1]
  names = ["stem", *(cell.name for cell in cells)]
  if cells[start.index - 1].stride > 1 and config.layout == "pnas":
    raise ValueError(
      "the two cells before the last reduction have maps of two sizes: raise"
      " network.num_cells"
    )
  strides = [0 if config.stem == "imagenet" else 1]
  strides += [cell.stride for cell in cells[: start.index]]
  return Halves(
    names[start.index],
    start.name,
    (names[start.previous], names[start.current]),
    feature_maps.every(network)[start.previous].channels,
    cells[-1].name,
    True,
    tuple(strides),
  )


def _halves_of_blocks(network: block_network.BlockNetwork) -> Halves:
  arch, config = network.architecture, network.config
  plan = block_network.plan(arch, config.width, config.depth)
  reductions = [b for b in plan if b.stride > 1 and b.index]
  if not reductions:
    raise ValueError(
      "a backbone is cut before its last block of stride 2: this has none"
    )
  start = reductions[-1]
  before = plan[: start.index]
  strides = [arch.stem_stride, 2 if arch.stem_pool else 1]
  strides += [block.stride for block in before]
  name = before[-1].name
  return Halves(
    name,
    start.name,
    (name,),
    before[-1].features,
    "last",
    False,
    tuple(strides),
  )


def first_half(
  network: nn.Module, cut: Halves, images: Array, train: bool, drop
) -> Array:
  """[N, H, W, 3] -> the map [N, h, w, C]."""
  _, _, endpoints = network(images, train, drop, stop=cut.stop)
  return jnp.concatenate([endpoints[name] for name in cut.maps], -1)


def second_half(
  network: nn.Module, cut: Halves, crops: Array, train: bool, drop
) -> Array:
  """Crops of the map, [M, S, S, C] -> [M, s, s, F]."""
  if len(cut.maps) > 1:
    crops = (crops[..., cut.width :], crops[..., : cut.width])
  _, _, endpoints = network(crops, train, drop, start=cut.start, stop=cut.end)
  last = endpoints[cut.end]
  return nn.relu(last) if cut.relu else last


def sides(cut: Halves, side) -> list:
  """[(h, w) of the image, then after each of `cut.strides`].

  Args:
    side: (H, W), numbers or arrays.
  """
  found = [tuple(side)]
  for stride in cut.strides:
    h, w = found[-1]
    if stride == 0:
      found.append(((h - 3) // 2 + 1, (w - 3) // 2 + 1))
    else:
      found.append((-(-h // stride), -(-w // stride)))
  return found


def extent(cut: Halves, padded: tuple[int, int], side: Array) -> Array:
  """int32[N, 2]: the smallest side that holds each picture and gives features
  at the same places as its padded image, so that both give the same numbers.

  Args:
    padded: (H, W) of the images.
    side: int32[N, 2] of the pictures in their upper left corners.
  """
  room = jnp.asarray(padded) - side
  return jnp.asarray(padded) - room // cut.stride * cut.stride


def keep_out_padding(
  cut: Halves, padded: tuple[int, int], extents: Array
) -> Callable:
  """A Linen interceptor for the first half, with which padding counts like what
  lies beyond an image's border: convolutions see zeros, pools see nothing.

  Batch statistics of a network in training still include it.

  Args:
    extents: int32[N, 2] as `extent` gives them.
  """
  # Of rows and of columns apart: a 1x7 convolution with a stride halves the
  # columns, and the 7x1 behind it the rows.
  shapes = list(zip(*sides(cut, padded)))
  limits = list(zip(*sides(cut, (extents[:, 0], extents[:, 1]))))

  def mask(x: Array) -> Array:
    """bool[N, h, w, 1]: what is not padding."""
    h, w = (
      limits[axis][shapes[axis].index(x.shape[1 + axis])] for axis in (0, 1)
    )
    rows = jnp.arange(x.shape[1]) < h[:, None]
    columns = jnp.arange(x.shape[2]) < w[:, None]
    return (rows[:, :, None] & columns[:, None, :])[..., None]

  def without(x: Array) -> Array:
    return jnp.where(mask(x), x, jnp.zeros((), x.dtype))

  def pool(window: ops.Window, call, x: Array) -> Array:
    inside = mask(x)
    if window.with_zeros:
      return without(call(x))
    if window.kind == "max":
      least = jax.lax.stop_gradient(x.min())
      return without(call(jnp.where(inside, x, least)))
    # The mean over the whole window, over the share of it that is inside.
    share = call(inside.astype(x.dtype))
    return without(call(x) / jnp.where(share > 0, share, 1.0))

  def squeezed(call, x: Array, *args) -> Array:
    # Its mean is over the whole map, where padding holds zeros.
    inside = mask(x)
    counts = inside.astype(jnp.float32).mean((1, 2), keepdims=True)
    factor = (1 / jnp.maximum(counts, 1e-9)).astype(x.dtype)
    return call(x * factor, *args) / factor

  def interceptor(call, args, kwargs, context) -> Any:
    module, name = context.module, context.method_name
    if name != "__call__":
      return call(*args, **kwargs)
    if isinstance(module, BatchNorm):
      return without(call(*args, **kwargs))
    if isinstance(module, ops.Window):
      return pool(module, call, *args)
    if isinstance(module, blocks.SqueezeExcite):
      return squeezed(call, *args)
    return call(*args, **kwargs)

  return interceptor
