"""Pictures with boxes that stay on disk: COCO JSON, VOC XML, YOLO's text files,
sets of TensorFlow Datasets.

What is opened here holds every box and knows where each encoded image lies;
`detection.picture_stream` reads, decodes and scales it, in other processes.
"""

import inspect

from nasnet_jax.data import image_data, places
from nasnet_jax.data.image_data import DataError
from nasnet_jax.detection import remarks
from nasnet_jax.detection.annotations import (
  Annotation,
  Contents,
  Files,
  Pictures,
  Splits,
)
from nasnet_jax.detection.coco_json import open_coco
from nasnet_jax.detection.tfds_boxes import open_tfds
from nasnet_jax.detection.voc_xml import open_voc
from nasnet_jax.detection.yolo_text import open_yolo

__all__ = [
  "SOURCES",
  "Annotation",
  "Contents",
  "Files",
  "Pictures",
  "Splits",
  "load",
]

SOURCES = {
  "coco": open_coco,
  "voc": open_voc,
  "yolo": open_yolo,
  "tfds": open_tfds,
}


def load(source: str, *, data_dir=None, **options) -> Splits:
  """Opens a source.

  Args:
    source: a key of `SOURCES`.
    data_dir: where files lie.
    **options: the source's own.

  Raises:
    DataError: one line that names the fix.
  """
  if source not in SOURCES:
    hint = image_data.nearest(source, SOURCES)
    raise DataError(f"no source of boxes {source!r}: {hint}")
  opener = SOURCES[source]
  parameters = inspect.signature(opener).parameters.values()
  known = [p.name for p in parameters if p.kind == p.KEYWORD_ONLY]
  for option in options:
    if option not in known:
      raise DataError(
        f"boxes of {source!r} have no option {option!r}:"
        f" {image_data.nearest(option, known)}"
      )
  if data_dir is not None:  # tfds knows more than paths
    data_dir = places.of_source(source, data_dir)
  found = opener(data_dir, **options)
  remarks.tell(found)
  return found
