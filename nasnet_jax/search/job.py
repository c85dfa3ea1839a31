"""The search job, from a config to a tested network and its report."""

import logging
import pathlib
import shutil
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from clu import parameter_overview, platform

from nasnet_jax import report
from nasnet_jax.costs import counting
from nasnet_jax.jobs import (
  by_machine,
  job_config,
  results,
  run_log,
  user_checks,
)
from nasnet_jax.jobs.callbacks import listeners
from nasnet_jax.population.evaluation import Evaluator
from nasnet_jax.search import (
  asynchronous,
  budgets,
  ending,
  final,
  final_cost,
  going_on,
  rounds,
  scoring,
  search_config,
  sifting,
  start_from,
  weights,
)
from nasnet_jax.search.console import Console
from nasnet_jax.search.parts import Parts, prepare
from nasnet_jax.search.run_clock import RunClock, seconds_of
from nasnet_jax.spaces.cells import CellSpace
from nasnet_jax.training import (
  checkpoint,
  fit,
  hosts,
  own_parts,
  profile,
  stop,
  workdir,
)
from nasnet_jax.training.scalars import Scalars

_log = logging.getLogger(__name__)
Row = dict[str, Any]


def run(
  config,
  run_dir,
  *,
  command: str = "",
  callbacks: Iterable[Any] = (),
  make_evaluator: Callable[..., Evaluator] = search_config.get_evaluator,
) -> dict[str, Any]:
  """Searches, or goes on with a search, until `result.json` is there.

  Args:
    config: a ConfigDict as in `configs/search_digits.py`.
    run_dir: the run's folder; made if it is not there.
    command: how to start this again, for the report.
    callbacks: see `jobs.callbacks`; those of the config come after them.
    make_evaluator: (config, space, Splits, Augmentation) -> Evaluator.

  Returns:
    the content of result.json.

  Raises:
    Stopped: after Ctrl-C or SIGTERM; the same call goes on.
    ValueError: one line: a config, a folder or data that cannot be used.
    OSError: the folder cannot be written, or the disk is full.
  """
  with workdir.locked(run_dir) as folder, stop.on_signals() as request:
    user_checks.apart(config.data, folder)
    tell = listeners(config, callbacks)
    before = job_config.known_config(folder)
    parts = prepare(config, make_evaluator, before)
    config = parts.config
    parts, known = _taught(folder, config, parts)
    _claim(folder, config, parts.images, known, parts.space)
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
            tell,
          )
          tell("on_start", folder, config.to_dict())
          with run_log.page(folder):
            result = _work(folder, config, parts, console, clock)
            result["command"] = command
            workdir.write_json(folder / results.RESULT, result)
        _tidy(folder)
        tell("on_end", result)
    if hosts.is_first():
      page = report.finish_report(folder)
      _log.info("%s", report.summary_text(folder))
      _log.info("report: %s", page)
    hosts.wait()  # or the others would read it before it is written
    return results.read_result(folder)


def _work(
  folder, config, parts: Parts, console: Console, clock: RunClock
) -> Row:
  """The content of result.json: the search, then the final stage."""
  search_config.tell_slow_statistics(config, parts.images)
  weights.tell(config)
  scoring.tell(config)
  _describe(parts)
  _write_costs(folder, config, parts)
  over = _over(parts, config.child.epochs, clock, console)
  if config.final.get("now"):
    rows, over = _rows_there_are(folder, parts), _now
  else:
    rows = _search(folder, parts, console, over)
  found = ending.final_stage(folder, parts, rows, console)
  result = ending.result_of(folder, config, parts, rows, found, console.scalars)
  reason = over(rows) if len(rows) < parts.rounds.children else ""
  if reason:
    result["ended_by"] = reason.partition(" ")[0]
  return result


def _now(rows: list[Row]) -> str:
  """A `budgets.Over`."""
  del rows
  return "final.now"


