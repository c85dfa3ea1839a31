"""The trained network of a run, rebuilt from its `result.json` and its weights.

Searches and trainings write the same files, so both are read here.
"""

import dataclasses
import functools
import json
import pathlib
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nasnet_jax import __version__, spaces, zoo
from nasnet_jax import data as image_sources
from nasnet_jax.data import arrays, augment, paths, places
from nasnet_jax.jobs import architectures, job_config, published
from nasnet_jax.models import families
from nasnet_jax.models.layers import Numerics
from nasnet_jax.report import runs
from nasnet_jax.spaces.blocks import BLOCKS
from nasnet_jax.training import (
  checkpoint,
  datasets,
  evaluation,
  fit,
  own_parts,
  recipes,
  workdir,
)

CONFIG, RESULT, WEIGHTS = "config.json", "result.json", "final/weights"
HEADS = ("classifier", "aux_head")  # modules that know the classes


class Trained(NamedTuple):
  """A trained network.

  Attributes:
    network: a module, see `models.families`.
    variables: {"params", "batch_stats"} as `network.apply` reads them.
    augmentation: how its images were whitened and varied.
    result: all of result.json.
    folder: where it was found.
  """

  network: nn.Module
  variables: dict[str, Any]
  augmentation: augment.Augmentation
  result: dict[str, Any]
  folder: pathlib.Path

  def __repr__(self) -> str:
    """A line; the weights alone would fill pages."""
    data = self.result.get("data", {})
    side = "x".join(map(str, data.get("image_shape", "?")))
    numbers = sum(x.size for x in jax.tree.leaves(self.variables["params"]))
    return (
      f"<{type(self).__name__} {self.folder}: images {side},"
      f" {len(data.get('classes', ()))} classes, {numbers:,} parameters>"
    )

  def predict(self, images) -> jax.Array:
    """f32[N, classes], logits of images uint8[N, H, W, C], or floats of 0..1.

    Raises:
      DataError: one line, for images of another kind or number of channels.
    """
    if not isinstance(images, jax.core.Tracer):
      images = arrays.as_pixels("images", images)
    arrays.check_fit("images", images.shape, self.result["data"])
    whitened = augment.normalise(jnp.asarray(images), self.augmentation)
    return _logits(self.network, self.variables, whitened)


@functools.partial(jax.jit, static_argnums=0)
def _logits(network, variables, whitened):
  """One program for each size of a batch: operation by operation it takes
  hundreds, and many times as long to compile."""
  return network.apply(variables, whitened, train=False)[0]


def load(run_dir) -> Trained:
  """Rebuilds the network of a finished run, wherever its folder lies now.

  Raises:
    WorkdirError: if there is no finished run of a classifier; the line names
      the command that fits.
    CheckpointError: if the weights are damaged or of another network.
  """
  folder = places.fetched(run_dir)
  result = read_result(folder)
  _check_classifier(folder, result)
  own_parts.need(result)
  network = build(result)
  aug = augmentation_of(result)
  template = template_of(network, result["data"]["image_shape"])
  variables = checkpoint.read(folder / WEIGHTS, template)
  return Trained(network, variables, aug, result, folder)


def augmentation_of(result: dict[str, Any]) -> augment.Augmentation:
  """How images were whitened and varied."""
  aug = result["augmentation"]
  return augment.Augmentation(
    **{**aug, "mean": tuple(aug["mean"]), "std": tuple(aug["std"])}
  )


def save(
  run_dir,
  name: str,
  network: nn.Module,
  variables: dict[str, Any],
  *,
  class_names=None,
  augmentation: augment.Augmentation | None = None,
  center: float | None = None,
  side: int | None = None,
):
  """Writes weights that were trained elsewhere as a finished run's folder.

  `load` reads it and fine-tuning can start from it. It has no test result.

  Args:
    run_dir: the folder; made if it is not there.
    name: key of `zoo.cells.NETWORKS` or `zoo.blocks.NETWORKS`, for the
      architecture and the side of images.
    network, variables: as a reader of `export` gives them.
    class_names: in the order of the logits; None: ImageNet's where there are
      as many, else their numbers.
    augmentation: how images are whitened; None: as for the weights that were
      released with this network, see `published.of`.
    center: share of a picture's shorter side that evaluation looks at; None:
      as there, or, where nothing is known, the whole picture.
    side: of the square images, in pixels; None: the published one.

  Raises:
    ValueError: one line: the cells are not those of `name`, names and classes
      differ in number, nobody knows how images are whitened, or the folder has
      a run.
    CheckpointError: listing variables that are not the network's.
  """
  _check_free(run_dir)
  result = describe(
    name, network, class_names, augmentation, center=center, side=side
  )
  write(run_dir, variables, network, result)


