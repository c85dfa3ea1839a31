"""Faster R-CNN on any set in Pascal VOC's layout.

Paper:    Ren et al. 2015 (arXiv 1506.01497); the numbers of the TF Object
          Detection API's faster_rcnn_nas where nothing else is said.
Data:     --config.data.data_dir=FOLDER with Annotations/, ImageSets/Main/ and
          JPEGImages/. The default is for VOC at its common size, on NASNet-A
          (4 @ 1056). `:bccd`: blood cells (BCCD: 205 images to train on, 87 to
          validate, 72 to test, 640x480, three classes), at half their size, on
          a small NASNet-A, from nothing or from a checkpoint.
Command:  python launch/main.py --config=configs/detect_voc.py:bccd \\
            --config.data.data_dir=BCCD --workdir=runs/bccd
          --config.model.checkpoint=runs/cifar --config.model.genotype= starts
          from a classifier that train_cifar.py or another job trained with
          network.stem=imagenet; --config.model.genotype=runs/search/result.json
          takes the cells that a search found, from nothing. `:tiny`, on a row
          of blocks, is for minutes.
Hardware: `:bccd`: two CPU cores.
Result:   `:bccd` at half its size: docs/results/detection_bccd; nothing is
          claimed of the rest.
"""

import ml_collections
from ml_collections.config_dict import placeholder

