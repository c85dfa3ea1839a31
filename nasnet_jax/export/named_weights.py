"""Trained weights for a published network, wherever they come from.

A package that downloads them, a file by whoever's names, or a run's folder.
"""

import dataclasses
import importlib
import logging
import os
import pathlib
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nasnet_jax import zoo
from nasnet_jax.data import augment, places
from nasnet_jax.export import (
  hub,
  importing,
  keras,
  keras_model,
  lite,
  tables,
  timm,
  torch_blocks,
  torch_file,
  torchvision,
)
from nasnet_jax.jobs import results
from nasnet_jax.models import families
from nasnet_jax.models.layers import IMAGENET
from nasnet_jax.training.checkpoint import CheckpointError

_log = logging.getLogger(__name__)
Augmentation = augment.Augmentation

NO_HEAD = "no_classifier"  # in the result that `read` gives
_KERAS_FILES = (".keras", ".h5", ".hdf5")
# What is not the size of a network; weights do not depend on it.
_FREE = ("num_classes", "dropout", "numerics", "aux", "remat", "scan_cells")


def network(name: str, **fields) -> nn.Module:
  """A published network, of either zoo, with the numerics of its paper.

  Args:
    **fields: of NetworkConfig or BlockConfig that differ.
  """
  if name in zoo.blocks.NETWORKS:
    return tables.published_blocks(name, **fields)
  if zoo.cells.network(name).config.get("stem") == "imagenet":
    fields = {"numerics": IMAGENET, **fields}
  return tables.published(name, **fields)


def trained(
  name: str,
  network: nn.Module,
  variables: dict[str, Any],
  source: Any,
  prepared: dict[str, Any],
) -> results.Trained:
  """A network with weights of another origin, as a run's would be.

  Args:
    prepared: `augmentation`, `side`, `center` of `results.describe`.
  """
  described = results.describe(name, network, **prepared)
  described["source"] = str(source)
  return results.Trained(
    network,
    jax.tree.map(jnp.asarray, variables),
    results.augmentation_of(described),
    described,
    pathlib.Path(name),
  )


def read(
  name: str,
  weights: Any,
  augmentation: Augmentation | None = None,
  **sizes,
) -> results.Trained:
  """A published network with trained weights, of as many classes as they know.

  Args:
    name: key of `zoo.cells.NETWORKS` or `zoo.blocks.NETWORKS`.
    weights: "keras", "timm" or "timm:NAME", through that package; an address
      on Hugging Face's hub, see `hub.fetch`; the folder of a run; a folder
      exported as torch or safetensors; a Keras model (.keras, .h5); arrays by
      our names, timm's, torchvision's or EfficientNet-PyTorch's (.safetensors,
      .npz, .pth, .pt, .bin).
    augmentation: how images are whitened, if not as with the weights released.
    **sizes: of the network, where they are not the published ones.

  Returns:
    the network; its result has NO_HEAD if the weights are without a
    classifier, which is of zeros then.

  Raises:
    ValueError: one line: no such source, or weights of another network.
    CheckpointError: weights that cannot be had, are damaged or do not fit.
  """
  if weights == "keras":
    return _through_keras(name, augmentation, sizes)
  source, _, theirs = str(weights).partition(":")
  if source == "timm":
    return _through_timm(name, theirs, augmentation, sizes)
  if str(weights).startswith(hub.PREFIX):
    return _through_hub(name, str(weights), augmentation, sizes)
  path = places.fetched(weights)
  if not path.exists():
    raise ValueError(
      f"weights is {str(weights)!r}, which is no file: give 'keras', 'timm',"
      " hub:OWNER/NAME, a file of weights, an exported folder or the folder of"
      " a run"
    )
  if path.is_dir() and not importing.is_export(path):
    return _own(name, results.load(path), path, augmentation, sizes)
  if importing.is_export(path):
    found = importing.as_trained(path)
    return _own(name, found, path, augmentation, sizes)
  if path.suffix in _KERAS_FILES:
    model = _load_keras(path)
    return _of_keras(name, model, path, augmentation, sizes)
  return _of_arrays(name, path, augmentation, sizes)


# --- ours --------------------------------------------------------------------


def _own(name, found, path, augmentation, sizes) -> results.Trained:
  """A run's network, which must be the one that is asked for."""
  space, genotype = results.find_cells(results.cells_of(name))
  config = found.network.config
  same = isinstance(config, families.of(space).config)
  if not same or families.network(space, genotype, config) != found.network:
    raise ValueError(
      f"{path} has another network than {name}: nasnet_jax.load takes a run's"
      " as it is"
    )
  _check_sizes(name, config, path, sizes)
  # What may differ is as it was asked for, else as in the run.
  free = {k: v for k, v in sizes.items() if k in _FREE}
  config = dataclasses.replace(config, **free)
  result = {**found.result, "network": results.describe_network(config)}
  whitening = augmentation or found.augmentation
  result["augmentation"] = dataclasses.asdict(whitening)
  return found._replace(
    network=found.network.clone(config=config),
    augmentation=whitening,
    result=result,
  )


