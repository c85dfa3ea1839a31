"""What a search's config stands for, checked before anything is written."""

from typing import Any, NamedTuple

from nasnet_jax.controllers import base
from nasnet_jax.jobs import by_machine, job_config
from nasnet_jax.models import families
from nasnet_jax.population.evaluation import Evaluator
from nasnet_jax.search import final, rounds, scoring, search_config, weights


class Parts(NamedTuple):
  """All that a config stands for.

  Attributes:
    config: it, with what the machine chose (`jobs.by_machine`).
    chosen: lines on that.
  """

  config: Any
  chosen: tuple[str, ...]
  space: Any
  controller: base.Controller
  images: job_config.Splits
  evaluator: Evaluator
  rounds: rounds.RoundSettings
  final: final.FinalSettings


def prepare(
  config, make_evaluator, before: dict[str, Any] | None = None
) -> Parts:
  """The parts; ValueError where the config, or what it names, cannot be used.

  Args:
    make_evaluator: see `job.run`.
    before: config.json of the run that goes on; None: it begins.
  """
  space = search_config.get_space(config)
  controller = search_config.get_controller(config, space)
  settings = search_config.round_settings(config)
  weights.check_strategy(config, space, controller)
  scoring.settings(config, space)  # refused before images are read
  images = search_config.load_images(config, job_config.split_of(before))
  config, chosen = search_config.resolve(
    config, space, images, by_machine.machine_of(), before
  )
  aug = job_config.get_augmentation(config.data, images)
  final_settings = search_config.final_settings(
    config, images.num_classes, aug, space
  )
  check_side = families.of(space).check_side
  check_side(final_settings.network, images.image_shape[:2])
  shown = images
  if config.search.shuffle_labels:
    shown = job_config.shuffled_labels(images, settings.seed)
  evaluator = make_evaluator(config, space, shown, aug)
  search_config.check_evaluator(evaluator, settings)
  scoring.check_evaluator(config, evaluator)
  return Parts(
    config,
    chosen,
    space,
    controller,
    shown,
    evaluator,
    settings,
    final_settings,
  )
