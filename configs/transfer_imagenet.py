"""Trains published or found cells on ImageNet, at the size of a paper.

Paper:    Zoph et al. 2018 (arXiv 1707.07012): NASNet-A (4 @ 1056), the default,
          5.3M parameters, 74.0 % top-1; `:nasnet_a_large` (6 @ 4032), 88.9M,
          82.7 %. Every other ImageNet network of `zoo.cells.NETWORKS` by its
          name, such as `:pnasnet_5_large` (Liu et al. 2018, 82.9 %) or
          `:amoebanet_a_mobile` (Real et al. 2019, 74.5 %). The recipe is
          NASNet's (slim's comments on 50 x 32 images for mobile, 100 x 16 for
          large), with what the others' papers and code say differently.
Data:     ImageNet through tfds, prepared once into array_record files; or
          class folders or a .tar of them, read from the disk as they are:
          --config.data.source=folder --config.data.options.path=...
Command:  python launch/main.py --config=configs/transfer_imagenet.py \\
            --workdir=runs/imagenet
          --config.model.genotype=runs/search takes the cell that
          a search found, at the sizes of the variant.
          `:photographs` is a small network with a recipe for some hundred to
          some ten thousand photographs of your own, in class folders:
          --config.data.options.path=PHOTOGRAPHS. `:tiny` takes minutes.
Hardware: 250,000 steps of 1,600 images: weeks of one GPU, meant for a TPU
          slice with --config.mesh.data=...; not run by us. A batch that does
          not fit: --config.network.remat=True, then
          --config.train.micro_batches=4. Large networks compile in minutes
          with --config.network.scan_cells=True.
Result:   nothing is claimed here.
"""

from nasnet_jax import fields, zoo

_NETWORKS = {
  name: network
  for name, network in zoo.cells.NETWORKS.items()
  if network.config.get("stem") == "imagenet"
}


def get_config(variant: str = ""):
  """The config; variant: a network by its name, "photographs" or "tiny"."""
  own = variant in ("", "photographs", "tiny")
  name = "nasnet_a_mobile" if own else variant
  if name not in _NETWORKS:
    raise ValueError(
      f"transfer_imagenet has no variant {variant!r}, only: photographs, tiny,"
      f" {', '.join(_NETWORKS)}"
    )
  published = _NETWORKS[name]
  config = fields.jobs.training(
    fields.networks.imagenet_cells(published.config),
    _recipe(published.cells)(large=published.side > 224),
    fields.images.photographs(published.side),
  )
  config.model.genotype = published.cells  # or a run, RUN#12
  if variant == "photographs":
    _make_photographs(config)
  elif variant == "tiny":
    _make_tiny(config)
  return config


def _recipe(cells: str):
  """The function that gives their recipe."""
  if cells == "pnasnet_5":
    return fields.recipes.pnasnet_imagenet
  if cells == "amoebanet_d":
    return fields.recipes.amoebanet_d_imagenet
  if cells.startswith("amoebanet"):
    return fields.recipes.amoebanet_imagenet
  return fields.recipes.nasnet_imagenet


def _make_photographs(config):
  """Ours: a few hundred photographs are ten updates an epoch."""
  config.network.num_cells = 1
  config.network.features = 22
  config.network.aux = False
  config.network.bn_decay = 0.9
  config.train.epochs = 60
  config.train.batch_size = 32
  config.train.bn_group = 0
  config.train.optimizer = "momentum"
  config.train.learning_rate = 0.05
  config.train.schedule = "cosine"
  config.train.ema_decay = 0.99
  config.train.eval_batch_size = 100
  config.train.checkpoint_seconds = 60.0
  config.data.source = "folder"
  config.data.stream.image_size = 128
  config.data.stream.workers = 2


def _make_tiny(config):
  config.network.num_cells = 1
  config.network.features = 8
  config.network.aux = False
  config.network.bn_decay = 0.9  # few steps, so faster ones
  config.train.epochs = 8
  config.train.batch_size = 16
  config.train.bn_group = 0
  config.train.learning_rate = 0.05
  config.train.ema_decay = 0.9
  config.train.eval_batch_size = 20
  config.train.checkpoint_seconds = 0.0
  config.data.source = "folder"
  config.data.stream.image_size = 64
  config.data.stream.workers = 2