def _check_sizes(name, config, source, sizes):
  """Raises ValueError for weights of a network of other sizes."""
  wanted = network(name, **sizes).config
  for field in dataclasses.fields(config):
    have, want = getattr(config, field.name), getattr(wanted, field.name)
    if field.name not in _FREE and have != want:
      raise ValueError(
        f"{source} has {field.name} {have!r} and {name} {want!r}: pass"
        f" {field.name}={have!r}, or take other weights"
      )


# --- through a package -------------------------------------------------------


def _package(name: str) -> Any:
  try:
    return importlib.import_module(name)
  except ImportError:
    raise CheckpointError(
      f"weights={name!r} takes the package {name}, which is not there: pip"
      f" install {name}, or give a file of weights"
    ) from None


def _downloaded(source: str, make: Callable[[], Any]) -> Any:
  """What a package made; CheckpointError, in a line, if it could not."""
  try:
    return make()
  except Exception as error:  # each package has its own
    first = str(error).strip().splitlines() or [type(error).__name__]
    raise CheckpointError(
      f"{source} could not give its weights ({first[0]}): is there a network?"
      " Else fetch them elsewhere, and give the file as weights="
    ) from error


def _application(name: str) -> str:
  """What keras.applications calls a network; ValueError if it has none."""
  known = {"nasnet_a_mobile": "NASNetMobile", "nasnet_a_large": "NASNetLarge"}
  for i in range(8):
    known[f"efficientnet_b{i}"] = f"EfficientNetB{i}"
  if name not in known:
    raise ValueError(f"Keras has no weights of {name}, only {', '.join(known)}")
  return known[name]


def _through_keras(name, augmentation, sizes) -> results.Trained:
  theirs = _application(name)
  os.environ.setdefault("KERAS_BACKEND", "jax")
  make = getattr(_package("keras").applications, theirs)
  source = f"keras.applications.{theirs}"
  model = _downloaded(source, lambda: make(weights="imagenet"))
  return _of_keras(name, model, source, augmentation, sizes)


def _load_keras(path) -> Any:
  os.environ.setdefault("KERAS_BACKEND", "jax")
  load = _package("keras").saving.load_model
  try:
    return load(path, compile=False)
  except (ValueError, OSError, KeyError, TypeError) as error:
    first = str(error).strip().splitlines()[0]
    raise CheckpointError(f"{path} is no Keras model: {first}") from None


def _of_keras(name, model, source, augmentation, sizes) -> results.Trained:
  arrays = keras_model.weights(model)
  table = keras.table(keras.network(name, **sizes))
  classes = _classes(table, arrays)
  ours = keras.network(name, **classes, **sizes)
  head = {} if classes else _no_head(table)
  whitening = augmentation or keras_model.whitening(model)
  variables = keras.from_keras(
    model, ours, whitening, source=f"{source}, read as {name},", more=head
  )
  prepared = {"augmentation": whitening}
  return _told(trained(name, ours, variables, source, prepared), head)


def _through_timm(name, theirs, augmentation, sizes) -> results.Trained:
  theirs = theirs or timm.name_of(name)
  source = f"timm's {theirs}"
  ours = _timms(name, theirs, source, sizes)
  make = _package("timm").create_model
  model = _downloaded(source, lambda: make(theirs, pretrained=True))
  state = {k: np.asarray(v) for k, v in model.state_dict().items()}
  return _of_timm(
    *(name, ours, source, state, model.pretrained_cfg, augmentation)
  )


def _through_hub(name, address, augmentation, sizes) -> results.Trained:
  found = hub.fetch(address)
  theirs = found.config.get("architecture")
  if theirs is None:  # nobody says whose they are: their names must
    read = _of_arrays(name, found.weights, augmentation, sizes)
    return read._replace(result={**read.result, "source": found.address})
  ours = _timms(name, theirs, found.address, sizes)
  state = tables.unwrapped(_read_arrays(found.weights))
  # In old repositories the fields stand one level higher.
  prepared = {**found.config, **found.config.get("pretrained_cfg", {})}
  lack = [field for field in timm.PREPARED if field not in prepared]
  if lack:
    raise CheckpointError(
      f"config.json of {found.address} does not say {', '.join(lack)}: give"
      " weights= the file itself, and how it whitens as augmentation="
    )
  return _of_timm(name, ours, found.address, state, prepared, augmentation)


def _timms(name, theirs, source, sizes) -> nn.Module:
  """Our network for timm's weights, which must be the one that is asked for."""
  ours, wanted = timm.network(theirs, **sizes), network(name, **sizes)
  if ours.clone(config=wanted.config) != wanted:
    raise ValueError(
      f"{source} is timm's {theirs}, another network than {name}"
    )
  _check_sizes(name, ours.config, source, sizes)
  return ours


def _of_timm(
  name, ours, source, state, prepared, augmentation
) -> results.Trained:
  """prepared: timm's `pretrained_cfg`."""
  table = timm.table(ours)
  classes = _classes(table, state)
  head = {} if classes else _no_head(table, turned=True)
  ours = ours.clone(config=dataclasses.replace(ours.config, **classes))
  variables = timm.from_timm({**state, **head}, ours, source)
  how = timm.preparation(prepared)._asdict()
  if augmentation is not None:
    how["augmentation"] = augmentation
  return _told(trained(name, ours, variables, source, how), head)


