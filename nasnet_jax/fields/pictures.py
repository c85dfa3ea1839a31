"""Detectors, and pictures with boxes to train them on."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def detector(large: bool = False) -> ConfigDict:
  """Faster R-CNN: faster_rcnn_nas_coco of the TF Object Detection API, whose
  numbers all of these are where nothing else is said. What each field means:
  `nasnet_jax.detection.detector.DetectorConfig`."""
  detector = ConfigDict()
  detector.bn_frozen = True  # batch_norm_trainable: false
  detector.anchors = ConfigDict()
  detector.anchors.base = 256.0  # pixels
  detector.anchors.scales = (0.25, 0.5, 1.0, 2.0)
  detector.anchors.ratios = (0.5, 1.0, 2.0)
  detector.rpn_features = 512
  detector.rpn_positive = 0.7  # from this overlap on
  detector.rpn_negative = 0.3  # below this overlap
  detector.rpn_batch = 256  # anchors per picture that are learnt from
  detector.rpn_share = 0.5  # of positive ones, at most
  detector.rpn_box_weight = 2.0
  detector.rpn_class_weight = 1.0
  detector.proposals = 500 if large else 300  # Zoph et al. 2018: 300 to 500
  detector.proposal_iou = 0.7
  detector.truth_as_proposals = False
  detector.crop = "resize"  # or "align"
  detector.crop_size = 17
  detector.crop_pool = 1
  detector.box_batch = 64  # proposals per picture that are learnt from
  detector.box_share = 0.25  # of positive ones, at most
  detector.box_positive = 0.5  # from this overlap on
  detector.box_weight = 2.0
  detector.class_weight = 1.0
  detector.chunk = 16 if large else 0  # crops at once; 0: all
  detector.final_iou = 0.6
  detector.least_score = 0.0
  detector.per_class = 100
  detector.total = 100
  return detector


def coco(side: int) -> ConfigDict:
  """COCO 2017, scaled to a square as the original's fixed 1200x1200.

  Args:
    side: of the square.
  """
  data = _pictures("coco")  # or "voc", "yolo", "tfds"
  data.sizes.buckets = ((side, side),)  # Zoph et al. 2018, table 4
  data.sizes.stretch = True  # to the bucket; False keeps a picture's shape
  data.sizes.shorter = side  # where nothing is stretched
  data.sizes.longer = side  # where nothing is stretched
  data.stream.workers = 8  # processes that decode; 0: threads
  data.stream.max_broken = 10  # images that may be replaced
  return data


def voc() -> ConfigDict:
  """A set in Pascal VOC's layout, at the size of Ren et al. 2015."""
  data = _pictures("voc")  # or "coco", "yolo", "tfds"
  data.sizes.buckets = ((608, 1008), (1008, 608))  # height, width
  data.sizes.stretch = False  # True: to the bucket, whatever its shape
  data.sizes.shorter = 600  # Ren et al. 2015
  data.sizes.longer = 1000  # at most, Ren et al. 2015
  data.stream.workers = 4  # processes that decode; 0: threads
  data.stream.max_broken = 0  # images that may be replaced
  return data


def _pictures(source: str) -> ConfigDict:
  data = ConfigDict()
  data.source = source
  data.data_dir = placeholder(str)  # where files lie
  # Of the source; what is None is left to it.
  data.options = ConfigDict()
  data.options.path = placeholder(str)  # of files, inside of data_dir
  data.options.name = placeholder(str)  # of tfds; None: coco/2017
  data.options.train_split = placeholder(str)
  data.options.valid_split = placeholder(str)  # scored at each point
  data.options.test_split = placeholder(str)
  data.options.class_names = placeholder(tuple)  # of voc, yolo; None: as found
  data.options.images = placeholder(str)  # folder of coco's pictures
  data.options.test_fraction = placeholder(float)  # of voc, yolo without splits
  data.options.note = placeholder(str)  # stands beside each figure
  data.sizes = ConfigDict()
  data.sizes.jitter = (1.0, 1.0)  # factors of scale
  data.sizes.flip = True
  data.sizes.max_boxes = 100
  data.stream = ConfigDict()
  return data
