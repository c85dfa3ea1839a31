"""A detector on a whole split: what it finds, and how good that is."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nasnet_jax.data import augment
from nasnet_jax.detection import metrics
from nasnet_jax.detection.detector import Detector
from nasnet_jax.detection.inference import make_detect
from nasnet_jax.detection.nms import Detections
from nasnet_jax.detection.picture_stream import Stream
from nasnet_jax.training import hosts


class Score(NamedTuple):
  """How a detector did on a split.

  Attributes:
    found: what it found in each image, in the split's order.
    by_class: VOC's AP50 of each class; None for one that does not occur.
    images: how many were evaluated, without broken files.
  """

  found: tuple[metrics.Found, ...]
  by_class: list[float | None]
  images: int

  @property
  def accuracy(self) -> float:
    """VOC's AP50, by which trainings are compared."""
    return metrics.mean_ap(self.by_class)


def make_evaluate(
  network: Detector,
  aug: augment.Augmentation,
  batch_size: int,
  mesh: Mesh | None = None,
) -> Callable[[Any, Stream], Score]:
  """(variables, Stream) -> Score; each image counts once on any mesh.

  Args:
    batch_size: over all devices of the mesh's axis `data`.
    mesh: None: one device.

  Raises:
    ValueError: for a batch that does not divide.
  """
  devices = 1 if mesh is None else mesh.shape["data"]
  if batch_size % devices:
    raise ValueError(
      f"eval_batch_size {batch_size} does not divide over {devices} devices"
    )
  detect = make_detect(network, aug)
  put = np.asarray
  if devices > 1:
    divided = PartitionSpec("data")
    detect = jax.shard_map(
      detect,
      mesh=mesh,
      in_specs=(PartitionSpec(), divided, divided),
      out_specs=divided,
      check_vma=False,
    )
    put = functools.partial(
      jax.make_array_from_process_local_data, NamedSharding(mesh, divided)
    )
  program = jax.jit(detect)

  def evaluate(variables, data: Stream) -> Score:
    annotations = data.split.annotations
    found: list[metrics.Found | None] = [None] * len(annotations)
    waiting = []
    for batch in data.evaluation_batches(batch_size):
      given = program(variables, put(batch.images), put(batch.labels.side))
      waiting.append((given, batch.index, batch.counts, batch.labels.side))
      if len(waiting) > 1:  # the host decodes while the device works
        _collect(found, annotations, data, *waiting.pop(0))
    for rest in waiting:
      _collect(found, annotations, data, *rest)
    nothing = metrics.Found(
      np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, int)
    )
    images = sum(one is not None for one in found)
    found = tuple(nothing if one is None else one for one in found)
    by_class = metrics.voc_ap50(annotations, found, network.config.num_classes)
    return Score(found, by_class, images)

  return evaluate


def _collect(found, annotations, data, given: Detections, index, counts, side):
  """Puts a batch's detections at their images' places. Of many hosts, each has
  the rows that it decoded."""
  given = jax.tree.map(hosts.fetch, given)
  rows = (index, counts, side)
  index, counts, side = (np.concatenate(hosts.gather(x)) for x in rows)
  for row in np.flatnonzero(counts):
    image = int(index[row])
    if found[image] is not None:
      raise AssertionError(f"image {image} came twice")
    one = Detections(*(leaf[row] for leaf in given))
    found[image] = on_picture(one, side[row], annotations[image].side)


def on_picture(one: Detections, scaled, side) -> metrics.Found:
  """An image's detections in pixels of its picture.

  Args:
    one: of one image.
    scaled: (height, width) to which the picture was scaled.
    side: (height, width) of the picture.
  """
  valid = np.asarray(one.valid)
  boxes = np.asarray(one.boxes)[valid] * np.tile(np.divide(side, scaled), 2)
  return metrics.Found(
    boxes.astype(np.float32),
    np.asarray(one.scores)[valid],
    np.asarray(one.classes)[valid],
  )
