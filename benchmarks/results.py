"""The tables of docs/results, computed again from the files beside them.

    python benchmarks/results.py            # writes every table.md
    python benchmarks/results.py --check    # says what differs, and fails

A study keeps what it measured (`history.jsonl`, `result.json`, a line per run
of a strategy) and a table of it. `table.md` must be what the study's script
makes of these files today, letter by letter; tables that stand in a README must
have the same rows. What cannot be computed here is named: tables of
NAS-Bench-201 need its package (`nasbench201_table.PACKAGE`).

Not covered: what docs/results/preflight has from compiling, and
docs/results/speed, which the benchmarks write themselves.
"""

import argparse
import functools
import json
import pathlib
import statistics
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import cheap_search
import demonstration
import detection_bccd
import drop_path
import objectives
import pnas_claims
import pod_sizes
import scaling
import scores
import strategies

from nasnet_jax.report.statistics import wilson_interval
from nasnet_jax.search import nasbench201_table

RESULTS = pathlib.Path(__file__).resolve().parents[1] / "docs" / "results"


class Table(NamedTuple):
  """A file, and what must be in it.

  Attributes:
    file: below docs/results. All of it is the text if it is a `table.md`;
      otherwise it has the text's lines, each somewhere.
    text: computes it; raises ValueError where something is not installed.
  """

  file: str
  text: Callable[[], str]

  @property
  def path(self) -> pathlib.Path:
    return RESULTS / self.file

  @property
  def whole(self) -> bool:
    """Whether the file is nothing but the table."""
    return self.path.name == "table.md"

  def wrong(self, text: str) -> list[str]:
    """Lines that the file lacks, or has and should not."""
    there = self.path.read_text()
    if not self.whole:
      there = "\n".join(map(_plain, there.splitlines()))
    lines = there.splitlines()
    missing = [line for line in text.splitlines() if line not in lines]
    if self.whole and not missing and there != text:
      return ["the lines' order, or a line too many"]
    return missing


def _plain(line: str) -> str:
  """A line without marks of weight."""
  return line.replace("**", "")


def tables() -> Iterator[Table]:
  """All that there are."""
  yield Table("drop_path/table.md", _drop_path)
  yield Table("drop_path/README.md", _drop_path)
  yield Table("scaling/table.md", _scaling)
  yield Table("scaling/README.md", _scaling)
  yield Table("pnas_claims/table.md", _pnas_claims)
  yield Table("pnas_claims/README.md", _pnas_claims)
  yield Table("detection_bccd/README.md", _detection)
  yield Table("demonstration/table.md", _demonstration)
  yield Table("demonstration/README.md", _demonstration)
  yield Table("cheap/digits/table.md", _cheap)
  yield Table("cheap/README.md", _cheap)
  yield Table("scores/README.md", _scores)
  yield Table("preflight/README.md", pod_sizes.table)
  yield Table("search_cifar_small/README.md", _small_searches)
  yield Table("train_cifar_small/README.md", _small_trainings)
  for name in (*nasbench201_table.DATASETS, "pnas_chain"):
    found = functools.partial(_strategies, name, strategies.STRATEGIES)
    yield Table(f"strategies/{name}/table.md", found)
  tuning = f"tuning/{strategies.TUNING_SET}"
  found = functools.partial(_strategies, tuning, strategies.TUNING)
  yield Table(f"strategies/{tuning}/table.md", found)
  for name in nasbench201_table.DATASETS:
    found = functools.partial(_objectives, name, objectives.STRATEGIES)
    yield Table(f"objectives/{name}/table.md", found)
  tuning = f"tuning/{objectives.TUNING_SET}"
  found = functools.partial(_objectives, tuning, objectives.TUNING)
  yield Table(f"objectives/{tuning}/table.md", found)


def _read(file: str) -> Any:
  return json.loads((RESULTS / file).read_text())


def _lines(file: str) -> list[dict[str, Any]]:
  text = (RESULTS / file).read_text()
  return [json.loads(line) for line in text.splitlines()]


def _drop_path() -> str:
  return drop_path.table(_read("drop_path/results.json")["results"])


def _scaling() -> str:
  found = _read("scaling/results.json")["studies"]
  return scaling.table(
    {scaling.STUDIES[name]: study["rows"] for name, study in found.items()}
  )


def _pnas_claims() -> str:
  return pnas_claims.tables(_read("pnas_claims/results.json"))


