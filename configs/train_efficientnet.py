"""Trains EfficientNets and what they were measured against on ImageNet.

Paper:    Tan & Le 2019 (arXiv 1905.11946): EfficientNet-B0, the default, 5.3M
          parameters, 77.1 % top-1, to `:efficientnet_b7`, 66M, 84.3 %. Every
          other network of `nasnet_jax.zoo.blocks.NETWORKS` by its name:
          `:efficientnet_lite0` (75.1 %), `:mnasnet_a1` (Tan et al. 2019, 75.2
          %), `:mobilenet_v2`, `:resnet_50`, ... The recipe is EfficientNet's
          (section 5.2 and tensorflow/tpu's code), for MnasNet with what its
          code says differently; for the others it is not their papers'.
Data:     ImageNet through tfds, prepared once into array_record files; or
          class folders or a .tar of them, read from the disk as they are:
          --config.data.source=folder --config.data.options.path=...
          25,022 training images are set aside, and the weights that do best on
          them are tested once on the validation set, as in the paper.
Command:  python launch/main.py --config=configs/train_efficientnet.py \\
            --workdir=runs/efficientnet_b0
          RandAugment in place of AutoAugment, as for later checkpoints (B5:
          magnitude 17; B7: 28):
          --config.data.augmentation.policy=randaugment
          --config.data.augmentation.magnitude=17
          `:tiny` takes made-up images, and seconds.
Hardware: 350 epochs of 613 steps of 2,048 images: a TPU slice with
          --config.mesh.data=...; not run by us. A batch that does not fit:
          --config.network.remat=True, then --config.train.micro_batches=4.
Result:   nothing is claimed here.
"""

from nasnet_jax import fields, zoo


def get_config(variant: str = ""):
  """The config; variant: a network by its name, or "tiny"."""
  name = "efficientnet_b0" if variant in ("", "tiny") else variant
  if name not in zoo.blocks.NETWORKS:
    raise ValueError(
      f"train_efficientnet has no variant {variant!r}, only: tiny,"
      f" {', '.join(zoo.blocks.NETWORKS)}"
    )
  published = zoo.blocks.network(name)
  is_mnasnet = published.architecture.startswith("mnasnet")
  is_lite = published.architecture == "efficientnet_lite"
  config = fields.jobs.training(
    fields.networks.blocks(),
    fields.recipes.mnasnet() if is_mnasnet else fields.recipes.efficientnet(),
    fields.images.efficientnet_photographs(published.side, is_lite),
  )
  config.model.genotype = published.architecture  # or a run, RUN#12
  config.network.width = published.width  # of the variant
  config.network.depth = published.depth  # of the variant
  config.network.dropout = published.dropout  # of the variant
  if is_mnasnet:
    config.data.augmentation.policy = ""  # mnasnet_main.py has none
  if variant == "tiny":
    _make_tiny(config)
  return config


def _make_tiny(config):
  config.network.width = 0.25
  config.network.depth = 0.1  # a block per group
  config.network.bn_decay = 0.9  # few steps, so faster ones
  config.train.epochs = 4
  config.train.batch_size = 8
  config.train.learning_rate = 0.005
  config.train.warmup_epochs = 1.0
  config.train.ema_decay = 0.5
  config.train.eval_batch_size = 8
  config.train.patience_epochs = 2.0
  config.train.checkpoint_seconds = 0.0
  config.data.source = "fake"
  config.data.num_valid = 8
  config.data.options.num_images = 40
  config.data.options.num_classes = 3
  config.data.stream.image_size = 32
  config.data.stream.workers = 0
  config.data.augmentation.policy = "randaugment"
