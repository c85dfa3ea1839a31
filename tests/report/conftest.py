"""A run folder as a search writes it, with made-up numbers."""

import json

import numpy as np
import pytest

from nasnet_jax import spaces


def _history_lines(space, children: int) -> list[dict]:
  rng = np.random.default_rng(0)
  decisions = space.sample(rng, children).tolist()
  rewards = rng.uniform(0.5, 0.9, children).tolist()
  lines = []
  for i in range(children):
    failed = i % 10 == 3
    lines.append(
      {
        "id": i,
        "round": i // 20,
        "decisions": decisions[i],
        "seed": i,
        "budget": 1.0,
        "steps": 10,
        "reward": None if failed else rewards[i],
        "status": "failed" if failed else "ok",
        "params": 100_000 + 1000 * i,
        "macs": 5_000_000 + 70_000 * i,
        "seconds": 0.5,
      }
    )
  return lines


def _result(space, lines: list[dict]) -> dict:
  ok = [line for line in lines if line["status"] == "ok"]
  top = sorted(ok, key=lambda line: -line["reward"])[:3]

  def entry(line, *names):
    genotype = space.to_json(space.decode(line["decisions"]))
    return {"genotype": genotype, **{name: line[name] for name in names}}

  return {
    "space": space.name,
    "space_options": json.loads(json.dumps(space.options)),
    "winner": entry(top[0], "id", "decisions", "params", "macs"),
    "top_k": [
      {**entry(t, "id", "reward", "params", "macs"), "valid_accuracy": 0.9}
      for t in top
    ],
    "test_accuracy": 0.8,
    "test_correct": 8,
    "test_examples": 10,
    "controller": "ppo",
    "seed": 7,
    "cost": {"children": len(lines), "child_seconds": 9, "total_seconds": 12},
    "data": {"name": "digits", "note": "8x8 <images>", "classes": ["0", "1"]},
    "environment": {"jax": "0.0"},
    "command": "python launch/main.py --config=configs/search_digits.py",
    "how_to_load": "network = load('here')",
  }


@pytest.fixture
def make_run(tmp_path):
  """make_run(children, finished, space name) -> the run's folder."""

  def make(children=40, finished=True, name="nasnet"):
    space = spaces.get(name)
    folder = tmp_path / f"run_{name}_{children}_{finished}"
    folder.mkdir()
    config = {"space": {"name": name}, "seed": 7}
    (folder / "config.json").write_text(json.dumps(config))
    lines = _history_lines(space, children)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "history.jsonl").write_text(text)
    if finished:
      result = _result(space, lines)
      (folder / "result.json").write_text(json.dumps(result))
      curve = [
        {
          "id": result["winner"]["id"],
          "stage": stage,
          "step": 10 * epoch,
          "epoch": epoch,
          "loss": 1 / epoch,
          "accuracy": 1 - 1 / epoch,
          "valid_accuracy": None if stage == "final" else 0.5,
        }
        for stage in ("final", "rank")
        for epoch in range(1, 5)
      ]
      text = "".join(json.dumps(line) + "\n" for line in curve)
      (folder / "retrain.jsonl").write_text(text)
    return folder

  return make