# --- arrays by name ----------------------------------------------------------


_PYTORCHS = ("timm's", "torchvision's")


class _Naming(NamedTuple):
  """Whose names arrays have: (network) -> table; (name, **fields) ->
  (network, side of its images if not the published one);
  (arrays, network, what the arrays are) -> variables."""

  who: str
  table: Callable[[nn.Module], list[tables.Entry]]
  network: Callable[..., tuple[nn.Module, int | None]]
  read: Callable[[dict, nn.Module, str], dict]


def _namings(path) -> list[_Naming]:
  def own(arrays, net, source):
    return tables.read(tables.own(net), arrays, source)

  def odd(name):  # where ours pads as networks do that pad evenly
    return torch_blocks.odd(zoo.blocks.network(name).side)

  def published_side(make):
    return lambda name, **fields: (make(name, **fields), None)

  def of_timm(name, **fields):
    theirs = timm.name_of(name, path.name)
    side = odd(name) if timm.pads_evenly(theirs) else None
    return timm.network(theirs, **fields), side

  def of_torchvision(name, **fields):
    made = torchvision.network(torchvision.name_of(name), **fields)
    return made, odd(name)

  of_theirs = torchvision.from_torchvision
  return [
    _Naming("ours", tables.own, published_side(network), own),
    _Naming("timm's", timm.table, of_timm, timm.from_timm),
    _Naming("torchvision's", torchvision.table, of_torchvision, of_theirs),
    _Naming(
      "EfficientNet-PyTorch's",
      lite.table,
      published_side(lite.network),
      lite.from_lite,
    ),
  ]


def _of_arrays(name, path, augmentation, sizes) -> results.Trained:
  arrays = tables.unwrapped(_read_arrays(path))
  naming, table = _naming(name, path, arrays, network(name, **sizes))
  classes = _classes(table, arrays)
  head = {} if classes else _no_head(table, naming.who != "ours")
  fields = {**classes, **sizes}
  ours, side = naming.network(name, **fields)
  whose = naming.who if naming.who != "ours" else "our"
  read_as = f"{path}, read as {name} by {whose} names,"
  variables = naming.read({**arrays, **head}, ours, read_as)
  whitening = augmentation
  # Keras's MobileNets see pixels from -1 to 1, those of PyTorch's hubs do not.
  if whitening is None and naming.who in _PYTORCHS and "mobilenet" in name:
    whitening = augment.EFFICIENTNET
  prepared = {"augmentation": whitening, "side": side}
  found = _told(trained(name, ours, variables, path, prepared), head)
  if augmentation is None:
    _log.warning(
      "%s does not say how images are whitened: by mean %s and std %s, as for"
      " the weights of %s that were released by such names; augmentation= takes"
      " others",
      *(path, found.augmentation.mean, found.augmentation.std, name),
    )
  return found


def _read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
  if path.suffix == ".safetensors":
    return importing.read_safetensors(path)[0]
  if path.suffix != ".npz":
    return torch_file.read(path)
  try:
    with np.load(path) as file:
      return dict(file)
  except (ValueError, OSError, zipfile.BadZipFile) as error:
    raise CheckpointError(f"{path} is no .npz file: {error}") from None


def _naming(name, path, arrays, ours) -> tuple[_Naming, list[tables.Entry]]:
  """The naming that has most of a file's names, with its table."""
  found = []
  for naming in _namings(path):
    try:
      table = naming.table(ours)
    except ValueError:  # it has no such network
      continue
    common = {entry.name for entry in table} & arrays.keys()
    found.append((len(common), naming, table))
  count, naming, table = max(found, key=lambda one: one[0])
  if not count:
    known = " or ".join(one.who for _, one, _ in found)
    raise CheckpointError(
      f"{path} has no weights of {name} by the names of {known}: its first is"
      f" {next(iter(arrays), 'missing')!r}"
    )
  return naming, table


def _classes(table: list[tables.Entry], arrays) -> dict[str, int]:
  """{"num_classes": of a file}; {} if it has no classifier."""
  for entry in table:
    if entry.path[1:] == ("classifier", "bias") and entry.name in arrays:
      return {"num_classes": arrays[entry.name].shape[0]}
  return {}


def _no_head(
  table: list[tables.Entry], turned: bool = False
) -> dict[str, np.ndarray]:
  """A classifier of zeros for weights that have none.

  Args:
    turned: whether kernels are [out, in], as PyTorch's.
  """
  return {
    entry.name: np.zeros(entry.shape[::-1] if turned else entry.shape)
    for entry in table
    if entry.path[1] == "classifier"
  }


def _told(found: results.Trained, head: dict) -> results.Trained:
  """With a mark in its result if its classifier is one of zeros."""
  return (
    found._replace(result={**found.result, NO_HEAD: True}) if head else found
  )
