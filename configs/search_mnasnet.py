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

import ml_collections


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The config; "small" is for two CPU cores, "tiny" for tests."""
  base = runpy.run_path(
    str(pathlib.Path(__file__).with_name("search_cifar.py"))
  )
  config = base["get_config"](variant)

  config.space = ml_collections.ConfigDict()
  # The text's space with 1.2 in place of 1.25: B0 is in it.
  config.space.name = "mnasnet_released"
  config.space.blocks = ml_collections.ConfigDict()
  blocks = config.space.blocks
  blocks.activation = "swish"  # EfficientNet's; MnasNet's is "relu"
  # What a block chooses from, see nasnet_jax/spaces/mnasnet.py.
  blocks.operations = ("conv", "dconv", "mbconv3", "mbconv6")
  blocks.kernels = (3, 5)
  blocks.squeezes = (0.0, 0.25)
  blocks.skips = ("none", "identity", "pool")
  # Of each block before it chooses: MobileNetV2's.
  blocks.features = (16, 24, 32, 64, 96, 160, 320)
  blocks.layers = (1, 2, 3, 4, 3, 3, 1)
  blocks.strides = (1, 2, 2, 2, 1, 2, 1)
  blocks.stem = 32
  blocks.stem_stride = 2
  blocks.head = 1280

  config.network = ml_collections.ConfigDict()
  config.network.width = 1.0
  config.network.depth = 1.0
  config.child.epochs = 5  # MnasNet, section 5.1, on ImageNet
  config.child.batch_size = 128  # ours
  config.child.learning_rate = 0.1  # ours
  config.child.weight_decay = 1e-5  # MnasNet, section 5.1
  config.child.bn_decay = 0.99  # the same
  config.child.bn_epsilon = 1e-3  # tensorflow/tpu, mnasnet_main.py

  config.search.children = 8000  # MnasNet, section 5.1; PPO's numbers are not
  config.search.children_per_round = 20  # there: search_cifar's
  config.search.reward.kind = "mnasnet_soft"
  config.search.reward.cost = "macs"
  config.search.reward.target = 4e8  # EfficientNet, section 4
  config.search.reward.alpha = -0.07  # the same
  config.search.reward.beta = -0.07
  config.search.cost.image_side = 224  # the same

  final = config.final
  final.top_k = 15  # MnasNet, section 5.1
  final.rank_epochs = 30  # ours
  final.epochs = 200  # ours
  final.network = ml_collections.ConfigDict()
  final.network.width = 1.0
  final.network.depth = 1.0
  final.network.dropout = 0.2  # MnasNet, section 5.1
  final.network.init = "fan_out"  # tensorflow/tpu, efficientnet_model.py
  final.network.bn_decay = 0.99
  final.network.bn_epsilon = 1e-3
  final.batch_size = 128  # ours
  final.learning_rate = 0.1  # ours
  final.weight_decay = 1e-5
  final.drop_path_keep = 0.8  # tensorflow/tpu: 1 - drop_connect_rate
  final.drop_path_version = "depth"

  if variant == "small":
    blocks.features = (8, 16, 24, 40)
    blocks.layers = (1, 2, 2, 2)
    blocks.strides = (1, 2, 2, 1)
    blocks.stem, blocks.stem_stride, blocks.head = 8, 1, 128
    config.child.epochs = 1
    config.child.batch_size = 64
    config.search.children = 40
    config.search.cost.image_side = 0
    config.search.reward.target = 1.5e6  # a random child has 1.6
    final.top_k = 2
    final.rank_epochs = 5
    final.epochs = 15
    final.batch_size = 64
    final.drop_path_keep = 1.0
    final.network.dropout = 0.0
    final.network.init = "fan_in"
  if variant == "tiny":
    blocks.operations = ("conv", "mbconv3")
    blocks.kernels = (3,)
    blocks.squeezes = (0.25,)
    blocks.features = (8, 16)
    blocks.layers = (1, 1)
    blocks.strides = (1, 2)
    blocks.stem, blocks.stem_stride, blocks.head = 8, 1, 16
    config.child.epochs = 1
    config.child.batch_size = 32
    config.search.children = 6
    config.search.children_per_round = 3
    config.search.cost.image_side = 16
    config.search.reward.target = 5e5
    final.top_k = 2
    final.rank_epochs = 1
    final.epochs = 2
    final.batch_size = 32
    final.drop_path_keep = 1.0
  return config
