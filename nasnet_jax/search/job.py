"""The search job, from a config to a tested network and its report."""

import dataclasses
import logging
import pathlib
import shutil
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from clu import parameter_overview, platform

from nasnet_jax import __version__, report
from nasnet_jax.controllers import base
from nasnet_jax.costs import counting
from nasnet_jax.jobs import job_config, results, resumable, run_log
from nasnet_jax.models import families
from nasnet_jax.population.evaluation import Evaluator
from nasnet_jax.search import (
  asynchronous,
  budgets,
  final,
  final_cost,
  halving,
  rounds,
  search_config,
)
from nasnet_jax.search.console import Console
from nasnet_jax.search.run_clock import RunClock, seconds_of
from nasnet_jax.spaces.cells import CellSpace
from nasnet_jax.training import (
  checkpoint,
  datasets,
  evaluation,
  fit,
  hosts,
  profile,
  stop,
  workdir,
)
from nasnet_jax.training.scalars import Scalars

_log = logging.getLogger(__name__)
Row = dict[str, Any]


class Parts(NamedTuple):
  """All that a config stands for, checked, before anything is written."""

  space: Any
  controller: base.Controller
  images: job_config.Splits
  evaluator: Evaluator
  rounds: rounds.RoundSettings
  final: final.FinalSettings


def run(
  config,
  run_dir,
  *,
  command: str = "",
  make_evaluator: Callable[..., Evaluator] = search_config.get_evaluator,
) -> dict[str, Any]:
  """Searches, or goes on with a search, until `result.json` is there.

  Args:
    config: a ConfigDict as in `configs/search_digits.py`.
    run_dir: the run's folder; made if it is not there.
    command: how to start this again, for the report.
    make_evaluator: (config, space, Splits, Augmentation) -> Evaluator.

  Returns:
    the content of result.json.

  Raises:
    Stopped: after Ctrl-C or SIGTERM; the same call goes on.
    ValueError: one line: a config, a folder or data that cannot be used.
    OSError: the folder cannot be written, or the disk is full.
  """
  with workdir.locked(run_dir) as folder, stop.on_signals() as request:
    split = job_config.known_split(folder)
    parts = _prepare(config, make_evaluator, split)
    fingerprint = parts.images.fingerprint
    workdir.claim(
      folder / "config.json",
      run_log.recorded(
        config,
        data_fingerprint=fingerprint,
        **job_config.recorded_split(parts.images),
      ),
      search_config.MAY_CHANGE,
      search_config.absent(),
    )
    trace = profile.StepTrace(folder / "profile", config.get("profile", ""))
    with run_log.log_file(folder), Scalars(folder) as scalars, trace:
      if not hosts.of_first((folder / results.RESULT).exists()):
        with RunClock(folder, seconds_of(folder, scalars.rows)) as clock:
          console = Console(
            request,
            scalars,
            parts.rounds,
            config.child.epochs,
            config.log.seconds,
            trace,
            clock.tick,
          )
          search_config.tell_slow_statistics(config, parts.images)
          _describe(parts)
          _write_costs(folder, config, parts)
          over = _over(parts, config.child.epochs, clock, console)
          rows = _search(folder, parts, console, over)
          found = _final_stage(folder, parts, rows, console)
        result = _result(folder, config, parts, rows, found, scalars, command)
        reason = over(rows) if len(rows) < parts.rounds.children else ""
        if reason:
          result["ended_by"] = reason.partition(" ")[0]
        workdir.write_json(folder / results.RESULT, result)
        _tidy(folder)
    if hosts.is_first():
      page = report.finish_report(folder)
      _log.info("%s", report.summary_text(folder))
      _log.info("report: %s", page)
    hosts.wait()  # or the others would read it before it is written
    return results.read_result(folder)


def _prepare(config, make_evaluator, split: str | None = None) -> Parts:
  space = search_config.get_space(config)
  controller = search_config.get_controller(config, space)
  settings = search_config.round_settings(config)
  images = search_config.load_images(config, split)
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
  return Parts(space, controller, shown, evaluator, settings, final_settings)


def _describe(parts: Parts):
  """Logs one line on what is searched and, in the log file only, a child's
  parameters."""
  space, images = parts.space, parts.images
  words = (
    f"space {space.name}, {space.summary}; {images.name}:"
    f" {images.train.num_images:,} images to train on,"
    f" {images.valid.num_images:,} to validate,"
    f" {images.test.num_images:,} to test; {jax.device_count()}"
    f" {jax.default_backend()} device(s)"
  )
  _log.info("%s", words)
  platform.work_unit().set_notes(words)
  child = space.sample(np.random.default_rng(parts.rounds.seed), 1)[0]
  network = final.network_of(space, child, parts.final.network)
  state = jax.eval_shape(
    lambda: fit.init_state(network, parts.final.final, images.image_shape, 1, 0)
  )
  _log.debug(
    "a random child at the size of the final stage:\n%s",
    parameter_overview.get_parameter_overview(
      state.params, include_stats=False
    ),
  )


def _write_costs(folder, config, parts: Parts):
  """The cost of each operation at each place, for the drawings of cells."""
  space, images = parts.space, parts.images
  if not isinstance(space, CellSpace) or not hosts.is_first():
    return
  sizes = {
    "child": search_config.child_network(config, images.num_classes, space),
    "final": parts.final.network,
  }
  costs: Row = {"operations": list(space.operations)}
  for name, network in sizes.items():
    by_kind = counting.edge_costs(
      network,
      space.operations,
      space.num_blocks,
      images.image_shape,
      space.output == "separate",
    )
    # A space with one kind of cell uses it for both.
    kinds = [space.cells[kind % len(space.cells)] for kind in by_kind]
    costs[name] = {
      cell: sum(
        c for k, c in zip(kinds, by_kind.values()) if k == cell
      ).tolist()
      for cell in kinds
    }
  workdir.write_json(folder / report.COSTS, costs)


