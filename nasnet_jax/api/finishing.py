"""What is done with a search's folder later: going on, training a child."""

import logging
import pathlib
from collections.abc import Iterable
from typing import Any

from ml_collections import ConfigDict

from nasnet_jax.api import starting
from nasnet_jax.cli import shipped
from nasnet_jax.data import buckets, image_data, places
from nasnet_jax.jobs import results, run_log
from nasnet_jax.jobs import train as training
from nasnet_jax.search import job

_log = logging.getLogger(__name__)
# A training of cells in memory; its sizes become those of the search.
_CONFIG = "train_cifar:small"


def resume(folder, callbacks: Iterable[Any], changes: dict[str, Any]):
  """Goes on with a search, see `Study.resume`."""
  config = _config_of(folder)
  for name, value in changes.items():
    if name not in config.search:
      hint = image_data.nearest(name, config.search)
      raise ValueError(f"search has no {name!r}: {hint}")
    config.search[name] = value
  starting.prepare()
  with starting.spoken():
    job.run(config, folder, command="study.resume()", callbacks=callbacks)


def train(
  run, child, folder, epochs: int | None, callbacks: Iterable[Any]
) -> results.Trained:
  """Trains a child of a run, see `Study.train`."""
  config = _config_of(run)
  made = shipped.config(_CONFIG).copy_and_resolve_references().unlock()
  run = places.shown(run)
  made.model.genotype = f"{run}#{child}"
  made.data = config.data
  _take(made.network, config.final.network)
  _take(made.train, config.final)
  made.train.epochs = epochs or config.final.epochs
  made.train.seed = config.search.seed
  folder = folder or f"{run}-child{child}"
  starting.prepare()
  with starting.spoken():
    _log.info("child %s of %s is trained in %s", child, run, folder)
    training.run(made, folder, command="study.train()", callbacks=callbacks)
  return results.load(folder)


def _take(fields: ConfigDict, others: ConfigDict):
  """Sets the fields that the others have, too."""
  for name in fields:
    if name in others:
      fields[name] = others[name]


def _config_of(folder) -> ConfigDict:
  """The config of a search, with its arrays where the folder is now.

  Raises:
    ValueError: one line, if the folder has no search that trains its children.
  """
  config = run_log.read_config(folder)
  if config.get("job", "search") != "search":
    raise ValueError(
      f"{folder} holds a run of the job {config.job!r}: only a search that"
      " trains its children itself goes on, or trains one of them"
    )
  options = config.data.get("options", {})
  name = pathlib.Path(options.get("path") or "").name
  if buckets.is_address(options.get("path") or ""):
    return config
  if name and (pathlib.Path(folder) / name).exists():
    options.path = str(pathlib.Path(folder).absolute() / name)
  return config
