"""From a config to the parts of a search. Nothing else here reads a config."""

from nasnet_jax import controllers, fit, inputs, spaces
from nasnet_jax.controllers import base
from nasnet_jax.evaluators import Evaluator
from nasnet_jax.models import stacked
from nasnet_jax.models.layers import Numerics
from nasnet_jax.search import final, rounds

# May differ between two processes of one run: neither changes what comes out.
MAY_CHANGE = ("log", "mesh.arch", "data.data_dir", "final.checkpoint_seconds")


def get_space(config):
  """The space; ValueError for an unknown name or operation."""
  return spaces.get(**config.space.to_dict())


def load_images(config) -> inputs.Splits:
  """The images, divided, with enough of them for every batch."""
  sizes = (config.child.batch_size, config.final.batch_size)
  return inputs.load_images(config.data, sizes)


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


def get_evaluator(config, space, images: inputs.Splits, aug) -> Evaluator:
  """The population that trains the children."""
  from nasnet_jax import evaluators, population
  from nasnet_jax.training import mesh

  return evaluators.PopulationEvaluator(
    space,
    child_network(config, images.num_classes),
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
  return controllers.make(name, space, **dict(options))


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
  shared = inputs.recipe_fields(fields)
  return final.Settings(
    top_k=fields.top_k,
    rank=fit.Recipe(epochs=fields.rank_epochs, **shared),
    final=fit.Recipe(epochs=fields.epochs, **shared),
    network=inputs.get_network(fields.network, num_classes),
    augmentation=aug,
    seed=config.search.seed,
    checkpoint_seconds=fields.checkpoint_seconds,
  )
