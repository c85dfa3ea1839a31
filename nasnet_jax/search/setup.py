"""From a config to the parts of a search. Nothing else here reads a config."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from nasnet_jax import controllers, fit, spaces
from nasnet_jax import data as image_sources
from nasnet_jax.controllers import base
from nasnet_jax.data import augment, batches
from nasnet_jax.evaluators import Evaluator
from nasnet_jax.models import stacked
from nasnet_jax.models.layers import Numerics
from nasnet_jax.search import final, rounds

# May differ between two processes of one run: neither changes what comes out.
MAY_CHANGE = ("log", "mesh.arch", "data.data_dir", "final.checkpoint_seconds")


class Splits(NamedTuple):
  """One source's images, on the host.

  Attributes:
    all: `data.ImageData`.
    train, valid: fit.Images of its training images, divided.
    load: the arguments of `data.load`.
  """

  all: image_sources.ImageData
  train: fit.Images
  valid: fit.Images
  load: dict[str, Any]


def get_space(config):
  """The space; ValueError for an unknown name or operation."""
  fields = config.space
  return spaces.get(
    fields.name, fields.num_blocks, tuple(fields.operations or ())
  )


def load_images(config) -> Splits:
  """The images, divided, with enough of them for every batch.

  Raises:
    DataError: in one line that names the fix.
  """
  load = _load_arguments(config.data)
  images = image_sources.load(**load)
  train_index, valid_index = image_sources.split(
    images.train_labels, config.data.num_valid, config.data.seed
  )
  for size in (config.child.batch_size, config.final.batch_size):
    batches.steps_per_epoch(len(train_index), size)
  labels = images.train_labels
  return Splits(
    images,
    fit.Images(images.train_images[train_index], labels[train_index]),
    fit.Images(images.train_images[valid_index], labels[valid_index]),
    load,
  )


def _load_arguments(fields) -> dict[str, Any]:
  options = {k: v for k, v in fields.options.items() if v is not None}
  return {
    "source": fields.source,
    "data_dir": fields.data_dir,
    "fraction": fields.fraction,
    "max_per_class": fields.max_per_class,
    "seed": fields.seed,
    **options,
  }


def get_augmentation(config, images: Splits) -> augment.Augmentation:
  """The source's own, with what the config says differently."""
  aug = augment.DEFAULTS[config.data.source]
  changes = {k: v for k, v in config.data.augmentation.items() if v is not None}
  aug = dataclasses.replace(aug, **changes)
  if aug.mean == (0.0,) and aug.std == (1.0,):  # nothing is known of it
    aug = augment.with_statistics(aug, images.train.images)
  return aug


def shuffled_labels(images: Splits, seed: int) -> Splits:
  """The same images with the training labels dealt out at random: whatever a
  search then finds beyond chance is a leak."""
  order = np.random.default_rng(seed).permutation(len(images.train.labels))
  train = images.train._replace(labels=images.train.labels[order])
  return images._replace(train=train)


def child_network(config, num_classes: int) -> stacked.NetworkConfig:
  """Sizes of the children."""
  child = config.child
  numerics = Numerics(
    bn_decay=child.bn_decay,
    bn_epsilon=child.bn_epsilon,
    # Batch norm sees the whole batch, over however many devices it is spread.
    bn_axis="data" if config.mesh.data > 1 else None,
    init=child.init,
  )
  return stacked.NetworkConfig(
    num_classes=num_classes, numerics=numerics, **config.network.to_dict()
  )


def get_evaluator(config, space, images: Splits, aug) -> Evaluator:
  """The population that trains the children."""
  from nasnet_jax import evaluators, population
  from nasnet_jax.training import mesh

  return evaluators.PopulationEvaluator(
    space,
    child_network(config, images.all.num_classes),
    population.Recipe(**config.child.to_dict()),
    aug,
    tuple(images.train),
    tuple(images.valid),
    mesh.make_mesh(config.mesh.arch, config.mesh.data),
  )


def get_controller(config, space) -> base.Controller:
  """The controller; ValueError names the nearest option to a misspelt one."""
  name = config.search.controller
  options = config.search.controller_options.get(name, {})
  return controllers.make(name, space.num_choices, **dict(options))


def round_settings(config) -> rounds.Settings:
  """Of the rounds; ValueError for numbers that make no search."""
  search = config.search
  if search.children < 1 or search.children_per_round < 1:
    raise ValueError(
      "search.children and search.children_per_round must be 1 or more"
    )
  return rounds.Settings(
    search.children, search.children_per_round, search.seed
  )


def final_settings(config, num_classes: int, aug) -> final.Settings:
  """Of the final stage."""
  fields = config.final
  if min(fields.top_k, fields.rank_epochs, fields.epochs) < 1:
    raise ValueError(
      "final.top_k, final.rank_epochs and final.epochs must be 1 or more"
    )
  shared = {
    f.name: fields[f.name]
    for f in dataclasses.fields(fit.Recipe)
    if f.name != "epochs" and f.name in fields
  }
  network = fields.network.to_dict()
  numerics = Numerics(
    bn_decay=network.pop("bn_decay"),
    bn_epsilon=network.pop("bn_epsilon"),
    init=network.pop("init"),
  )
  return final.Settings(
    top_k=fields.top_k,
    rank=fit.Recipe(epochs=fields.rank_epochs, **shared),
    final=fit.Recipe(epochs=fields.epochs, **shared),
    network=stacked.NetworkConfig(
      num_classes=num_classes, numerics=numerics, **network
    ),
    augmentation=aug,
    seed=config.search.seed,
    checkpoint_seconds=fields.checkpoint_seconds,
  )