def _rows_there_are(folder, parts: Parts) -> list[Row]:
  """The history of a search that goes no further.

  Raises:
    ValueError: if there is no child in it.
  """
  at = rounds.resume(folder, parts.controller, parts.rounds)
  if not at.rows:
    raise ValueError(
      f"final.now: {folder} has no finished round of children yet, so none can"
      " win: leave it out, and the search goes on"
    )
  left = f", {len(at.pending)} under way are left out" if at.pending else ""
  _log.info(
    "final.now: a winner out of the %d of %d children there are%s",
    len(at.rows),
    parts.rounds.children,
    left,
  )
  return at.rows


def _taught(
  folder: pathlib.Path, config, parts: Parts
) -> tuple[Parts, list[Row]]:
  """The parts, whose strategy has learnt from `search.start_from` and is
  sifted by `search.prefilter`, and what it has learnt from."""
  search = config.search
  other = search.get("start_from")
  known = start_from.read(folder, other, parts.space)
  names = getattr(parts.rounds.reward, "names", ())
  controller = start_from.teach(
    parts.controller, search.controller, known, names
  )
  sifted = scoring.prefilter(config)
  if sifted.is_on:  # the last of all: seeds are of the search's own numbers
    judge = sifting.judge(
      parts.evaluator, sifted.score, parts.rounds.seed, parts.rounds.limit
    )
    controller = sifting.sifted(controller, sifted.times, judge)
  return parts._replace(controller=controller), known


def _claim(
  folder: pathlib.Path,
  config,
  images: job_config.Splits,
  known=(),
  space=None,
):
  """Makes the folder the config's, or raises WorkdirError.

  Args:
    known: see `_taught`.
    space: that is searched.
  """
  recorded = run_log.recorded(
    config,
    data_fingerprint=images.fingerprint,
    **job_config.recorded_split(images),
    **start_from.recorded(known),
    **search_config.own_parts(config, space),
  )
  arguments = (
    folder / results.CONFIG,
    recorded,
    (
      *search_config.MAY_CHANGE,
      *going_on.MAY_CHANGE,
      *by_machine.may_change(config),
    ),
    search_config.absent(),
    going_on.WHY,
  )
  workdir.check_claim(*arguments)
  own_parts.check(folder / results.CONFIG, recorded)
  going_on.make_room(folder, recorded, search_config.absent())
  start_from.tell(
    folder,
    config.search.get("start_from"),
    known,
    recorded,
    search_config.absent(),
  )
  start_from.keep(folder, known)
  workdir.claim(*arguments)


def _describe(parts: Parts):
  """Logs a line on what is searched, what the machine chose and, in the log
  file only, a child's parameters."""
  space, images = parts.space, parts.images
  words = (
    f"space {space.name}, {space.summary}; {images.name}:"
    f" {images.train.num_images:,} images to train on,"
    f" {images.valid.num_images:,} to validate,"
    f" {images.test.num_images:,} to test; {jax.device_count()}"
    f" {jax.default_backend()} device(s)"
  )
  _log.info("%s", words)
  by_machine.tell(parts.chosen)
  _tell_idle(parts)
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


def _tell_idle(parts: Parts):
  """Warns of rounds that are smaller than what trains at once."""
  settings, slots = parts.rounds, getattr(parts.evaluator, "slots", 0)
  if not settings.asynchronous and slots > settings.children_per_round:
    _log.warning(
      "%d children train at once, and search.children_per_round is %d: the"
      " rest of the devices is idle; raise it, set search.asynchronous, or take"
      " fewer devices (mesh.arch)",
      slots,
      settings.children_per_round,
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


def _tidy(folder: pathlib.Path):
  """Removes the checkpoints of a finished run, which needs its weights only,
  but the strategy's last: more children then cost no replay."""
  if not hosts.is_first():
    return
  kept = folder / rounds.CHECKPOINTS
  for path in (folder / "checkpoints").glob("*"):
    if path != kept:
      shutil.rmtree(path, ignore_errors=True)
  checkpoint.keep_newest(kept, 1)
