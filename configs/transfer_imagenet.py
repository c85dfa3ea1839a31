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
          --config.model.genotype=runs/search/result.json takes the cell that
          a search found, at the sizes of the variant. `:tiny` is for a folder
          of any photographs, and minutes.
Hardware: 250,000 steps of 1,600 images: weeks of one GPU, meant for a TPU
          slice with --config.mesh.data=...; not run by us. A batch that does
          not fit: --config.network.remat=True, then
          --config.train.micro_batches=4. Large networks compile in minutes
          with --config.network.scan_cells=True.
Result:   nothing is claimed here.
"""

import ml_collections
from ml_collections.config_dict import placeholder

from nasnet_jax import zoo

_NETWORKS = {
  name: network
  for name, network in zoo.cells.NETWORKS.items()
  if network.config.get("stem") == "imagenet"
}


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The config; variant: a network by its name, or "tiny"."""
  name = "nasnet_a_mobile" if variant in ("", "tiny") else variant
  if name not in _NETWORKS:
    raise ValueError(
      f"transfer_imagenet has no variant {variant!r}, only: tiny,"
      f" {', '.join(_NETWORKS)}"
    )
  published = _NETWORKS[name]
  config = ml_collections.ConfigDict()
  config.job = "train"
  config.model = ml_collections.ConfigDict()
  config.model.genotype = published.cells  # or the path of a result.json
  config.model.checkpoint = ""  # folder of a run whose weights to start from
  config.model.keep_head = False  # whether its classifier is taken too
  config.network = _network(published.config)
  config.train = _train(large=published.side > 224)
  config.train.update(_differences(published))
  config.data = _data(published.side)
  config.mesh = ml_collections.ConfigDict()
  config.mesh.arch = 1
  config.mesh.data = 1  # devices that share a batch
  config.mesh.shard_params = False  # True: each holds a part of the weights
  config.hosts = ml_collections.ConfigDict()
  config.hosts.coordinator = ""  # or "auto" (TPU, Slurm, MPI), or HOST:PORT
  config.hosts.count = 1  # processes, if it is HOST:PORT
  config.hosts.index = 0  # which of them this is
  config.hosts.timeout = 60  # seconds; a host silent for longer is given up
  config.log = ml_collections.ConfigDict()
  config.log.seconds = 60.0  # between lines on work that is under way
  config.profile = ""  # "steps": a trace of a few steps, see docs/pods.md
  if variant == "tiny":
    _make_tiny(config)
  return config


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


def _network(sizes) -> ml_collections.ConfigDict:
  """Sizes: those of the published network."""
  network = ml_collections.ConfigDict()
  network.num_cells = sizes["num_cells"]
  network.features = sizes["features"]
  network.stem_multiplier = 3  # of the CIFAR stem only
  network.num_reductions = 2
  network.layout = sizes.get("layout", "nasnet")
  network.stem = "imagenet"
  network.stem_features = sizes["stem_features"]
  network.skip_reduction = sizes.get("skip_reduction", False)
  network.aux = True  # slim, mobile_imagenet_config, like all below
  network.dropout = 0.5
  network.remat = False  # True: less memory, more time
  network.scan_cells = False  # True: equal cells in a loop, for TPU
  network.init = "fan_out"
  network.bn_decay = 0.9997
  network.bn_epsilon = 1e-3
  return network


