"""MnasNet's search, at the setting from which EfficientNet-B0 came.

Paper:    Tan et al. 2019, MnasNet (arXiv 1807.11626): the factorised
          hierarchical space, PPO and the reward; Tan & Le 2019, EfficientNet
          (arXiv 1905.11946), section 4: the same with multiply-adds in place
          of latency, accuracy x (MACs / 400 million)^-0.07.
Data:     CIFAR-10, as in `search_cifar.py`, which has all fields that are not
          named here and their meaning. The papers train each child on ImageNet;
          here its accuracy is CIFAR's, and its multiply-adds are counted for
          224 x 224 pixels, as theirs.
Command:  python launch/main.py --config=configs/search_mnasnet.py \\
            --workdir=runs/search_mnasnet
          With `:small` behind the file's name: 40 children of fewer blocks on
          5,000 images at 16x16, for two CPU cores. With `:tiny` it takes digits
          and a minute or two.
          For the latency on this device as the cost, in seconds, add
          --config.search.reward.cost=latency \\
          --config.search.reward.target=0.01
Hardware: MnasNet's search took 64 TPUv2 for 4.5 days.
Result:   nothing is claimed here. The papers: MnasNet-A1 75.2 % on ImageNet
          with 312 million multiply-adds, EfficientNet-B0 77.1 % with 390.

Where the papers give no number, the comment beside it says "ours".
"""

import pathlib
import runpy

from nasnet_jax import fields


def get_config(variant: str = ""):
  """The config; "small" is for two CPU cores, "tiny" for tests."""
  if variant not in ("", "small", "tiny"):
    raise ValueError(
      f"search_mnasnet has no variant {variant!r}: small or tiny"
    )
  config = _search_cifar(variant)
  config.space = fields.spaces.mnasnet()
  config.network = fields.networks.child_sizes()
  config.final.network = fields.networks.final_blocks()
  child, search, final = config.child, config.search, config.final
  child.epochs = 5  # MnasNet, section 5.1, on ImageNet
  child.batch_size = final.batch_size = 128  # ours
  child.learning_rate = final.learning_rate = 0.1  # ours
  child.weight_decay = final.weight_decay = 1e-5  # MnasNet, section 5.1
  child.bn_decay = 0.99  # MnasNet, section 5.1
  child.bn_epsilon = 1e-3  # tensorflow/tpu, mnasnet_main.py
  search.children = 8000  # MnasNet, section 5.1; PPO's numbers are not there
  search.reward.kind = "mnasnet_soft"
  search.reward.cost = "macs"  # EfficientNet, section 4
  search.reward.target = 4e8  # EfficientNet, section 4
  search.reward.alpha = -0.07  # EfficientNet, section 4
  search.reward.beta = -0.07  # EfficientNet, section 4
  search.cost.image_side = 224  # EfficientNet, section 4
  final.top_k = 15  # MnasNet, section 5.1
  final.rank_epochs = 30  # ours
  final.epochs = 200  # ours
  final.drop_path_keep = 0.8  # tensorflow/tpu: 1 - drop_connect_rate
  final.drop_path_version = "depth"  # tensorflow/tpu, efficientnet_model.py
  if variant == "small":
    _make_small(config, config.space.blocks)
  elif variant == "tiny":
    _make_tiny(config, config.space.blocks)
  return config


def _make_small(config, blocks):
  blocks.features = (8, 16, 24, 40)
  blocks.layers = (1, 2, 2, 2)
  blocks.strides = (1, 2, 2, 1)
  blocks.stem, blocks.stem_stride, blocks.head = 8, 1, 128
  config.child.epochs = 1
  config.child.batch_size = config.final.batch_size = 64
  config.search.children = 40
  config.search.cost.image_side = 0
  config.search.reward.target = 1.5e6  # a random child has 1.6
  config.final.top_k = 2
  config.final.rank_epochs = 5
  config.final.epochs = 15
  config.final.drop_path_keep = 1.0  # too short a training to need it
  config.final.network.dropout = 0.0
  config.final.network.init = "fan_in"


def _make_tiny(config, blocks):
  fields.jobs.make_tiny_search(config)
  blocks.operations = ("conv", "mbconv3")
  blocks.kernels = (3,)
  blocks.squeezes = (0.25,)
  blocks.features = (8, 16)
  blocks.layers = (1, 1)
  blocks.strides = (1, 2)
  blocks.stem, blocks.stem_stride, blocks.head = 8, 1, 16
  config.child.batch_size = config.final.batch_size = 32
  config.search.cost.image_side = 16
  config.search.reward.target = 5e5
  config.final.drop_path_keep = 1.0


def _search_cifar(variant: str):
  """The config of the file beside this one; configs are no package."""
  path = pathlib.Path(__file__).with_name("search_cifar.py")
  return runpy.run_path(str(path))["get_config"](variant)
