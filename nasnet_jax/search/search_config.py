"""From a config to the parts of a search. Nothing else here reads a config."""

import dataclasses
import functools
import inspect
import logging
from typing import Any

import jax.numpy as jnp

from nasnet_jax import controllers, spaces
from nasnet_jax.controllers import base
from nasnet_jax.jobs import by_machine, job_config
from nasnet_jax.models import families, layers, stacked_plan
from nasnet_jax.models.layers import Numerics
from nasnet_jax.population.evaluation import Evaluator
from nasnet_jax.search import (
  budgets,
  final,
  halving,
  limits,
  objectives,
  rank_together,
  rewards,
  rounds,
  scoring,
  weights,
)
from nasnet_jax.spaces.cells import CellSpace
from nasnet_jax.training import own_parts as own
from nasnet_jax.training import recipes

_log = logging.getLogger(__name__)

# May differ between two processes of one run: none changes the result, except
# for the rounding of sums over another number of devices (`mesh.data`).
MAY_CHANGE = (
  "callbacks",
  own.FIELD,  # `own_parts.check` knows which may
  "log",
  "profile",
  "mesh",
  "data.data_dir",
  "data.options.path",  # the same images, as their fingerprint says
  "data.options.max_broken",
  "data.options.note",
  "final.checkpoint_seconds",
)


_BUDGET = budgets.OFF._asdict()


def absent() -> dict[str, Any]:
  """What a search does without a field, for `workdir.claim`: the default of
  what the field would set."""
  from nasnet_jax.population import population

  found = {
    f"child.{field.name}": field.default
    for field in dataclasses.fields(population.ChildRecipe)
  }
  found |= {f"search.{name}": value for name, value in _BUDGET.items()}
  found |= {f"search.limit.{k}": v for k, v in limits.OFF._asdict().items()}
  found |= {"final.now": False, "final.rank_together": False}
  found["search.start_from"] = ""
  found["search.objectives"] = ()
  found |= weights.absent() | scoring.absent()
  for name, factory in controllers.CONTROLLERS.items():
    for option in inspect.signature(factory).parameters.values():
      if option.kind == option.KEYWORD_ONLY:
        where = f"search.controller_options.{name}.{option.name}"
        found[where] = option.default
  return found


def get_space(config):
  """The space; ValueError for an unknown name or operation."""
  fields = config.space
  if fields.get("num_blocks", 1) < 1:
    raise ValueError(f"space.num_blocks is {fields.num_blocks}: give 1 or more")
  return spaces.get(**config.space.to_dict())


def load_images(config, split: str | None = None) -> job_config.Splits:
  """The images, divided, with enough of them for every batch.

  Args:
    split: of `job_config.load_images`.
  """
  sizes = {
    "child.batch_size": config.child.batch_size,
    "final.batch_size": config.final.batch_size,
  }
  if config.data.num_valid < 1 and not config.data.get("valid_fraction"):
    raise ValueError(
      f"data.num_valid is {config.data.num_valid}: rewards take validation"
      " images, so give 1 or more"
    )
  return job_config.load_images(config.data, sizes, split)


