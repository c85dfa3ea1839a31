"""Values of a config that fit their field and not the images."""

import contextlib
import logging
import pathlib
from typing import Any

from nasnet_jax.data import buckets, image_data, paths, pixels, places
from nasnet_jax.data.image_data import DataError

_log = logging.getLogger(__name__)
_LOOKED_AT = 32  # photographs


def augmentation(changes: dict[str, Any], image_shape: tuple[int, int, int]):
  """Refuses augmentation that images of this shape cannot have.

  Args:
    changes: fields of config.data.augmentation that are set.
    image_shape: (H, W, C).
  """
  _whitening(changes, image_shape[2])
  _room(changes, min(image_shape[:2]))


def tell_small(records, side: int):
  """Says if photographs are scaled up to the side of images; some are looked
  at, evenly picked.

  Args:
    records: `photographs.Records`.
  """
  shorter = []
  for index in image_data.evenly(len(records), _LOOKED_AT):
    with contextlib.suppress(DataError, OSError):  # told when it is read
      content, _ = records.read(int(index))
      with pixels.opened(records.name(int(index)), content) as image:
        shorter.append(min(image.size))
  small = sum(one < side for one in shorter)
  if small > len(shorter) / 2:
    _log.warning(
      "%d of %d photographs looked at have shorter sides below %d pixels, the"
      " middle one %d: they are scaled up (data.stream.image_size)",
      *(small, len(shorter), side, sorted(shorter)[len(shorter) // 2]),
    )


def _whitening(changes: dict[str, Any], channels: int):
  """Refuses numbers per channel of other channels, or of pixels of 0..255."""
  for name in ("mean", "std"):
    values = changes.get(name)
    if values is None:
      continue
    if len(values) not in (1, channels):
      raise DataError(
        f"data.augmentation.{name} is {values}, and images have {channels}"
        f" channel(s): give one number, or {channels}"
      )
    if not all(0 <= value <= 1 for value in values):
      raise DataError(
        f"data.augmentation.{name} is {values}: pixels are scaled to 0..1"
        " before, so give numbers of 0..1 (of 0..255, divide by 255)"
      )


def _room(changes: dict[str, Any], side: int):
  """Refuses augmentation that may leave nothing of an image."""
  for name in ("pad", "cutout"):
    value = changes.get(name) or 0
    if value > side:
      raise DataError(
        f"data.augmentation.{name} is {value}, and images have {side} pixels:"
        " nothing of some would be left, give fewer"
      )


def apart(fields, folder: pathlib.Path):
  """Refuses a new run's folder inside that of its images, among which what the
  run writes would be taken for images.

  Args:
    fields: config.data.
    folder: of the run.
  """
  path = (fields.get("options") or {}).get("path")
  data_dir = fields.get("data_dir")
  if fields.source != "folder" or (path or data_dir) is None:
    return
  if any(buckets.is_address(paths.expanded(p or "")) for p in (path, data_dir)):
    return
  top = places.joined(data_dir, path)
  inside = top.is_dir() and folder.resolve().is_relative_to(top.resolve())
  if inside and not (folder / "config.json").exists():
    raise DataError(
      f"the run's folder {folder} lies in the folder of its images, {top}: what"
      " it writes would be taken for images; give another workdir"
    )