def _demonstration() -> str:
  return demonstration.table(demonstration.read(RESULTS / "demonstration"))


def _cheap() -> str:
  return cheap_search.table(cheap_search.read(RESULTS / "cheap" / "digits"))


def _scores() -> str:
  return scores.table(_lines(f"scores/{scores.ROWS}")[1:])


def _detection() -> str:
  return detection_bccd.table(_read("detection_bccd/results.json"))


def _strategies(folder: str, labels) -> str:
  table = strategies.load_table(folder.rpartition("/")[2])
  if getattr(table.space, "min_blocks", 0):
    labels = labels | strategies.GROWING
  values = 100 * table.mean()
  return strategies.tables(RESULTS / "strategies" / folder, labels, values)[0]


def _objectives(folder: str, labels) -> str:
  table = nasbench201_table.nasbench201(folder.rpartition("/")[2])
  rewards = objectives.rewards_of(table)
  return objectives.tables(RESULTS / "objectives" / folder, labels, rewards)


def _small_searches() -> str:
  """The rows of search_cifar_small, a column for each search."""
  names = ("ppo", "random_search", "evolution", "pnas")
  columns = [_small_search(f"search_cifar_small/{name}") for name in names]
  return "\n".join(
    f"| {label} | {' | '.join(column[label] for column in columns)} |"
    for label in columns[0]
  )


def _small_search(folder: str) -> dict[str, str]:
  rows = _lines(f"{folder}/history.jsonl")
  result = _read(f"{folder}/result.json")
  ranking = _lines(f"{folder}/ranking.jsonl")
  rewards = [row["reward"] for row in rows if row["status"] == "ok"]
  best = max(rows, key=lambda row: (row["reward"] or 0, -row["id"]))
  ranked = sorted((row["valid_accuracy"] for row in ranking), reverse=True)
  params, macs = (result["winner"][name] for name in ("params", "macs"))
  return {
    "children, failed": f"{len(rows)}, {len(rows) - len(rewards)}",
    "reward, mean and standard deviation over children": (
      f"{statistics.mean(rewards):.3f}, {statistics.stdev(rewards):.3f}"
    ),
    "best reward": f"{best['reward']:.3f} (child {best['id']})",
    "best two after 5 epochs, validation": (
      ", ".join(f"{accuracy:.3f}" for accuracy in ranked)
    ),
    "winner's parameters and MACs": f"{params:,} and {macs / 1e6:.1f} M",
    "winner's test accuracy (95 % interval)": _tested(result),
    "right of 5,000 test images": f"{result['test_correct']:,}",
    "seconds of training, all children": (
      f"{sum(row['seconds'] for row in rows):,.0f}"
    ),
  }


def _tested(result) -> str:
  """Accuracy and its interval, in words."""
  correct, total = result["test_correct"], result["test_examples"]
  low, high = wilson_interval(correct, total)
  return f"{100 * correct / total:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def _small_trainings() -> str:
  """The rows of train_cifar_small."""
  lines = []
  for label, name in (
    ("NASNet-A", "nasnet_a"),
    ("the winner of our 64-child PPO search", "found"),
  ):
    result = _read(f"train_cifar_small/{name}/result.json")
    winner, seconds = result["winner"], result["cost"]["total_seconds"]
    top_5 = result["test_top_5"] / result["test_examples"]
    lines.append(
      f"| {label} | {winner['params']:,} | {winner['macs'] / 1e6:.1f} M |"
      f" {_tested(result)} | {100 * top_5:.1f} % | {seconds / 60:.0f} |"
    )
  for label, name in (
    ("weights from CIFAR-10 images | everything", "tuned"),
    ("the same | the classifier alone", "frozen"),
    ("random | everything", "scratch"),
  ):
    result = _read(f"train_cifar_small/{name}/result.json")
    lines.append(f"| {label} | {_tested(result)} |")
  return "\n".join(lines)


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--check", action="store_true", help="write nothing")
  options = parser.parse_args()
  different = 0
  for table in tables():
    try:
      text = table.text()
    except ValueError as error:
      print(f"{table.file}: not computed: {error}")
      continue
    wrong = table.wrong(text)
    if wrong and table.whole and not options.check:
      table.path.write_text(text)
      print(f"{table.file}: written")
    elif wrong:
      different += 1
      print(f"{table.file} differs:", *wrong, sep="\n  ")
  print(f"{different} differ" if different else "all as computed")
  return int(different > 0)


if __name__ == "__main__":
  sys.exit(main())
