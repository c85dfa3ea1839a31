"""The pictures that an exported network is calibrated with and compared on.

`source` is an `artifact.Source` throughout.
"""

import collections
import logging
import pathlib

import numpy as np

from nasnet_jax.data import image_data
from nasnet_jax.data.image_data import DataError
from nasnet_jax.detection import picture_stream
from nasnet_jax.jobs import detect, predict_boxes, preparation, results
from nasnet_jax.training import datasets

_log = logging.getLogger(__name__)
NUM_EXAMPLES = 8
BATCHES = (1, 3, 8)  # in one of which a fixed batch would fail


def is_detector(result) -> bool:
  return result.get("job") == "detect"


def read_images(source, paths, count: int) -> np.ndarray:
  """uint8[N, H, W, C] of `count` of the image files and folders, or of all, as
  evaluation reads them; a detector's, whose sides differ, at the largest side
  that it was trained at. Every folder gives as many, evenly picked. A broken
  one is said and skipped.

  Raises:
    DataError: if none can be read.
  """
  files = preparation.find_images(paths)
  picked = of_every_folder(files, count)
  read = _detectors_reader(source) if is_detector(source.result) else None
  found = []
  for file in picked:
    try:
      found.append(
        read(file) if read else preparation.read(source.result, file)
      )
    except DataError as error:
      _log.warning("%s: skipped", error)
  if not found:
    raise DataError(
      f"none of the {len(picked)} images picked of {', '.join(map(str, paths))}"
      " can be read: give others"
    )
  if len(files) > len(picked):
    _log.info("%d of %d images are taken, evenly", len(found), len(files))
  return np.stack(found)


def of_every_folder(files: list[pathlib.Path], count: int):
  """At most `count` of the files in their order: as many of each folder, which
  are the classes of most sets, as it has and the others leave; if there are
  more folders than that, of as many folders."""
  folders = collections.defaultdict(list)
  for index, file in enumerate(files):
    folders[file.parent].append(index)
  every = list(folders.values())
  every = [every[i] for i in image_data.evenly(len(every), count)]
  left, picked = count, []
  small_first = sorted(every, key=len)
  for done, folder in enumerate(small_first):
    some = image_data.evenly(len(folder), left // (len(every) - done))
    left -= len(some)
    picked += [folder[i] for i in some]
  return [files[i] for i in sorted(picked)]


def _detectors_reader(source):
  """path -> uint8[H, W, 3] at the largest side of a detector's training."""
  sizes = detect.make_sizes(source.result["data"]["load"]["sizes"])

  def read(path) -> np.ndarray:
    content = preparation.content_of(path)
    picture = picture_stream.decode(str(path), content)
    return predict_boxes.padded(picture, sizes, 1, source.image_shape[:2])[0]

  return read


def labelled(
  source, count: int = 1000
) -> tuple[np.ndarray, np.ndarray | None, str]:
  """(pixels uint8[N, H, W, C], labels int[N], what they are): images of the
  user's, or of the run's test images, evenly picked; else random ones. The
  former and the latter without labels."""
  options, result = source.options, source.result
  if options.images:
    found = read_images(source, options.images, count)
    return found, None, "images of yours"
  try:
    if is_detector(result):
      raise DataError("a detector's pictures are of many sides: give --images")
    data = results.test_images(result, options.data_dir)
    pixels, labels = _evenly(data, count)
  except (DataError, OSError) as error:
    if options.data_dir is not None:  # asked for, so nothing else will do
      raise
    shape = (min(count, NUM_EXAMPLES), *source.image_shape)
    made = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    return made, None, f"images of random pixels, because {error}"
  return pixels, labels, f"test images of {result['data']['name']}"


def _evenly(data: datasets.Data, count: int) -> tuple[np.ndarray, np.ndarray]:
  """Images and labels of a test set, which may lie there class by class."""
  if not isinstance(data, datasets.Images):
    return data.evenly(count)
  some = image_data.evenly(data.num_images, count)
  return tuple(np.asarray(part)[some] for part in data)


def as_input(
  source, pixels: np.ndarray, channels_first: bool = False
) -> np.ndarray:
  """Pixels as the exported network takes them."""
  if not source.options.preprocess:
    pixels = pixels.astype(np.float32) * source.factor + source.offset
  if channels_first:
    pixels = pixels.transpose(0, 3, 1, 2)
  return np.ascontiguousarray(pixels)


def as_output(answer: np.ndarray, channels_first: bool) -> np.ndarray:
  """Our answer as the exported network gives it: maps have channels, too."""
  if channels_first and answer.ndim == 4:
    return np.ascontiguousarray(answer.transpose(0, 3, 1, 2))
  return answer


def cases(source, pixels: np.ndarray) -> dict[str, np.ndarray]:
  """{name: uint8[N, H, W, C]}: several batches, at two sides; of a network of
  one shape all images in batches of it."""
  if source.fixed:
    size, *_ = source.fixed
    return {
      f"batch from image {start}": _batch(source, pixels, start)
      for start in range(0, len(pixels), size)
    }
  count = len(pixels)
  found = {f"batch {n}": pixels[np.arange(n) % count] for n in BATCHES}
  h, w, _ = source.image_shape
  for side in source.options.sides or ((h + 3, w + 6),):
    if side != (h, w):
      found[f"{side[0]}x{side[1]}"] = resized(pixels[:2], side)
  return found


def examples(source, pixels: np.ndarray) -> np.ndarray:
  """What goes into examples.npz: the images, or a batch of the one shape."""
  return _batch(source, pixels, 0) if source.fixed else pixels


def _batch(source, pixels: np.ndarray, start: int) -> np.ndarray:
  """A batch of the one shape, from an image on; from the first again after the
  last."""
  size, *side = source.fixed
  return resized(pixels[(start + np.arange(size)) % len(pixels)], tuple(side))


def resized(pixels: np.ndarray, side: tuple[int, int]) -> np.ndarray:
  """The images at another side, each pixel the nearest one."""
  rows, columns = (
    np.arange(new) * old // new for new, old in zip(side, pixels.shape[1:3])
  )
  return pixels[:, rows][:, :, columns]
