"""The final stage: rank the best children, train one, test it once.

Three kinds of files say how far it is: `ranking.jsonl` has a line for every
child that was retrained, `checkpoints/<stage>_<child>` the training under way,
`retrain.jsonl` the curves up to that checkpoint. A process that comes later
goes on from there.
"""

import itertools
import logging
import math
import pathlib
import shutil
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn

from nasnet_jax.costs import counting
from nasnet_jax.data import augment
from nasnet_jax.jobs import architectures, resumable
from nasnet_jax.jobs.resumable import Watch
from nasnet_jax.models import families
from nasnet_jax.search import front, rank_together
from nasnet_jax.search.rounds import child_seed
from nasnet_jax.training import (
  datasets,
  evaluation,
  hosts,
  recipes,
  workdir,
)

_log = logging.getLogger(__name__)

RANKING = "ranking.jsonl"
Row = dict[str, Any]


class FinalSettings(NamedTuple):
  """Of the final stage.

  Attributes:
    top_k: children that are retrained and ranked.
    rank: recipe of their training.
    final: recipe of the best one's.
    network: sizes of all of these networks, their family's config.
    augmentation: of their images.
    seed: the search's.
    checkpoint_seconds: a training saves its state this often, at most.
    together: (train, valid) -> evaluator that trains all ranked children in
      one program, see `rank_together`; None: they train one after another.
  """

  top_k: int
  rank: recipes.Recipe
  final: recipes.Recipe
  network: Any
  augmentation: augment.Augmentation
  seed: int
  checkpoint_seconds: float = 60.0
  together: Callable[..., Any] | None = None


def top_children(rows: list[Row], space, k: int) -> list[Row]:
  """The first k of `architectures.best_first`; of several objectives, of
  `front.of`."""
  if front.has_one(rows):
    return [member.row for member in front.of(rows)[:k]]
  return list(itertools.islice(architectures.best_first(rows, space), k))


def network_of(space, decisions, config) -> nn.Module:
  """The static network of a child, at any size."""
  return families.network(space, space.decode(decisions), config)


def rank(
  folder: pathlib.Path,
  children: list[Row],
  space,
  settings: FinalSettings,
  train: datasets.Images,
  valid: datasets.Images,
  watch: Watch,
) -> list[Row]:
  """Retrains the children on the training split.

  Returns:
    rows {id, reward, valid_accuracy, valid_correct, valid_examples, params,
    macs}, the best first; of equal ones, the better reward, then the earlier
    child. Sizes are those of the retrained network, its auxiliary head left
    out.
  """
  path = folder / RANKING
  ranked = {
    row["id"]: row
    for row in workdir.keep_lines(path, lambda _: True, "of no child")
  }

  def note(child: Row, score: evaluation.Score, params: int, macs: int):
    row = {
      "id": child["id"],
      "reward": child["reward"],
      "valid_accuracy": score.accuracy,
      "valid_correct": score.correct,
      "valid_examples": score.examples,
      "params": params,
      "macs": macs,
    }
    workdir.append_lines(path, [row])
    ranked[row["id"]] = row
    if hosts.is_first():
      shutil.rmtree(_checkpoints(folder, "rank", child), ignore_errors=True)

  left = [child for child in children if child["id"] not in ranked]
  if left and settings.together:
    _train_together(folder, left, settings, train, valid, watch, note)
  else:
    for child in left:
      network = network_of(space, child["decisions"], settings.network)
      _, score = _train(
        folder, "rank", child, network, settings, train, watch, valid
      )
      size = counting.count_module(network, train.images.shape[1:])
      note(child, score, *size)
  return sorted(
    (ranked[child["id"]] for child in children),
    key=lambda row: (-row["valid_correct"], -row["reward"], row["id"]),
  )


def _train_together(folder, children, settings, train, valid, watch, note):
  """Notes the score of each child, and a curve of one point."""
  evaluator = settings.together(train, valid)
  examples = valid.num_images

  def done(child: Row, outcome):
    failed = math.isnan(outcome.reward)
    correct = 0 if failed else round(outcome.reward * examples)
    score = evaluation.Score(correct, examples)
    key = {"id": child["id"], "stage": "rank"}
    resumable.take_back(folder, key, -1)
    row = {
      **key,
      "step": outcome.steps,
      "epoch": float(settings.rank.epochs),
      "loss": None,
      "accuracy": None,
      "valid_accuracy": score.accuracy,
      "seconds": round(outcome.seconds, 3),
    }
    workdir.append_lines(pathlib.Path(folder) / resumable.CURVES, [row])
    watch.point(row)
    note(child, score, outcome.params, outcome.macs)

  rank_together.train(evaluator, children, settings.seed, watch, done)


def train_best(
  folder: pathlib.Path,
  child: Row,
  space,
  settings: FinalSettings,
  train: datasets.Images,
  watch: Watch,
) -> tuple[nn.Module, Any]:
  """(network, TrainState) of one child, trained for the full length.

  Args:
    train: training and validation images together.
  """
  network = network_of(space, child["decisions"], settings.network)
  state, _ = _train(folder, "final", child, network, settings, train, watch)
  return network, state


def _train(
  folder,
  stage: str,
  child: Row,
  network: nn.Module,
  settings: FinalSettings,
  train: datasets.Images,
  watch: Watch,
  valid: datasets.Images | None = None,
) -> tuple[Any, evaluation.Score | None]:
  """(state at the end, its score on `valid`), going on where it stood."""
  return resumable.train(
    folder,
    {"id": child["id"], "stage": stage},
    network,
    settings.rank if stage == "rank" else settings.final,
    settings.augmentation,
    train,
    child_seed(settings.seed, child["id"]),
    valid=valid,
    checkpoint_seconds=settings.checkpoint_seconds,
    watch=watch,
  )


def _checkpoints(folder, stage: str, child: Row) -> pathlib.Path:
  return resumable.checkpoints(folder, {"id": child["id"], "stage": stage})