def _train(large: bool) -> ml_collections.ConfigDict:
  """The recipe: slim's, mobile_imagenet_config or large_imagenet_config."""
  train = ml_collections.ConfigDict()
  train.seed = 0
  train.epochs = 312  # 250,000 steps
  train.batch_size = 1600  # slim's comments: 50 x 32, or 100 x 16
  train.optimizer = "rmsprop"  # Zoph et al. 2018, A.7
  train.momentum = 0.9  # slim's default; not in the paper
  train.rms_decay = 0.9  # Zoph et al. 2018, A.7
  train.rms_epsilon = 1.0  # the same
  train.learning_rate = 1.5 if large else 2.0  # slim: 100 x .015, 50 x .04
  train.schedule = "exponential"  # the same, like both below
  train.warmup_epochs = 0.0
  train.decay_factor = 0.97
  train.decay_epochs = 2.4
  train.weight_decay = 5e-5 if large else 4e-5  # slim, ..._arg_scope
  train.clip_norm = 10.0  # slim, like all below
  train.aux_weight = 0.4
  train.label_smoothing = 0.1
  train.drop_path_keep = 0.7 if large else 1.0
  train.drop_path_version = "both"  # slim's v3; the paper: "time"
  train.ema_decay = 0.9999  # Zoph et al. 2018, A.7
  train.micro_batches = 1
  train.bn_group = 16 if large else 32  # examples of a replica of slim's
  train.dtype = "float32"  # "bfloat16" on TPU: activations only
  train.freeze = False  # True: the classifier alone
  train.steps_per_call = 1  # a stream gives one batch per call
  train.eval_batch_size = 200
  train.report_epochs = 1.0
  train.checkpoint_seconds = 600.0
  return train


def _differences(published) -> dict[str, float]:
  """Where a network's own recipe is not NASNet's, as far as it is known."""
  large = published.side > 224
  if published.cells == "pnasnet_5":  # slim, pnasnet.py
    keep = 0.6 if large else 1.0
    return {"weight_decay": 4e-5, "drop_path_keep": keep}
  if published.cells == "amoebanet_d":  # tensorflow/tpu, amoeba_net
    return {
      "epochs": 48,
      "batch_size": 256,
      "learning_rate": 0.64,
      "warmup_epochs": 3.0,
      "decay_factor": 0.9,
      "decay_epochs": 1.0,
      "weight_decay": 4e-5,
      "drop_path_keep": 0.7,
      "drop_path_version": "time",  # v1
    }
  if published.cells.startswith("amoebanet"):  # Real et al. 2019, "Methods"
    return {
      "rms_epsilon": 0.1,
      "learning_rate": 0.001,  # for 100 GPUs; their batch is not printed
      "decay_epochs": 2.0,
      "weight_decay": 4e-5,
      "drop_path_keep": 0.7 if large else 1.0,  # mobile: as NASNet's
      "drop_path_version": "time",
    }
  return {}


def _data(image_size: int) -> ml_collections.ConfigDict:
  """Photographs on disk, and how they are cut and varied."""
  data = ml_collections.ConfigDict()
  data.source = "tfds"  # or "folder", or "fake" to measure speed
  data.data_dir = placeholder(str)
  data.seed = 0
  data.num_valid = 0  # set aside; scored at every point of the curve
  # Of the source; what is None is left to it.
  data.options = ml_collections.ConfigDict()
  data.options.name = placeholder(str)  # of tfds: imagenet2012 if None
  data.options.train_split = placeholder(str)  # of tfds: train
  data.options.test_split = placeholder(str)  # of tfds: validation
  data.options.path = placeholder(str)
  data.options.test_fraction = placeholder(float)
  data.options.note = placeholder(str)
  data.options.num_images = placeholder(int)  # of fake
  data.options.num_classes = placeholder(int)  # of fake
  data.stream = ml_collections.ConfigDict()
  data.stream.image_size = image_size
  data.stream.min_area = 0.08  # Szegedy et al. 2015
  data.stream.max_aspect = 4 / 3  # the same
  data.stream.center = 0.875  # slim, inception_preprocessing
  data.stream.workers = 8  # processes that decode; 0: threads
  data.stream.max_broken = 10  # images that may be replaced
  data.augmentation = ml_collections.ConfigDict()
  data.augmentation.flip = placeholder(bool)
  data.augmentation.color = placeholder(bool)
  data.augmentation.cutout = placeholder(int)
  return data
