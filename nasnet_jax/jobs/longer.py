"""A training that goes on for more epochs, in the same folder.

What was trained stays, and the result of before is kept. That is defined where
the longer training begins as the shorter one did.
"""

import logging
import pathlib
import shutil
from typing import Any

from nasnet_jax.jobs import kept_results, results, resumable
from nasnet_jax.report import runs
from nasnet_jax.training import hosts, recipes, workdir

_log = logging.getLogger(__name__)
EPOCHS = "train.epochs"


def why_not(folder, recipe: recipes.Recipe, old: int, num_images: int) -> str:
  """In words, why a run of `old` epochs cannot go on to the recipe's; "" if it
  can.

  Args:
    num_images: that are trained on.
  """
  if recipe.epochs < old:
    return "what was trained is not taken back"
  what = recipe.follows_its_length()
  if what:
    return (
      f"{what} follows the number of epochs, so the longer training would be"
      " another one from its first update on"
    )
  if old * recipe.steps(num_images) % recipe.report_every(num_images):
    return "its last point lies between two of the longer training's curve"
  if not (folder / results.RESULT).exists():
    return ""
  rows, _ = runs.read_lines(folder / resumable.CURVES)
  last = rows[-1]["epoch"] if rows else old
  if last < old:
    return f"early stopping ended it after epoch {last:g}"
  return ""


def claim(folder: pathlib.Path, recorded: dict[str, Any], parts, may_change):
  """`workdir.claim`, which lets a training go on for more epochs.

  Args:
    recorded: the config for config.json.
    parts: `train.Parts`.
  """
  path = folder / results.CONFIG
  changed = workdir.changes(path, recorded)
  why = ""
  if EPOCHS in changed:
    old = changed[EPOCHS][0]
    why = why_not(folder, parts.recipe, old, parts.images.train.num_images)
    if not why:
      may_change = (*may_change, EPOCHS)
  arguments = path, recorded, may_change, None, {EPOCHS: why} if why else None
  workdir.check_claim(*arguments)
  hosts.wait()
  if EPOCHS in changed and hosts.is_first():
    _make_room(folder)
  workdir.claim(*arguments)


def _make_room(folder: pathlib.Path):
  if not (folder / results.RESULT).exists():
    return
  if not (folder / "checkpoints").exists():
    _log.warning(
      "the finished training in %s kept no checkpoint: it is repeated from its"
      " start, to the same weights, and goes on from there",
      folder,
    )
  kept_results.keep(folder)
  shutil.rmtree(folder / "figures", ignore_errors=True)
