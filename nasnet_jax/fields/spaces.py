"""What is searched; each function's fields are arguments of `spaces.get`."""

from ml_collections import ConfigDict


def nasnet() -> ConfigDict:
  """The cells of Zoph et al. 2018, section 3.1."""
  space = ConfigDict()
  space.name = "nasnet"  # add only, as all published cells turned out
  space.num_blocks = 5  # B, Zoph et al. 2018; 4 for nasnet_b and nasnet_c
  space.min_blocks = 0  # 0: cells of exactly B blocks
  space.operations = ()  # (): all of the space, 13 of nasnet's
  return space


def genetic_cnn() -> ConfigDict:
  """The graphs of Xie & Yuille 2017, section 4.2."""
  space = ConfigDict()
  space.name = "genetic_cnn"
  space.nodes = (3, 4, 5)  # Xie & Yuille 2017, section 4.2: S = 3, 19 bits
  return space


def mnasnet() -> ConfigDict:
  """Rows of blocks, from MobileNetV2's: Tan et al. 2019, section 4.1."""
  space = ConfigDict()
  # The text's space with 1.2 in place of 1.25: EfficientNet-B0 is in it.
  space.name = "mnasnet_released"
  space.blocks = ConfigDict()
  blocks = space.blocks
  blocks.activation = "swish"  # EfficientNet's; MnasNet's is "relu"
  # What a block chooses from, see nasnet_jax/spaces/mnasnet.py.
  blocks.operations = ("conv", "dconv", "mbconv3", "mbconv6")
  blocks.kernels = (3, 5)  # to choose from
  blocks.squeezes = (0.0, 0.25)  # to choose from
  blocks.skips = ("none", "identity", "pool")  # to choose from
  blocks.features = (16, 24, 32, 64, 96, 160, 320)  # MobileNetV2's
  blocks.layers = (1, 2, 3, 4, 3, 3, 1)  # MobileNetV2's
  blocks.strides = (1, 2, 2, 2, 1, 2, 1)  # MobileNetV2's
  blocks.stem = 32
  blocks.stem_stride = 2
  blocks.head = 1280
  return space
