"""A run's folder under another config: more children or fewer, another end,
another final stage.

Children that were trained stay as they are, bit for bit, and so does the rest
of the final stage that the new config leaves alone. The result of before is
kept: `result.1.json` with `final.1/`, `retrain.1.jsonl`, `ranking.1.jsonl`;
then `.2`, and so on.
"""

import dataclasses
import json
import logging
import pathlib
import shutil
from typing import Any

from nasnet_jax.jobs import kept_results, results, resumable
from nasnet_jax.report import runs
from nasnet_jax.search.final import RANKING, FinalSettings
from nasnet_jax.training import evaluation, hosts, workdir

_log = logging.getLogger(__name__)
Row = dict[str, Any]

_NOW = "final.now"
_SEARCH = (
  "search.children",
  "search.hours",
  "search.epochs",
  "search.patience",
  _NOW,
)
MAY_CHANGE = (*_SEARCH, "final")
# Which trainings of the final stage a field means; the others mean both.
_TRAININGS = {
  _NOW: (),
  "final.top_k": (),
  "final.checkpoint_seconds": (),
  "final.rank_epochs": ("rank",),
  "final.rank_together": ("rank",),
  "final.epochs": ("final",),
}

_CHILDREN = "children of before would not compare with those to come"
# For `workdir.claim`; the more special names come first.
WHY = {
  "child.epochs": "the learning rate of the children there are came to its end"
  " with their epochs, and rewards of longer trainings do not compare with"
  " theirs",
  "child": _CHILDREN,
  "network": _CHILDREN,
  "data": _CHILDREN,
  "space": "decisions of before mean something else in another space",
  "search.seed": "every child there is follows from it",
  "search.controller": "a strategy goes on from its own state",
  "search.controller_options": "the strategy's state was made with the old one",
  "search.start_from": "a strategy learns from it before its first child",
  "search.children_per_round": "what was learnt from which children follows"
  " from it",
  "search.asynchronous": "what was learnt from which children follows from it",
  "search.limit": "the children there are were judged by the old one",
  "search.objectives": "the strategy was told the old ones",
  "search.reward": "the strategy was told the old rewards",
  "search.cost": _CHILDREN,
  "search.halving": "the children there are were stopped by the old one",
  "search.shuffle_labels": _CHILDREN,
  "search.weights": _CHILDREN,
  "search.shared": _CHILDREN,
  "search.inherit": _CHILDREN,
}


def make_room(folder: pathlib.Path, config: Row, absent: Row):
  """Puts away what another config of the run left and this one does not mean.
  Call it before `workdir.claim`, which then takes the config.

  Args:
    config, absent: see `workdir.claim`.
  """
  changed = workdir.changes(folder / results.CONFIG, config, absent)
  if not changed:
    return
  stages = {
    stage
    for name in changed
    if workdir.is_among(name, ["final"])
    for stage in _TRAININGS.get(name, ("rank", "final"))
  }
  hosts.wait()
  if hosts.is_first():
    if _is_past(folder, config, changed, stages):
      kept_results.keep(folder)
    for stage in stages:
      _forget_checkpoints(folder, stage)
    if "rank" in stages:
      (folder / RANKING).unlink(missing_ok=True)
  if stages:
    workdir.keep_lines(
      folder / resumable.CURVES,
      lambda row: row.get("stage") not in stages,
      "of another final stage",
    )


def _is_past(folder, config: Row, changed, stages) -> bool:
  """Whether there is a result, and it is not that of the config."""
  path = folder / results.RESULT
  if not path.exists():
    return False
  done = workdir.read_json(path).get("cost", {}).get("children", 0)
  wanted = config["search"]["children"]
  if wanted < done and "search.children" in changed:
    _log.info("%d children are there, and all of them count", done)
  now = config["final"].get("now")  # nothing to do, with a result
  ends = [n for n in changed if n in _SEARCH and not (n == _NOW and now)]
  return bool(stages) or "final.top_k" in changed or (wanted > done and ends)


def _forget_checkpoints(folder: pathlib.Path, stage: str):
  for path in (folder / "checkpoints").glob(f"{stage}_*"):
    shutil.rmtree(path, ignore_errors=True)


def about_final(settings: FinalSettings, images) -> Row:
  """All that the last training of a child depends on, as in result.json."""
  about = {
    "recipe": dataclasses.asdict(settings.final),
    "network": results.describe_network(settings.network),
    "augmentation": dataclasses.asdict(settings.augmentation),
    "seed": settings.seed,
    "eval_batch_size": settings.final.eval_batch_size,
    "fingerprint": images.fingerprint,
  }
  return json.loads(json.dumps(about))


def trained_before(folder, child: int, about: Row) -> evaluation.Score | None:
  """The test of a child that won before and was trained just like that: its
  weights and its curve are then in place again. None if there is none.

  Args:
    about: of `about_final`.
  """
  for number, path in sorted(kept_results.kept(folder), reverse=True):
    result = workdir.read_json(path)
    fingerprint = result.get("data", {}).get("fingerprint")
    known = {**result, "fingerprint": fingerprint}
    weights = folder / f"final.{number}"
    if (
      result.get("winner", {}).get("id") != child
      or any(known.get(name) != value for name, value in about.items())
      or not weights.exists()
    ):
      continue
    _restore(folder, number, child)
    _log.info(
      "child %d was trained like that before, see result.%d.json: its weights"
      " are taken",
      child,
      number,
    )
    return evaluation.Score(result["test_correct"], result["test_examples"])
  return None


def _restore(folder: pathlib.Path, number: int, child: int):
  """Weights and curve of a result that was kept."""
  if hosts.is_first():
    kept_results.copy_tree(folder / f"final.{number}", folder / "final")
    tested = folder / runs.TESTED
    if kept_results.numbered(tested, number).exists():
      shutil.copy2(kept_results.numbered(tested, number), tested)
  path = folder / resumable.CURVES
  before = kept_results.numbered(path, number)
  kept = workdir.keep_lines(before, lambda _: True, "")
  lines = workdir.keep_lines(path, lambda _: True, "")
  rest = [row for row in lines if row["stage"] != "final"]
  mine = [r for r in kept if (r["stage"], r["id"]) == ("final", child)]
  hosts.wait()
  if hosts.is_first():
    lines = [json.dumps(row) + "\n" for row in [*rest, *mine]]
    workdir.write_text(path, "".join(lines))
  hosts.wait()