def write(run_dir, variables, network: nn.Module, result: dict[str, Any]):
  """Writes the folder of a run from weights and what `describe` says of them.

  Raises:
    ValueError: if the folder has a run.
    CheckpointError: listing variables that are not the network's.
  """
  template = template_of(network, result["data"]["image_shape"])
  checkpoint.compare("weights", variables, template)
  with places.sent(run_dir) as folder:
    _check_free(folder)
    checkpoint.write(folder / WEIGHTS, variables)
    workdir.write_json(folder / RESULT, result)


def _check_free(run_dir) -> pathlib.Path:
  folder = places.of_run(run_dir)
  if (folder / RESULT).exists():
    raise ValueError(f"{folder} has a run already: take another folder")
  return folder


def describe(
  name: str,
  network: nn.Module,
  class_names=None,
  augmentation: augment.Augmentation | None = None,
  *,
  center: float | None = None,
  side: int | None = None,
) -> dict[str, Any]:
  """What result.json says of a published network; arguments as in `save`."""
  config = network.config
  space, genotype = find_cells(cells_of(name))
  known = isinstance(config, families.of(space).config)
  if not known or network != families.network(space, genotype, config):
    raise ValueError(f"the network's cells are not those of {name}")
  published.check_sizes(name, config)
  if class_names is None:
    class_names = _default_names(name, config.num_classes)
  if len(class_names) != config.num_classes:
    raise ValueError(
      f"{len(class_names)} class_names are given for a network of"
      f" {config.num_classes} classes"
    )
  prepared = published.of(name, augmentation, side, center)
  return {
    "version": __version__,
    "job": "import",
    "space": space.name,
    "space_options": space.options,
    "winner": {"genotype": space.to_json(genotype)},
    "network": describe_network(config),
    "augmentation": dataclasses.asdict(prepared.augmentation),
    "data": {
      "name": name,
      "classes": list(class_names),
      "image_shape": [prepared.side, prepared.side, 3],
      "center": prepared.center,
    },
  }


def _default_names(name: str, count: int) -> list[str]:
  names = zoo.imagenet.names()
  if count == len(names) and not name.endswith("_cifar"):
    return list(names)
  return [str(i) for i in range(count)]


def cells_of(name: str) -> str:
  """What `find_cells` knows of a published network."""
  if name in zoo.blocks.NETWORKS:
    return zoo.blocks.network(name).architecture
  return zoo.cells.network(name).cells


def read_result(folder) -> dict[str, Any]:
  """result.json; WorkdirError if there is none, or it is damaged."""
  folder = places.fetched(folder)
  path = folder / RESULT
  if path.exists():
    return workdir.read_json(path)
  text = runs.why_no_run(folder, RESULT)
  if (folder / CONFIG).exists():
    text = (
      f"the run in {folder} has not finished: there is no {RESULT} yet; the"
      " command that started it goes on with it"
    )
  raise workdir.WorkdirError(text)


def job_of(result: dict[str, Any]) -> str:
  """What wrote a result: "search", "train", "scale", "detect", "import"."""
  return result.get("job", "search")  # searches do not say


def _check_classifier(folder, result: dict[str, Any]):
  """Raises WorkdirError for a run that left no classifier."""
  job = job_of(result)
  if job == "detect":
    raise workdir.WorkdirError(
      f"{folder} holds a detector, which tells no classes of pictures apart:"
      f" nasnet-jax detect --checkpoint={folder} PICTURES finds things on them"
    )
  if job == "scale":
    raise workdir.WorkdirError(
      f"{folder} compares sizes of a network and keeps no weights: train the"
      f" size that it chose, see nasnet-jax report {folder}"
    )


def build(result: dict[str, Any]) -> nn.Module:
  """The network that a result describes, without weights."""
  space, genotype = _cells_in(result)
  config = network_config(result["network"], space)
  return families.network(space, genotype, config)


def _cells_in(result: dict[str, Any]):
  space = spaces.get(result["space"], **result["space_options"])
  return space, space.from_json(result["winner"]["genotype"])


def find_cells(name: str):
  """(space, genotype) of published cells or blocks, of a run's winner, of any
  child of a search, or in a file.

  Args:
    name: a key of `zoo.cells.CELLS` or `zoo.blocks.ARCHITECTURES`; the path of
      a run's folder or of its result.json; RUN#12 or RUN#2nd, see
      `architectures.child_of`; or the path of a genotype's JSON.

  Raises:
    ValueError: if it is none of these, in one line.
  """
  if name in zoo.cells.CELLS:
    return zoo.cells.CELLS[name][0], zoo.cells.genotype(name)
  if name in zoo.blocks.ARCHITECTURES:
    return BLOCKS, zoo.blocks.architecture(name)
  run, mark, which = str(name).rpartition("#")
  if mark and not pathlib.Path(paths.expanded(name)).exists():
    return architectures.child_of(run, which)
  path = places.fetched(name)
  if path.is_dir():
    _check_finished(path)
    path = path / RESULT
  try:
    data = json.loads(path.read_text())
    is_result = "winner" in data
    return _cells_in(data) if is_result else architectures.of_json(data)
  except OSError:
    raise ValueError(
      f"{name!r} is neither a published cell ({', '.join(zoo.cells.CELLS)}),"
      " nor an architecture of blocks"
      f" ({', '.join(zoo.blocks.ARCHITECTURES)}), nor the path of a run, of a"
      " result.json or of a genotype's JSON"
    ) from None
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise ValueError(
      f"{path} has no cells of ours: {error}{_instead_of(path)}"
    ) from None