_VARIANTS = ("", "bccd", "tiny")


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The config; see above for "bccd" and "tiny"."""
  if variant not in _VARIANTS:
    raise ValueError(
      f"detect_voc has no variant {variant!r}, only: {', '.join(_VARIANTS[1:])}"
    )
  config = ml_collections.ConfigDict()
  config.job = "detect"
  config.model = ml_collections.ConfigDict()
  config.model.genotype = ""  # without a checkpoint: cells, or a result.json
  config.model.checkpoint = ""  # folder of a trained classifier: say which
  config.network = _network()
  config.detector = _detector()
  config.train = _train()
  config.data = _data()
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
  if variant == "bccd":
    _make_bccd(config)
  elif variant == "tiny":
    _make_tiny(config)
  return config


def _make_bccd(config):
  """Cells are 40 to 250 pixels wide, platelets 20 to 40; halved here."""
  config.model.genotype = "nasnet_a"
  config.network.num_cells = 1
  config.network.features = 16
  config.network.stem_features = 16
  config.network.init = "fan_in"
  config.network.bn_decay = 0.9  # few steps, so faster ones
  config.detector.bn_frozen = False
  config.detector.anchors.base = 64.0
  config.detector.rpn_features = 64
  config.detector.proposals = 100
  config.detector.crop = "align"
  config.detector.crop_size = 7
  config.detector.box_batch = 32
  config.detector.truth_as_proposals = True
  config.train.epochs = 30
  config.train.batch_size = 4
  config.train.learning_rate = 0.02
  config.train.schedule = "cosine"
  config.train.warmup_epochs = 1.0
  config.train.weight_decay = 1e-4
  config.train.eval_batch_size = 4
  config.train.report_epochs = 5.0
  config.train.checkpoint_seconds = 60.0
  config.data.sizes.buckets = ((240, 320),)
  config.data.sizes.shorter = 240
  config.data.sizes.longer = 320
  config.data.sizes.jitter = (0.8, 1.25)
  config.data.stream.workers = 0


def _make_tiny(config):
  _make_bccd(config)
  config.model.genotype = "mobilenet_v1"
  network = ml_collections.ConfigDict()  # of blocks
  network.width = 0.125
  network.depth = 1.0
  network.remat = False
  network.init = "fan_in"
  network.bn_decay = 0.9
  network.bn_epsilon = 1e-3
  config.network = network
  config.detector.anchors.base = 32.0
  config.detector.rpn_features = 16
  config.detector.proposals = 20
  config.detector.box_batch = 8
  config.train.epochs = 2
  config.train.report_epochs = 1.0
  config.train.checkpoint_seconds = 0.0
  config.data.sizes.buckets = ((96, 128), (128, 96))
  config.data.sizes.shorter = 96
  config.data.sizes.longer = 128


def _network() -> ml_collections.ConfigDict:
  """Sizes of the backbone, where no checkpoint gives them: NASNet-A mobile."""
  network = ml_collections.ConfigDict()
  network.num_cells = 4  # Zoph et al. 2018, table 3
  network.features = 44  # the same
  network.stem = "imagenet"
  network.stem_features = 32  # slim, nasnet.py, mobile_imagenet_config
  network.num_reductions = 2
  network.layout = "nasnet"
  network.skip_reduction = False
  network.remat = False  # of a checkpoint's network, too
  network.init = "fan_out"
  network.bn_decay = 0.9997  # slim, nasnet_mobile_arg_scope
  network.bn_epsilon = 1e-3  # the same
  return network


def _detector() -> ml_collections.ConfigDict:
  """See `nasnet_jax.detection.detector.DetectorConfig`."""
  detector = ml_collections.ConfigDict()
  detector.bn_frozen = True
  detector.anchors = ml_collections.ConfigDict()
  detector.anchors.base = 256.0
  detector.anchors.scales = (0.25, 0.5, 1.0, 2.0)
  detector.anchors.ratios = (0.5, 1.0, 2.0)
  detector.rpn_features = 512
  detector.rpn_positive = 0.7
  detector.rpn_negative = 0.3
  detector.rpn_batch = 256
  detector.rpn_share = 0.5
  detector.rpn_box_weight = 2.0
  detector.rpn_class_weight = 1.0
  detector.proposals = 300
  detector.proposal_iou = 0.7
  detector.truth_as_proposals = False
  detector.crop = "resize"  # or "align"
  detector.crop_size = 17
  detector.crop_pool = 1
  detector.box_batch = 64
  detector.box_share = 0.25
  detector.box_positive = 0.5
  detector.box_weight = 2.0
  detector.class_weight = 1.0
  detector.chunk = 0  # crops at once; 0: all
  detector.final_iou = 0.6
  detector.least_score = 0.0
  detector.per_class = 100
  detector.total = 100
  return detector


def _train() -> ml_collections.ConfigDict:
  """The recipe."""
  train = ml_collections.ConfigDict()
  train.seed = 0
  train.epochs = 20  # ours
  train.batch_size = 1
  train.optimizer = "momentum"
  train.momentum = 0.9
  train.rms_decay = 0.9  # of rmsprop only
  train.rms_epsilon = 1.0  # of rmsprop only
  train.learning_rate = 3e-4
  train.schedule = "piecewise"
  train.warmup_epochs = 0.0
  train.decay_factor = 0.1
  train.decay_at = (12.0, 16.0)  # ours
  train.weight_decay = 0.0
  train.clip_norm = 10.0
  train.drop_path_keep = 1.0
  train.drop_path_version = "both"
  train.ema_decay = 0.0
  train.micro_batches = 1
  train.bn_group = 0  # examples; 0: the whole batch
  train.dtype = "float32"  # "bfloat16" on TPU: activations only
  train.steps_per_call = 1  # a stream gives one batch per call
  train.eval_batch_size = 1
  train.report_epochs = 1.0
  train.patience_epochs = 0.0
  train.checkpoint_seconds = 600.0
  return train


def _data() -> ml_collections.ConfigDict:
  """Pictures with boxes, and how they are scaled."""
  data = ml_collections.ConfigDict()
  data.source = "voc"
  data.data_dir = placeholder(str)
  # Of the source; what is None is left to it.
  data.options = ml_collections.ConfigDict()
  data.options.path = placeholder(str)
  data.options.train_split = placeholder(str)
  data.options.valid_split = placeholder(str)  # scored at each point
  data.options.test_split = placeholder(str)
  data.options.class_names = placeholder(tuple)
  data.options.note = placeholder(str)
  data.sizes = ml_collections.ConfigDict()
  # Ren et al. 2015: the shorter side 600, the longer at most 1000.
  data.sizes.buckets = ((608, 1008), (1008, 608))
  data.sizes.stretch = False
  data.sizes.shorter = 600
  data.sizes.longer = 1000
  data.sizes.jitter = (1.0, 1.0)  # factors of scale
  data.sizes.flip = True
  data.sizes.max_boxes = 100
  data.stream = ml_collections.ConfigDict()
  data.stream.workers = 4  # processes that decode; 0: threads
  data.stream.max_broken = 0  # images that may be replaced
  return data