def _over(
  parts: Parts, child_epochs: float, clock: RunClock, console: Console
) -> budgets.Over:
  """What may end the search before its last child."""
  settings = parts.rounds
  final_seconds = final_cost.FinalSeconds(
    parts.space, parts.final, parts.images, clock, console.in_fit
  )
  return budgets.first_of(
    budgets.reproducible(settings.budget, child_epochs),
    budgets.Hours(
      settings.budget.hours, clock, settings.children_per_round, final_seconds
    ),
  )


def _search(
  folder, parts: Parts, console: Console, over: budgets.Over
) -> list[Row]:
  run_all = asynchronous.run if parts.rounds.asynchronous else rounds.run
  return run_all(
    folder,
    parts.controller,
    parts.evaluator,
    parts.rounds,
    progress=console.in_round,
    finished=console.after_round,
    over=over,
  )


class Found(NamedTuple):
  """Results of the final stage.

  Attributes:
    ranking: rows of `final.rank`, the winner first.
    child: the winner's row of the history.
    score: the winner's, on the test images.
  """

  ranking: list[Row]
  child: Row
  score: evaluation.Score


def _final_stage(folder, parts: Parts, rows, console: Console) -> Found:
  """Ranks the best children, trains the first on all training images and tests
  it once."""
  children = final.top_children(rows, parts.space, parts.final.top_k)
  if not children:
    raise ValueError(
      f"all {len(rows)} children failed, none can win: lower"
      " child.learning_rate, and start again in another folder"
    )
  watch = final.Watch(console.in_fit, console.after_point)
  images = parts.images
  train = datasets.on_device(images.train)
  valid = datasets.on_device(images.valid)
  console.say(
    f"ranking the best {len(children)}: {parts.final.rank.epochs} epochs each"
  )
  ranking = final.rank(
    folder, children, parts.space, parts.final, train, valid, watch
  )
  best = next(row for row in rows if row["id"] == ranking[0]["id"])
  console.say(
    f"training child {best['id']} on training and validation images:"
    f" {parts.final.final.epochs} epochs"
  )
  both = datasets.Images(
    np.concatenate([images.train.images, images.valid.images]),
    np.concatenate([images.train.labels, images.valid.labels]),
  )
  network, state = final.train_best(
    folder, best, parts.space, parts.final, datasets.on_device(both), watch
  )
  weights = fit.variables_of(state)
  evaluate = evaluation.make_evaluate(
    network, parts.final.augmentation, parts.final.final.eval_batch_size
  )
  test = datasets.on_device(images.test)
  score = evaluate(weights, test)
  checkpoint.write(folder / results.WEIGHTS, weights)
  return Found(ranking, best, score)


def _result(
  folder, config, parts: Parts, rows, found: Found, scalars, command: str
) -> dict[str, Any]:
  """The content of result.json, which with the weights is all that
  `results.load` needs."""
  space, images = parts.space, parts.images

  def genotype(child: Row):
    return space.to_json(space.decode(child["decisions"]))

  by_id = {row["id"]: row for row in rows}
  top_k = [
    {**row, "genotype": genotype(by_id[row["id"]])} for row in found.ranking
  ]
  return {
    "version": __version__,
    "space": space.name,
    "space_options": space.options,
    "controller": config.search.controller,
    "seed": config.search.seed,
    "winner": {
      "id": found.child["id"],
      "decisions": found.child["decisions"],
      "genotype": genotype(found.child),
      "params": found.ranking[0]["params"],
      "macs": found.ranking[0]["macs"],
    },
    "top_k": top_k,
    "test_accuracy": found.score.accuracy,
    "test_correct": found.score.correct,
    "test_examples": found.score.examples,
    "eval_batch_size": parts.final.final.eval_batch_size,
    "network": results.describe_network(parts.final.network),
    "augmentation": dataclasses.asdict(parts.final.augmentation),
    "data": job_config.describe(images),
    "cost": _cost(folder, rows, scalars, config.child.epochs),
    "environment": run_log.environment(),
    "command": command,
    "how_to_load": (
      "from nasnet_jax import search\n"
      f"winner = search.load_winner({str(folder)!r})\n"
      "logits = winner.predict(images)  # uint8"
      f"[N, {', '.join(map(str, images.image_shape))}]"
    ),
  }


def _cost(
  folder, rows: list[Row], scalars: Scalars, epochs: float
) -> dict[str, float]:
  points = workdir.keep_lines(folder / resumable.CURVES, lambda _: True, "")
  retraining = sum(row["seconds"] for row in points)
  searching = sum(r["seconds"] for r in scalars.rows if r["group"] == "search")
  spent = halving.spent(rows, epochs)
  cost = {
    "children": len(rows),
    "child_epochs": round(spent.epochs, 3),
    "child_seconds": round(spent.seconds, 3),
    "total_seconds": round(searching + retraining, 3),
  }
  if any(row.get("horizon") for row in rows):
    cost |= {
      "stopped": spent.stopped,
      "epochs_saved": round(spent.epochs_saved, 3),
      "seconds_saved": round(spent.seconds_saved, 3),
    }
  return cost


def _tidy(folder: pathlib.Path):
  """Removes the checkpoints of a finished run, which needs its weights only."""
  if hosts.is_first():
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
