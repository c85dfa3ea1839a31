"""Faster R-CNN on NASNet-A for COCO, at the three settings of the paper.

Paper:    Zoph et al. 2018 (arXiv 1707.07012), table 4: NASNet-A (4 @ 1056) at
          600x600, the default, 29.6 mAP on their mini-val; `:large_800`,
          NASNet-A (6 @ 4032) at 800x800, 40.7 on test-dev; `:large_1200`, 43.1.
          The numbers below are those of faster_rcnn_nas_coco in the TF Object
          Detection API where no other source stands.
Data:     COCO 2017 in its own layout, --config.data.data_dir=COCO with
          annotations/, train2017/ and val2017/; or prepared by tfds,
          --config.data.source=tfds. The paper trained on train and val minus
          8,000 images; train2017 is nearly that.
Command:  python launch/main.py --config=configs/detect_coco.py \\
            --config.model.checkpoint=runs/imagenet \\
            --config.data.data_dir=COCO --workdir=runs/detect_coco
          The checkpoint is the folder of a finished training or import of the
          network (docs/weights.md), which gives its sizes. Without one, say
          --config.model.genotype=nasnet_a --config.detector.bn_frozen=False to
          start from nothing. `:tiny` does, and is for minutes.
Hardware: batch 1 per device in the original; meant for a TPU slice with
          --config.mesh.data=N and a batch and learning rate to match. Not run
          by us.
Result:   nothing is claimed here.
"""

import ml_collections
from ml_collections.config_dict import placeholder

_SIDES = {"": 600, "large_800": 800, "large_1200": 1200, "tiny": 96}


def get_config(variant: str = "") -> ml_collections.ConfigDict:
  """The config; see above for "large_800", "large_1200", "tiny"."""
  if variant not in _SIDES:
    raise ValueError(
      f"detect_coco has no variant {variant!r}, only:"
      f" {', '.join(filter(None, _SIDES))}"
    )
  large = variant.startswith("large")
  config = ml_collections.ConfigDict()
  config.job = "detect"
  config.model = ml_collections.ConfigDict()
  config.model.genotype = ""  # without a checkpoint: cells, or a result.json
  config.model.checkpoint = ""  # folder of a trained classifier: say which
  config.network = _network(large)
  config.detector = _detector(large)
  config.train = _train(large)
  config.data = _data(_SIDES[variant])
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
  config.model.genotype = "nasnet_a"
  config.network.num_cells = 1
  config.network.features = 4
  config.network.stem_features = 8
  config.network.bn_decay = 0.9  # few steps, so faster ones
  config.detector.bn_frozen = False
  config.detector.rpn_features = 16
  config.detector.proposals = 20
  config.detector.crop_size = 7
  config.detector.box_batch = 16
  config.detector.truth_as_proposals = True
  config.detector.anchors.base = 64.0
  config.train.epochs = 1
  config.train.batch_size = 10
  config.train.eval_batch_size = 10
  config.train.schedule = "constant"
  config.train.checkpoint_seconds = 0.0
  config.data.stream.workers = 0


def _network(large: bool) -> ml_collections.ConfigDict:
  """Sizes of the backbone, where no checkpoint gives them; Zoph et al. 2018,
  tables 2 and 3, and slim's nasnet.py."""
  network = ml_collections.ConfigDict()
  network.num_cells = 6 if large else 4
  network.features = 168 if large else 44
  network.stem = "imagenet"
  network.stem_features = 96 if large else 32
  network.num_reductions = 2
  network.layout = "nasnet"
  network.skip_reduction = large
  network.remat = large  # of a checkpoint's network, too
  network.init = "fan_out"
  network.bn_decay = 0.9997
  network.bn_epsilon = 1e-3
  return network


def _detector(large: bool) -> ml_collections.ConfigDict:
  """See `nasnet_jax.detection.detector.DetectorConfig`."""
  detector = ml_collections.ConfigDict()
  detector.bn_frozen = True  # batch_norm_trainable: false
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
  detector.proposals = 500 if large else 300  # Zoph et al. 2018: 300 to 500
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
  detector.chunk = 16 if large else 0  # crops at once; 0: all
  detector.final_iou = 0.6
  detector.least_score = 0.0
  detector.per_class = 100
  detector.total = 100
  return detector


def _train(large: bool) -> ml_collections.ConfigDict:
  """The recipe."""
  train = ml_collections.ConfigDict()
  train.seed = 0
  train.epochs = 12  # ours: past both falls of the rate
  train.batch_size = 1
  train.optimizer = "momentum"
  train.momentum = 0.9
  train.rms_decay = 0.9  # of rmsprop only
  train.rms_epsilon = 1.0  # of rmsprop only
  train.learning_rate = 3e-4
  train.schedule = "piecewise"
  train.warmup_epochs = 0.0
  train.decay_factor = 0.1
  train.decay_at = (7.61, 10.15)  # 900,000 and 1,200,000 steps of train2017
  train.weight_decay = 0.0
  train.clip_norm = 10.0
  train.drop_path_keep = 0.7 if large else 1.0  # slim, as in classification
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


def _data(side: int) -> ml_collections.ConfigDict:
  """Pictures with boxes, and how they are scaled."""
  data = ml_collections.ConfigDict()
  data.source = "coco"  # or "tfds"
  data.data_dir = placeholder(str)
  # Of the source; what is None is left to it.
  data.options = ml_collections.ConfigDict()
  data.options.path = placeholder(str)  # of coco
  data.options.name = placeholder(str)  # of tfds
  data.options.train_split = placeholder(str)
  data.options.valid_split = placeholder(str)  # scored at each point
  data.options.test_split = placeholder(str)
  data.options.note = placeholder(str)
  data.sizes = ml_collections.ConfigDict()
  data.sizes.buckets = ((side, side),)
  data.sizes.stretch = True  # as the original's fixed 1200x1200; see also
  data.sizes.shorter = side  # these two, which keep a picture's shape
  data.sizes.longer = side
  data.sizes.jitter = (1.0, 1.0)  # factors of scale
  data.sizes.flip = True
  data.sizes.max_boxes = 100
  data.stream = ml_collections.ConfigDict()
  data.stream.workers = 8  # processes that decode; 0: threads
  data.stream.max_broken = 10  # images that may be replaced
  return data
