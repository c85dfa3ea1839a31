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
          network.stem=imagenet; --config.model.genotype=runs/search
          takes the cells that a search found, from nothing. `:tiny`, on a row
          of blocks, is for minutes.
Hardware: `:bccd`: two CPU cores.
Result:   `:bccd` at half its size: docs/results/detection_bccd; nothing is
          claimed of the rest.
"""

from nasnet_jax import fields

_VARIANTS = ("", "bccd", "tiny")


def get_config(variant: str = ""):
  """The config; see above for "bccd" and "tiny"."""
  if variant not in _VARIANTS:
    raise ValueError(
      f"detect_voc has no variant {variant!r}, only: {', '.join(_VARIANTS[1:])}"
    )
  config = fields.jobs.detection(
    fields.networks.backbone(),
    fields.pictures.detector(),
    fields.recipes.detection(),
    fields.pictures.voc(),
  )
  config.train.epochs = 20  # ours
  config.train.decay_at = (12.0, 16.0)  # ours
  if variant:
    _make_bccd(config)
  if variant == "tiny":
    _make_tiny(config)
  return config


def _make_bccd(config):
  """Cells are 40 to 250 pixels wide, platelets 20 to 40; halved here."""
  network, detector, train = config.network, config.detector, config.train
  config.model.genotype = "nasnet_a"
  network.num_cells = 1
  network.features = network.stem_features = 16
  network.init = "fan_in"
  network.bn_decay = 0.9  # few steps, so faster ones
  detector.bn_frozen = False
  detector.anchors.base = 64.0
  detector.rpn_features = 64
  detector.proposals = 100
  detector.crop = "align"
  detector.crop_size = 7
  detector.box_batch = 32
  detector.truth_as_proposals = True
  train.epochs = 30
  train.batch_size = train.eval_batch_size = 4
  train.learning_rate = 0.02
  train.schedule = "cosine"
  train.warmup_epochs = 1.0
  train.weight_decay = 1e-4
  train.report_epochs = 5.0
  train.checkpoint_seconds = 60.0
  _set_sides(config.data, ((240, 320),))
  config.data.sizes.jitter = (0.8, 1.25)
  config.data.stream.workers = 0


def _make_tiny(config):
  config.model.genotype = "mobilenet_v1"
  config.network = fields.networks.block_backbone()
  config.network.width = 0.125
  config.network.init = "fan_in"
  config.network.bn_decay = 0.9  # few steps, so faster ones
  config.detector.anchors.base = 32.0
  config.detector.rpn_features = 16
  config.detector.proposals = 20
  config.detector.box_batch = 8
  config.train.epochs = 2
  config.train.report_epochs = 1.0
  config.train.checkpoint_seconds = 0.0
  _set_sides(config.data, ((96, 128), (128, 96)))


def _set_sides(data, buckets):
  data.sizes.buckets = buckets
  data.sizes.shorter, data.sizes.longer = min(buckets[0]), max(buckets[0])
