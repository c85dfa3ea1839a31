"""Sizes of networks: of children, of what is trained, of a backbone."""

from ml_collections import ConfigDict


def child_cells() -> ConfigDict:
  """A child of Zoph et al. 2018 on CIFAR-10."""
  network = ConfigDict()
  network.num_cells = 2  # N, Zoph et al. 2018, appendix A
  network.features = 32  # F: not in the paper's text, from memory
  network.stem_multiplier = 3  # slim, nasnet.py, cifar_config
  network.num_reductions = 2  # Zoph et al. 2018, figure 2
  return network


def final_cells() -> ConfigDict:
  """NASNet-A (6 @ 768), for the cells that a search found."""
  network = ConfigDict()
  network.num_cells = 6  # N, Zoph et al. 2018, table 1
  network.features = 32  # F, Zoph et al. 2018, table 1: 768 = 24 F
  network.stem_multiplier = 3  # slim, nasnet.py, cifar_config
  network.num_reductions = 2  # Zoph et al. 2018, figure 2
  network.aux = True  # slim, nasnet.py, cifar_config
  network.dropout = 0.0  # slim, nasnet.py, cifar_config
  network.init = "fan_out"  # slim, nasnet_cifar_arg_scope
  network.bn_decay = 0.9  # slim, nasnet_cifar_arg_scope
  network.bn_epsilon = 1e-5  # slim, nasnet_cifar_arg_scope
  return network


def enas_final_cells() -> ConfigDict:
  """The last network of ENAS's micro search: melodyguan/enas,
  cifar10_micro_final.sh."""
  network = final_cells()
  network.num_cells = 5  # child_num_layers is 15
  network.features = 36  # child_out_filters
  network.dropout = 0.2  # child_keep_prob
  network.init = "fan_in"  # He et al. 2015
  return network


def cells() -> ConfigDict:
  """NASNet-A (6 @ 768), with all that a network of cells can be."""
  network = final_cells()
  network.layout = "nasnet"  # or "pnas": N counts both strides
  network.stem = "cifar"  # or "imagenet"
  network.stem_features = 32  # of the ImageNet stem only
  network.skip_reduction = False  # slim, nasnet.py, cifar_config
  network.remat = False  # True: less memory, more time
  return network


def child_network() -> ConfigDict:
  """A child of Zoph et al. 2018, with all that a network of cells can be."""
  network = cells()
  network.num_cells = 2  # N, Zoph et al. 2018, appendix A
  network.aux = False
  return network


def trained_cells() -> ConfigDict:
  """The same, of any depth."""
  network = cells()
  network.scan_cells = False  # True: equal cells in a loop, for TPU
  return network


def imagenet_cells(sizes) -> ConfigDict:
  """A published network of cells on ImageNet.

  Args:
    sizes: `zoo.cells.Network.config`.
  """
  network = trained_cells()
  network.num_cells = sizes["num_cells"]  # N, of the variant
  network.features = sizes["features"]  # F, of the variant
  network.stem_multiplier = 3  # of the CIFAR stem only
  network.layout = sizes.get("layout", "nasnet")  # of the variant
  network.stem = "imagenet"
  network.stem_features = sizes["stem_features"]  # of the variant
  network.skip_reduction = sizes.get("skip_reduction", False)  # of the variant
  network.aux = True  # slim, nasnet.py, mobile_imagenet_config
  network.dropout = 0.5  # slim, nasnet.py, mobile_imagenet_config
  network.init = "fan_out"  # slim, nasnet_mobile_arg_scope
  network.bn_decay = 0.9997  # slim, nasnet_mobile_arg_scope
  network.bn_epsilon = 1e-3  # slim, nasnet_mobile_arg_scope
  return network


def backbone(large: bool = False) -> ConfigDict:
  """NASNet-A, mobile or large, under a detector, where no checkpoint gives its
  sizes."""
  network = ConfigDict()
  network.num_cells = 6 if large else 4  # N, Zoph et al. 2018, tables 2 and 3
  network.features = 168 if large else 44  # F, Zoph et al. 2018, tables 2 and 3
  network.stem = "imagenet"
  network.stem_features = 96 if large else 32  # slim, nasnet.py
  network.num_reductions = 2
  network.layout = "nasnet"
  network.skip_reduction = large  # slim, nasnet.py
  network.remat = large  # of a checkpoint's network, too
  network.init = "fan_out"
  network.bn_decay = 0.9997  # slim, nasnet_mobile_arg_scope
  network.bn_epsilon = 1e-3  # slim, nasnet_mobile_arg_scope
  return network


def child_sizes() -> ConfigDict:
  """Of a child of the `mnasnet` spaces: as the space says."""
  network = ConfigDict()
  network.width = 1.0
  network.depth = 1.0
  return network


def final_blocks() -> ConfigDict:
  """EfficientNet-B0's sizes, for a row of blocks that a search found."""
  network = child_sizes()
  network.dropout = 0.2  # Tan et al. 2019, section 5.1
  network.init = "fan_out"  # tensorflow/tpu, efficientnet_model.py
  network.bn_decay = 0.99  # tensorflow/tpu, efficientnet_model.py
  network.bn_epsilon = 1e-3  # tensorflow/tpu, efficientnet_model.py
  return network


def blocks() -> ConfigDict:
  """EfficientNet-B0's sizes, with all that a row of blocks can be."""
  network = final_blocks()
  network.remat = False  # True: less memory, more time
  return network


def block_backbone() -> ConfigDict:
  """A row of blocks under a detector."""
  network = blocks()
  del network.dropout  # of the classifier, which is not there
  return network


def stages() -> ConfigDict:
  """A child of Xie & Yuille 2017, section 4.2, from memory."""
  network = ConfigDict()
  network.features = (64, 128, 256)  # Xie & Yuille 2017, 4.2, from memory
  network.kernel_size = 5  # Xie & Yuille 2017, section 4.2, from memory
  return network


def final_stages() -> ConfigDict:
  """The same, to be trained as the winner."""
  network = stages()
  network.dropout = 0.0
  network.init = "fan_in"
  network.bn_decay = 0.9
  network.bn_epsilon = 1e-5
  return network
