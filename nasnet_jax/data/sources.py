"""Sources of images by name, behind one function."""

import inspect

from nasnet_jax.data import image_data, places
from nasnet_jax.data.cifar import load_cifar10, load_cifar100
from nasnet_jax.data.digits import load_digits
from nasnet_jax.data.folder import load_folder
from nasnet_jax.data.image_data import DataError, ImageData
from nasnet_jax.data.tfds_source import load_tfds

SOURCES = {
  "digits": load_digits,
  "cifar10": load_cifar10,
  "cifar100": load_cifar100,
  "tfds": load_tfds,
  "folder": load_folder,
}


def load(
  source: str,
  *,
  data_dir=None,
  fraction: float = 1.0,
  max_per_class: int | None = None,
  seed: int = 0,
  **options,
) -> ImageData:
  """Images and labels of any source, checked, in memory.

  Args:
    source: a key of `SOURCES`.
    data_dir: where files lie; what it holds is up to the source.
    fraction: share of each class to keep, in both splits.
    max_per_class: at most so many images of each class, in each split.
    seed: of every random choice: the test split of a source that has none,
      and which images a smaller share keeps.
    **options: the source's own; see the function in `SOURCES`.

  Raises:
    DataError: one line that names the fix: an unknown source or option,
      missing or broken files, labels that do not fit, too few images.
  """
  if source not in SOURCES:
    hint = image_data.nearest(source, SOURCES)
    raise DataError(
      f"no data source {source!r}: {hint}; one of your own: --import=FILE"
    )
  loader = SOURCES[source]
  known = _options(loader)
  for option in options:
    if option not in known:
      hint = image_data.nearest(option, [*known, "fraction", "max_per_class"])
      raise DataError(f"source {source!r} has no option {option!r}: {hint}")
  if seed < 0:
    raise DataError(f"the seed of the images is {seed}: give 0 or more")
  if "seed" in known:
    options["seed"] = seed
  if data_dir is not None:  # tfds knows more than paths
    data_dir = places.of_source(source, data_dir)
  data = loader(data_dir, **options)
  if not isinstance(data, ImageData):
    raise DataError(
      f"source {source!r} gives {type(data).__name__}: it has to be an"
      " ImageData of nasnet_jax.data"
    )
  image_data.check_images(source, data.train_images, len(data.train_labels))
  return image_data.checked(
    image_data.limit(data, fraction, max_per_class, seed)
  )


def _options(loader) -> list[str]:
  parameters = inspect.signature(loader).parameters.values()
  return [p.name for p in parameters if p.kind == p.KEYWORD_ONLY]
