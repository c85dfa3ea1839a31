"""Names in `keras.applications` of our networks' arrays: (layer, weight) from a
path behind its collection."""

from nasnet_jax.export.keras_model import CLASSIFIER

Path = tuple[str, ...]

# The separable convolutions of a cell: (block, side) -> name in Keras's
# keras/src/applications/nasnet.py, _normal_a_cell and _reduction_a_cell.
_NORMAL = {
  (0, 0): "normal_left1",
  (0, 1): "normal_right1",
  (1, 0): "normal_left2",
  (1, 1): "normal_right2",
  (4, 0): "normal_left5",
}
_REDUCTION = {
  (0, 0): "reduction_left1",
  (0, 1): "reduction_right1",
  (1, 1): "reduction_right2",
  (2, 1): "reduction_right3",
  (4, 0): "reduction_left4",
}
_NORM = {
  "scale": "gamma",
  "bias": "beta",
  "mean": "moving_mean",
  "var": "moving_variance",
}


# keras/src/applications/efficientnet.py, block.
_BLOCK = {
  "expand": "expand_conv",
  "norm_0": "expand_bn",
  "depthwise": "dwconv",
  "norm_1": "bn",
  "project": "project_conv",
  "norm_2": "project_bn",
}
_ENDS = {
  "stem_conv": "stem_conv",
  "stem_norm": "stem_bn",
  "head_conv": "top_conv",
  "head_norm": "top_bn",
  "classifier": CLASSIFIER,
}


def efficientnet(path: Path) -> tuple[str, str]:
  """(layer, weight) in Keras of one of our arrays."""
  module, *inner, leaf = path
  if module in _ENDS:
    norm = module.endswith("norm")
    return _ENDS[module], _NORM[leaf] if norm else leaf
  _, group, _, number = module.split("_")
  block = f"block{int(group) + 1}{chr(ord('a') + int(number))}"
  if inner[0] == "squeeze_excite":
    return f"{block}_se_{inner[1]}", leaf
  weight = _NORM[leaf] if inner[0].startswith("norm") else leaf
  return f"{block}_{_BLOCK[inner[0]]}", weight


def nasnet(path: Path, num_cells: int) -> tuple[str, str]:
  """(layer, weight) in Keras of one of our arrays."""
  module, *inner, leaf = path
  weight = _NORM.get(leaf, leaf)
  if module == "classifier":
    return CLASSIFIER, leaf
  if module == "stem":
    return ("stem_conv1" if inner == ["conv"] else "stem_bn1"), weight
  kind, block = _block_id(module, num_cells)
  if inner[0] == "project":
    layer = "conv" if inner[1] == "conv" else "bn"
    return f"{kind}_{layer}_1_{block}", weight
  if inner[0] == "fit_previous":
    layer = {
      "conv": "adjust_conv_projection",
      "conv_0": "adjust_conv_1",
      "conv_1": "adjust_conv_2",
      "norm": "adjust_bn",
    }[inner[2]]
    return f"{layer}_{block}", weight
  _, b, side = inner[0].split("_")
  part = (_NORMAL if kind == "normal" else _REDUCTION)[int(b), int(side)]
  what, _, layer = inner[1].rpartition("_")
  number = int(layer) + 1
  if what == "norm":
    return f"separable_conv_{number}_bn_{part}_{block}", weight
  return f"separable_conv_{number}_{part}_{block}", f"{what}_kernel"


def _block_id(module: str, num_cells: int) -> tuple[str, str]:
  """(kind, Keras's id) of one of our cells.

  Normal cells are numbered on after a reduction as if it were one; the second
  reduction is not counted.
  """
  name, _, number = module.rpartition("_")
  if name == "stem_cell":
    return "reduction", f"stem_{int(number) + 1}"
  if name == "reduction":
    return "reduction", f"reduce_{num_cells * (int(number) + 1)}"
  after = int(number) >= num_cells
  return "normal", str(int(number) + after)


# keras/src/applications/mobilenet_v2.py, _inverted_res_block.
_V2_ENDS = {
  "stem_conv": "Conv1",
  "stem_norm": "bn_Conv1",
  "head_conv": "Conv_1",
  "head_norm": "Conv_1_bn",
  "classifier": CLASSIFIER,
}
_V2_BLOCK = {
  "expand": "expand",
  "norm_0": "expand_BN",
  "depthwise": "depthwise",
  "norm_1": "depthwise_BN",
  "project": "project",
  "norm_2": "project_BN",
}


def mobilenet_v2(path: Path, numbers: dict[str, int]) -> tuple[str, str]:
  """numbers: of blocks, by our names."""
  module, *inner, leaf = path
  weight = _NORM[leaf] if "norm" in path[-2] else leaf
  if module in _V2_ENDS:
    return _V2_ENDS[module], weight
  number = numbers[module]
  block = f"block_{number}" if number else "expanded_conv"
  return f"{block}_{_V2_BLOCK[inner[0]]}", weight


# keras/src/applications/mobilenet.py, _conv_block, _depthwise_conv_block.
_V1_ENDS = {
  "stem_conv": "conv1",
  "stem_norm": "conv1_bn",
  "classifier": CLASSIFIER,
}
_V1_BLOCK = {
  "depthwise": "conv_dw_{}",
  "norm_0": "conv_dw_{}_bn",
  "pointwise": "conv_pw_{}",
  "norm_1": "conv_pw_{}_bn",
}


def mobilenet_v1(path: Path, numbers: dict[str, int]) -> tuple[str, str]:
  """numbers: of blocks, by our names."""
  module, *inner, leaf = path
  weight = _NORM[leaf] if "norm" in path[-2] else leaf
  if module in _V1_ENDS:
    return _V1_ENDS[module], weight
  return _V1_BLOCK[inner[0]].format(numbers[module] + 1), weight