def _instead_of(path: pathlib.Path) -> str:
  """A hint, for another file of a search."""
  if not (path.parent / runs.HISTORY).exists():
    return ""
  return (
    f"; {path.parent}#12 takes child 12 of that run, {path.parent}#1st its best"
  )


def _check_finished(folder: pathlib.Path):
  """Raises ValueError for a search that has no winner yet."""
  if (folder / CONFIG).exists() and not (folder / RESULT).exists():
    raise ValueError(
      f"the run in {folder} has not finished: {folder}#1st takes its best child"
      f" so far, {folder}#12 child 12"
    )


def network_config(fields: dict[str, Any], space):
  """The inverse of `describe_network`, for a network of that space."""
  numerics = Numerics(**fields["numerics"])
  return families.of(space).config(**{**fields, "numerics": numerics})


def describe_network(config) -> dict[str, Any]:
  """A family's config as JSON can hold it."""
  fields = dataclasses.asdict(config)
  fields["numerics"].pop("dtype")  # evaluation and weights are float32
  # Of training only.
  for name in ("bn_axis", "bn_parts", "bn_frozen", "kernels"):
    fields["numerics"].pop(name)
  return fields


def template_of(network, image_shape) -> dict[str, Any]:
  """Zeros in the shapes of the network's variables."""
  state = jax.eval_shape(
    lambda: fit.init_state(network, recipes.Recipe(), tuple(image_shape), 1, 0)
  )
  return jax.tree.map(
    lambda x: np.zeros(x.shape, x.dtype), fit.variables_of(state)
  )


def test_images(result: dict[str, Any], data_dir=None) -> datasets.Data:
  """The test split that a result is about, read again from its source.

  Args:
    data_dir: where the data is now, see `paths.relocated`; None: where it was
      during the run.

  Raises:
    DataError: if it cannot be read, or has changed since.
  """
  if "load" not in result["data"]:
    raise image_sources.DataError(
      "the network was trained elsewhere, so it has no test set of its own:"
      " give --images, a folder of class folders"
    )
  arguments = dict(result["data"]["load"])
  if data_dir is None:
    paths.check_there(arguments)
  else:
    if arguments["source"] != "tfds":
      data_dir = places.fetched(data_dir)
    arguments = paths.relocated(arguments, data_dir)
  if "stream" in arguments:
    images, make = job_config.load_streams(**arguments)
  else:
    images = image_sources.load(**arguments)
  if images.fingerprint != result["data"]["fingerprint"]:
    raise image_sources.DataError(
      f"{images.name} is not what the run saw (its fingerprint is"
      f" {images.fingerprint}, not {result['data']['fingerprint']})"
    )
  if "stream" in arguments:
    return make(images.test)
  return datasets.on_device(
    datasets.Images(images.test_images, images.test_labels)
  )


def evaluate(found: Trained, images: datasets.Data) -> evaluation.Score:
  """The score on a test set, by the same program as during the run; by class,
  too, if the result has their mean."""
  count = evaluation.make_evaluate(
    found.network,
    found.augmentation,
    found.result["eval_batch_size"],
    by_class="test_mean_per_class" in found.result,
  )
  return count(found.variables, images)


def check_channels(found: Trained, name: str, channels: int):
  """Raises ValueError if images of this name have other channels than those
  that the network was trained on."""
  wanted = found.result["data"]["image_shape"][2]
  if wanted != channels:
    raise ValueError(
      f"{found.folder} was trained on images of {wanted} channel(s), and those"
      f" of {name} have {channels}: set data.options.channels to {wanted} where"
      " data.source is 'folder', or take another checkpoint"
    )


def transfer(found: Trained, *, keep_head: bool):
  """(variables) -> variables that start from the trained ones.

  Args:
    keep_head: whether the classifier is taken, too; if not, it and the
      auxiliary head keep their initial values.

  Raises (the function returned):
    CheckpointError: naming what is missing, unexpected or of another shape.
  """
  new = () if keep_head else HEADS

  def start(variables):
    result = {}
    for collection, wanted in variables.items():
      have = dict(found.variables[collection])
      # A trained network may lack an auxiliary head, or have an unwanted one.
      for name in HEADS:
        if name in new or name not in wanted:
          have.pop(name, None)
      fresh = {k: v for k, v in wanted.items() if k in new}
      rest = {k: v for k, v in wanted.items() if k not in new}
      checkpoint.compare(f"{found.folder} ({collection})", have, rest)
      result[collection] = {**jax.tree.map(jnp.asarray, have), **fresh}
    return result

  return start
