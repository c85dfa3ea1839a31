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

from nasnet_jax import fields

_SIDES = {"": 600, "large_800": 800, "large_1200": 1200, "tiny": 96}


def get_config(variant: str = ""):
  """The config; see above for "large_800", "large_1200", "tiny"."""
  if variant not in _SIDES:
    raise ValueError(
      f"detect_coco has no variant {variant!r}, only:"
      f" {', '.join(filter(None, _SIDES))}"
    )
  large = variant.startswith("large")
  config = fields.jobs.detection(
    fields.networks.backbone(large),
    fields.pictures.detector(large),
    fields.recipes.detection(large),
    fields.pictures.coco(_SIDES[variant]),
  )
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