def tell_slow_statistics(config, images: job_config.Splits):
  """Warns of trainings whose batch norm cannot follow them."""
  parts = [("child", config.child), ("final", config.final.network)]
  if weights.are_shared(config):  # which keep no statistics
    del parts[0]
  for part, network in parts:
    fields = config[part]
    job_config.tell_slow_statistics(
      fields.epochs * (images.train.num_images // fields.batch_size),
      network.bn_decay,
      f"{'final.network' if part == 'final' else part}.bn_decay",
    )


def child_network(config, num_classes: int, space):
  """Sizes of the children, as their family's config."""
  child = config.child
  numerics = Numerics(
    bn_decay=child.bn_decay,
    bn_epsilon=child.bn_epsilon,
    init=child.init,
    dtype=jnp.dtype(child.get("dtype", "float32")),
    kernels=child.get("kernels", "xla"),
    **layers.batch_norm_groups(
      child.bn_group, child.batch_size, config.mesh.data, "data"
    ),
  )
  return families.of(space).config(
    num_classes=num_classes, numerics=numerics, **config.network.to_dict()
  )


def resolve(config, space, images: job_config.Splits, machine, before=None):
  """`by_machine.Resolved`: the config with what the machine chooses.

  Args:
    machine: a `by_machine.Machine`.
    before: config.json of the run that goes on.
  """
  maps, blocks = (), 0
  if isinstance(space, CellSpace):
    sizes = child_network(config, images.num_classes, space)
    blocks, side = space.num_blocks, images.image_shape[:2]
    shapes = stacked_plan.cell_shapes(sizes, blocks, side)
    maps = tuple((s.features, max(s.out_side)) for s in shapes)
  return by_machine.for_search(
    config, machine, images.train.num_images, maps, blocks, before
  )


def child_recipe(config):
  """population.ChildRecipe of the children; what is left to the machine, and
  not chosen yet, has the recipe's defaults."""
  from nasnet_jax.population import population

  fields = by_machine.without_open(config.child)
  del fields["bn_group"]  # of the network
  return population.ChildRecipe(**fields)


def get_evaluator(config, space, images: job_config.Splits, aug) -> Evaluator:
  """The population that trains the children, or what judges them by weights
  that they share."""
  recipe = child_recipe(config)
  scored = scoring.settings(config, space)
  return weights.evaluator(config, space)(
    space=space,
    network=child_network(config, images.num_classes, space),
    recipe=recipe,
    augmentation=aug,
    train=tuple(images.train),
    valid=tuple(images.valid),
    mesh=_mesh(config.mesh),
    costs=get_costs(config),
    **({"scores": scored} if scored.names else {}),
  )


def get_costs(config):
  """`evaluation.Costs`; ValueError for numbers that cannot be."""
  from nasnet_jax.population.evaluation import Costs

  fields = config.search.get("cost", {})
  reward = get_reward(config)
  count_bytes = _limits(config.search).bytes > 0
  count_bytes |= "-bytes" in getattr(reward, "names", ())
  costs = Costs(reward.cost, **dict(fields), bytes=count_bytes)
  if costs.image_side < 0 or costs.latency_batch < 1:
    raise ValueError(
      f"search.cost.image_side is {costs.image_side} and latency_batch"
      f" {costs.latency_batch}: give 0 (the children's own) or more pixels, and"
      " 1 or more images"
    )
  return costs


def get_reward(config) -> rewards.Reward | objectives.Objectives:
  """What the controller is told; ValueError for bad values."""
  names = config.search.get("objectives")
  if names:
    found = objectives.make(names)
    objectives.check(found, config.search)
    return found
  return rewards.make(**config.search.reward.to_dict())


def own_parts(config, space) -> dict[str, Any]:
  """What config.json and result.json say of users' parts; {} of none."""
  names = {
    "operation": getattr(space, "operations", ()),
    "strategy": [config.search.controller],
    "reward": [config.search.reward.kind],
    "data source": [config.data.source],
  }
  return own.of(names)


def get_controller(config, space) -> base.Controller:
  """The controller; ValueError names the nearest option to a misspelt one."""
  name = config.search.controller
  options = dict(config.search.controller_options.get(name, {}))
  names = getattr(get_reward(config), "names", ("reward",))
  return objectives.controller(name, space, options, len(names))


def _given(fields, defaults: dict[str, Any]) -> dict[str, Any]:
  """Those of the fields; what a config of before lacks has its default."""
  return {name: fields.get(name, value) for name, value in defaults.items()}


def _limits(search) -> limits.LimitSettings:
  fields = search.get("limit") or {}
  settings = limits.LimitSettings(**_given(fields, limits.OFF._asdict()))
  return limits.check(settings)


def round_settings(config) -> rounds.RoundSettings:
  """Of the rounds; ValueError for numbers that make no search."""
  search = config.search
  if search.children < 1 or search.children_per_round < 1:
    raise ValueError(
      "search.children and search.children_per_round must be 1 or more"
    )
  if search.seed < 0:
    raise ValueError(f"search.seed is {search.seed}: give 0 or more")
  return rounds.RoundSettings(
    search.children,
    search.children_per_round,
    search.seed,
    get_reward(config),
    halving.check(halving.HalvingSettings(**search.halving.to_dict())),
    search.asynchronous,
    budgets.check(budgets.BudgetSettings(**_given(search, _BUDGET))),
    _limits(search),
    weights.inherited_share(config),
  )


def check_evaluator(evaluator, settings: rounds.RoundSettings):
  """Raises ValueError if the evaluator cannot do what the settings ask for."""
  one_by_one = settings.asynchronous or settings.halving.eta
  if one_by_one and not hasattr(evaluator, "queue"):
    raise ValueError(
      "this evaluator answers in rounds only: set search.asynchronous to False"
      " and search.halving.eta to 0"
    )
  if settings.limit != limits.OFF and not hasattr(evaluator, "costs"):
    raise ValueError(
      "this evaluator counts no costs before training: set search.limit.params,"
      " .macs and .bytes to 0"
    )
  if settings.inherit and not hasattr(evaluator, "open_folder"):
    raise ValueError(
      "this evaluator keeps no weights that children could inherit: set"
      ' search.weights to "alone"'
    )
  # Rungs that no child would come to.
  halving.Halving(settings.halving, settings.reward).stops(evaluator)


def final_settings(config, num_classes: int, aug, space) -> final.FinalSettings:
  """Of the final stage."""
  fields = config.final
  if min(fields.top_k, fields.rank_epochs, fields.epochs) < 1:
    raise ValueError(
      "final.top_k, final.rank_epochs and final.epochs must be 1 or more"
    )
  if fields.top_k > config.search.children:
    _log.warning(
      "final.top_k is %d and search.children %d: no more can be ranked",
      *(fields.top_k, config.search.children),
    )
  shared = job_config.recipe_fields(fields)
  recipe = recipes.Recipe(epochs=fields.epochs, **shared)
  recipe.make_schedule()  # refuses a misspelt one now, not after the search
  settings = final.FinalSettings(
    top_k=fields.top_k,
    rank=recipes.Recipe(epochs=fields.rank_epochs, **shared),
    final=recipe,
    network=job_config.get_network(fields.network, num_classes, space),
    augmentation=aug,
    seed=config.search.seed,
    checkpoint_seconds=fields.checkpoint_seconds,
  )
  if not fields.get("rank_together", False):
    return settings
  rank_together.check(settings.rank, config.mesh.data)  # now, as above
  return settings._replace(
    together=functools.partial(
      rank_together.evaluator,
      space,
      settings.network,
      settings.rank,
      aug,
      functools.partial(_mesh, config.mesh),
    )
  )


def _mesh(fields):
  """The mesh of a config."""
  from nasnet_jax.training import mesh

  return mesh.make_mesh(fields.arch, fields.data)
