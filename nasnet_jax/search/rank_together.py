"""The ranking of the final stage as a population: all children in one program.

One after another, each child is a network of its own to compile, and one device
trains it. Here nothing is compiled that an earlier search has not left behind,
and every device trains a child. A stop loses the children that are in training
then, up to one per device; those before them are in `ranking.jsonl`.
"""

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

import numpy as np

from nasnet_jax.jobs.resumable import Watch
from nasnet_jax.models import layers
from nasnet_jax.population import slots
from nasnet_jax.population.evaluation import Outcome
from nasnet_jax.search.rounds import child_seed
from nasnet_jax.training import compile_clock, datasets, recipes

_log = logging.getLogger(__name__)

ALL = -1  # in place of a child's number, where all of them train

# What of a recipe may be anything: the head is left out, and there is no curve.
_NO_MATTER = {"aux_weight", "report_epochs"}


def evaluator(
  space,
  network,
  recipe: recipes.Recipe,
  augmentation,
  make_mesh: Callable[[], Any],
  train: datasets.Images,
  valid: datasets.Images,
):
  """The `PopulationEvaluator` of networks at the size of the final stage.

  Args:
    network: their family's config; an auxiliary head is left out.
    make_mesh: () -> mesh of ("arch", "data").
  """
  from nasnet_jax.population.evaluator import PopulationEvaluator

  mesh = make_mesh()
  if getattr(network, "aux", False):
    _log.info(
      "ranked together, children train without the auxiliary head; the winner"
      " has it (final.network.aux)"
    )
    network = dataclasses.replace(network, aux=False)
  made = child_recipe(recipe)
  groups = layers.batch_norm_groups(
    0, recipe.batch_size, mesh.shape["data"], "data"
  )
  numerics = dataclasses.replace(
    network.numerics, dtype=np.dtype(made.dtype), **groups
  )
  return PopulationEvaluator(
    space,
    dataclasses.replace(network, numerics=numerics),
    made,
    augmentation,
    # From the host: these lie on one device, a population spreads them.
    tuple(map(np.asarray, train)),
    tuple(map(np.asarray, valid)),
    mesh,
  )


def check(recipe: recipes.Recipe, data: int):
  """Raises ValueError, one line, for a ranking that could not be trained.

  Args:
    data: devices that share each child's batch.
  """
  child_recipe(recipe)
  layers.batch_norm_groups(0, recipe.batch_size, data, "data")


def child_recipe(recipe: recipes.Recipe):
  """`population.ChildRecipe` of a recipe.

  Raises:
    ValueError: one line: the recipe has what a population does without.
  """
  from nasnet_jax.population import population

  known = {field.name for field in dataclasses.fields(population.ChildRecipe)}
  for field in dataclasses.fields(recipe):
    value = getattr(recipe, field.name)
    if field.name in known | _NO_MATTER or value == field.default:
      continue
    raise ValueError(
      f"final.{field.name} is {value!r}, and children that are ranked together"
      f" train without it: leave it at {field.default!r}, or set"
      " final.rank_together to False"
    )
  given = dataclasses.asdict(recipe)
  return population.ChildRecipe(**{n: given[n] for n in known & given.keys()})


def train(
  evaluator,
  children: list[dict[str, Any]],
  seed: int,
  watch: Watch,
  note: Callable[[dict[str, Any], Outcome], None],
):
  """Trains children from nothing.

  Args:
    children: rows of the history.
    seed: the search's.
    note: (row of the history, outcome), called as soon as a child is done.
  """
  by_id = {child["id"]: child for child in children}
  about = ("ranking", *evaluator.about)
  with compile_clock.compiling("the program that ranks all children", about):
    evaluator.compile()
  queue = evaluator.queue()
  queue.add(
    by_id,
    np.array([child["decisions"] for child in children], np.int32),
    np.array([child_seed(seed, number) for number in by_id], np.uint32),
    np.ones(len(children), np.float32),
  )
  total = len(children) * evaluator.steps(1.0)

  def tell(share: float, words: str):
    del words
    watch.tick("rank", ALL, round(share * total), total)

  def note_all(done):
    for number, outcome in done:
      note(by_id[number], outcome)

  slots.drain(queue, tell, note_all)
