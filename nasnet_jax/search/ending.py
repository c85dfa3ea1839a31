"""The end of a search: the final stage, and what result.json says."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from nasnet_jax import __version__, report
from nasnet_jax.jobs import (
  job_config,
  results,
  resumable,
  run_log,
  tested_answers,
)
from nasnet_jax.search import (
  final,
  front,
  going_on,
  halving,
  limits,
  rank_together,
  search_config,
)
from nasnet_jax.search.console import Console
from nasnet_jax.search.parts import Parts
from nasnet_jax.training import (
  checkpoint,
  datasets,
  evaluation,
  fit,
  workdir,
)
from nasnet_jax.training.scalars import Scalars

Row = dict[str, Any]


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


def final_stage(folder, parts: Parts, rows, console: Console) -> Found:
  """Ranks the best children, trains the first on all training images and tests
  it once."""
  children = final.top_children(rows, parts.space, parts.final.top_k)
  if not children:
    raise ValueError(limits.no_winner(parts.rounds.limit, rows))
  watch = final.Watch(console.in_fit, console.after_point, console.begin_fit)
  images = parts.images
  train = datasets.on_device(images.train)
  valid = datasets.on_device(images.valid)
  console.plan(_planned(parts, [child["id"] for child in children]))
  _tell_front(rows, parts.final.top_k, console)
  together = " together" if parts.final.together else ""
  console.say(
    f"ranking the best {len(children)}{together}:"
    f" {parts.final.rank.epochs} epochs each"
  )
  ranking = final.rank(
    folder, children, parts.space, parts.final, train, valid, watch
  )
  best = next(row for row in rows if row["id"] == ranking[0]["id"])
  console.say(
    f"training child {best['id']} on training and validation images:"
    f" {parts.final.final.epochs} epochs"
  )
  return Found(ranking, best, _train_winner(folder, parts, best, watch))


def _tell_front(rows, top_k: int, console: Console):
  """A line on who is retrained of several objectives' front."""
  if not front.has_one(rows):
    return
  members = front.of(rows)
  named = [m for m in members if m.ends or m.knee]
  left = len(named) - top_k
  words = ", ".join(f"child {m.row['id']} {front.words(m)}" for m in named)
  console.say(
    f"{len(members)} children on the front: {words}"
    + (f"; final.top_k is {top_k}, so {left} of these wait" if left > 0 else "")
  )


def _planned(parts: Parts, children: list[int]):
  """The trainings of the final stage for `Console.plan`. Who wins is not known
  before, so the last one goes by no child's number."""
  images = parts.images
  counts = images.train.num_images, images.valid.num_images
  steps = parts.final.rank.horizon(counts[0])
  last = parts.final.final.horizon(sum(counts))
  ranked = [(("rank", child), steps) for child in children]
  if parts.final.together:
    ranked = [(("rank", rank_together.ALL), len(children) * steps)]
  return [*ranked, (("final", -1), last)]


def _train_winner(
  folder, parts: Parts, best: Row, watch: final.Watch
) -> evaluation.Score:
  """The test of the winner, whose weights are then in the folder."""
  images = parts.images
  about = going_on.about_final(parts.final, images)
  score = going_on.trained_before(folder, best["id"], about)
  if score is not None:
    return score
  workdir.keep_lines(
    folder / resumable.CURVES,
    lambda row: row["stage"] != "final" or row["id"] == best["id"],
    "of an earlier winner",
  )
  both = datasets.Images(
    np.concatenate([images.train.images, images.valid.images]),
    np.concatenate([images.train.labels, images.valid.labels]),
  )
  network, state = final.train_best(
    folder, best, parts.space, parts.final, datasets.on_device(both), watch
  )
  weights = fit.variables_of(state)
  kept = tested_answers.Kept(images.class_names)
  evaluate = evaluation.make_evaluate(
    network,
    parts.final.augmentation,
    parts.final.final.eval_batch_size,
    watch=kept.see,
  )
  test = datasets.on_device(images.test)
  score = evaluate(weights, test)
  kept.write(folder, score.top_5)
  checkpoint.write(folder / results.WEIGHTS, weights)
  return score


def result_of(
  folder, config, parts: Parts, rows, found: Found, scalars: Scalars
) -> dict[str, Any]:
  """The content of result.json but for the command; with the weights it is
  all that `results.load` needs. `params` and `macs` are of the final stage's
  networks, `child_params` and `child_macs` of the children, from the history.
  """
  space, images = parts.space, parts.images

  def genotype(child: Row):
    return space.to_json(space.decode(child["decisions"]))

  by_id = {row["id"]: row for row in rows}
  on_front = front.has_one(rows) and {
    m.row["id"]: {"on_front": front.words(m)} for m in front.of(rows)
  }
  top_k = [
    {
      **row,
      **(on_front or {}).get(row["id"], {}),
      "genotype": genotype(by_id[row["id"]]),
      **_child_size(by_id[row["id"]]),
    }
    for row in found.ranking
  ]
  result = {
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
      **_child_size(found.child),
    },
    "top_k": top_k,
    "test_accuracy": found.score.accuracy,
    "test_correct": found.score.correct,
    "test_examples": found.score.examples,
    "eval_batch_size": parts.final.final.eval_batch_size,
    "recipe": dataclasses.asdict(parts.final.final),
    "network": results.describe_network(parts.final.network),
    "augmentation": dataclasses.asdict(parts.final.augmentation),
    "data": job_config.describe(images),
    "cost": _cost(folder, rows, scalars, config.child.epochs),
    "environment": run_log.environment(),
  }
  result |= search_config.own_parts(config, space)
  if on_front:
    result["front"] = front.summary(rows)
  return {**result, "how_to_load": report.how_to_load(result, folder)}


def _child_size(child: Row) -> Row:
  return {"child_params": child["params"], "child_macs": child["macs"]}


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
  if any(row.get("shared_epochs") for row in rows):
    cost["shared_weights"] = True  # whose epochs these are
  inherited = sum(bool(row.get("inherited")) for row in rows)
  if inherited:
    cost["inherited"] = inherited
  over = sum(row["status"] == halving.OVER_LIMIT for row in rows)
  if over:
    cost["over_limit"] = over
  if any(row.get("horizon") for row in rows):
    cost |= {
      "stopped": spent.stopped,
      "epochs_saved": round(spent.epochs_saved, 3),
      "seconds_saved": round(spent.seconds_saved, 3),
    }
  return cost
