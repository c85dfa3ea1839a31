"""What changes from 256 to 4,096 chips: the paper's search, on paper.

    python benchmarks/pod_sizes.py

Simulates when 20,000 children end, by how unequal children are, and counts what
one process and its disk have to bear. Nothing here has seen a chip:

- A mean update and the spread of a child's updates around it are the TPU
  compiler's (docs/results/preflight; `by_machine`); a child's are drawn from a
  normal distribution.
- "in rounds" is what there is today with one child per chip: the next round
  begins when the slowest child is done. "each by itself" is what executables of
  their own for each chip would give a search without rounds: a chip that is
  done takes the next child. (Without rounds, but in one call for all chips, all
  wait for the slowest in each call: as in rounds.)
- What a strategy takes is measured (`benchmarks/controllers.py`).

Evaluation, the final stage and restarts are left out.
"""

import heapq
import json
import pathlib

import numpy as np

from nasnet_jax.jobs import by_machine

RESULTS = pathlib.Path(__file__).resolve().parents[1] / "docs" / "results"
CHILDREN, UPDATES = 20_000, 28_120  # Zoph et al. 2018; see preflight
SECONDS = 0.0277  # of a mean update, with a fold, by the compiler
CHIPS = (256, 512, 1024, 2048, 4096)
STRATEGY = "ppo"  # the paper's


def children_seconds(rng: np.random.Generator) -> np.ndarray:
  """f64[CHILDREN]: how long each trains."""
  share = np.clip(rng.normal(1.0, by_machine.SPREAD, CHILDREN), 0.5, None)
  return share * SECONDS * UPDATES


def in_rounds(seconds: np.ndarray, chips: int) -> float:
  """When the last child is done, if each round waits for its slowest."""
  rounds = [seconds[i : i + chips] for i in range(0, len(seconds), chips)]
  return float(sum(one.max() for one in rounds))


def by_themselves(seconds: np.ndarray, chips: int) -> float:
  """When the last child is done, if a free chip takes the next one."""
  free = [0.0] * chips
  for child in seconds:
    heapq.heapreplace(free, free[0] + child)
  return max(free)


def row(chips: int, seconds: np.ndarray) -> str:
  """Of the table."""
  mean = seconds.mean()
  least = seconds.sum() / chips
  rounds = in_rounds(seconds, chips)
  alone = by_themselves(seconds, chips)
  per_second = chips / mean
  return (
    f"| {chips:,} | {-(-CHILDREN // chips)} |"
    f" {rounds / 3600:.1f} h, x {rounds / least:.2f} |"
    f" {alone / 3600:.1f} h, x {alone / least:.2f} |"
    f" {chips / CHILDREN:.1%} | {per_second:.2f} |"
    f" {per_second * strategy_seconds():.1e} |"
  )


def strategy_seconds() -> float:
  """Of a core, for one child: asked for alone, and told."""
  text = (RESULTS / "speed" / "controllers.json").read_text()
  found = json.loads(text)["strategies"][STRATEGY]
  ask = next(row for row in found["asks"] if row["batch"] == 1)
  told = found["tell_microseconds_per_child"] * 1e-6
  return 1 / ask["proposals_per_second"] + told


def most_chips() -> int:
  """With which one core does nothing but ask and tell."""
  return int(SECONDS * UPDATES / strategy_seconds())


def bytes_of_a_child() -> float:
  """In the history and the journal together."""
  folder = RESULTS / "search_cifar_small" / "ppo"
  names = ("history.jsonl", "journal.jsonl")
  size = sum((folder / name).stat().st_size for name in names)
  return size / len((folder / names[0]).read_text().splitlines())


def table() -> str:
  """In Markdown."""
  seconds = children_seconds(np.random.default_rng(0))
  lines = [
    "| chips | rounds | in rounds | each by itself | children under way when"
    " one is proposed | children per second | of a core, the strategy |",
    "|---|" + "---|" * 6,
    *(row(chips, seconds) for chips in CHIPS),
  ]
  return "\n".join(lines) + "\n"


def main():
  print(table())
  print(f"one core asks and tells for {most_chips():,} chips")
  print(f"a child is {bytes_of_a_child():,.0f} bytes of history and journal")


if __name__ == "__main__":
  main()
