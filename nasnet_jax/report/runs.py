"""Reading a run: a folder of text that may still be growing.

Readers take what is there. A truncated last line, a file that does not exist
yet, failed children and an empty history are normal, not errors.
"""

import contextlib
import datetime
import json
import math
import os
import pathlib
import types
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from nasnet_jax import spaces
from nasnet_jax.data import places

HISTORY, CURVES, SCALED = "history.jsonl", "retrain.jsonl", "scaled.jsonl"
TESTED = "test_answers.json"
# One of them is there as soon as a run has begun.
_FILES = ("config.json", HISTORY, CURVES, SCALED, "result.json")


class History(NamedTuple):
  """`history.jsonl` as columns, in the order of its lines.

  Attributes:
    id: int[n], the child.
    round: int[n].
    decisions: n lists of integers.
    reward: float[n], NaN for a failed child.
    accuracy: float[n], on the validation images; NaN for a failed child.
    stopped: bool[n], children that were stopped before their end.
    params, macs, bytes, latency: float[n], NaN where the line has none.
    seconds: float[n], 0 where the line has none.
    over_limit: bool[n], children that were too large to be trained; they have
      no reward, as failed ones.
    heir_of: int[n], the child whose final weights it began with; -1: nobody's.
    skipped: lines that could not be read, a truncated last one not counted.
    objectives: names of several objectives, the first line's; () for one.
    rewards: float[n, k] in these, larger is better; NaN for a failed child.
    scores: of initial weights, by name float[n], NaN where the line has none.
  """

  id: np.ndarray
  round: np.ndarray
  decisions: list[list[int]]
  reward: np.ndarray
  accuracy: np.ndarray
  stopped: np.ndarray
  params: np.ndarray
  macs: np.ndarray
  bytes: np.ndarray
  latency: np.ndarray  # seconds
  seconds: np.ndarray
  skipped: int = 0
  over_limit: np.ndarray = np.zeros(0, bool)  # bool[n]: too large to train
  heir_of: np.ndarray = np.zeros(0, int)
  objectives: tuple[str, ...] = ()
  rewards: np.ndarray = np.zeros((0, 0))
  scores: Mapping[str, np.ndarray] = types.MappingProxyType({})

  def __len__(self) -> int:
    return len(self.reward)

  @property
  def failed(self) -> np.ndarray:
    return np.isnan(self.reward)


class Curve(NamedTuple):
  """One network's training in the final stage; NaN where nothing was noted."""

  id: int
  stage: str  # "rank" or "final"
  step: np.ndarray
  epoch: np.ndarray
  loss: np.ndarray
  accuracy: np.ndarray
  valid_accuracy: np.ndarray
  seconds: np.ndarray = np.zeros(0)  # from point to point


class Run(NamedTuple):
  """All that a report needs of a run's folder."""

  path: pathlib.Path
  config: dict[str, Any]
  history: History
  curves: list[Curve]
  result: dict[str, Any]  # empty until the search is finished
  changed: str  # when the last line was written, UTC; "" before the first
  tested: dict[str, Any]  # its answers to the test images, if they were kept

  @property
  def kind(self) -> str:
    """The job: "search", "train", "scale", "detect", "import"; "" if there is
    no run in the folder."""
    if self.result:
      return str(self.result.get("job", "search"))  # searches do not say
    if self.config.get("job"):
      job = str(self.config["job"])
      return "search" if job == "by_hand" else job
    if (self.path / SCALED).exists():
      return "scale"
    if "space" in self.config or (self.path / HISTORY).exists():
      return "search"
    return "train" if self.curves else ""


def read_lines(path) -> tuple[list[dict[str, Any]], int]:
  """The objects of a .jsonl file, and how many lines could not be read.

  A last line without its newline may be half written: it is left out, and not
  counted, if it is no JSON object.
  """
  try:
    data = pathlib.Path(path).read_bytes()
  except FileNotFoundError:
    return [], 0
  *lines, last = data.split(b"\n")
  rows, skipped = [], 0
  for line in lines:
    row = _object(line)
    if row is not None:
      rows.append(row)
    elif line.strip():
      skipped += 1
  row = _object(last)
  return (rows if row is None else [*rows, row]), skipped


def _object(line: bytes) -> dict[str, Any] | None:
  try:
    row = json.loads(line)
  except ValueError:  # UnicodeDecodeError is one too
    return None
  return row if isinstance(row, dict) else None


def read_json(path) -> dict[str, Any]:
  """The object in a file; {} if it is missing, half written or no object."""
  try:
    data = pathlib.Path(path).read_bytes()
  except FileNotFoundError:
    return {}
  return _object(data) or {}


def number(value) -> float:
  """A float; NaN for null, text and other things that are no number."""
  if isinstance(value, bool) or not isinstance(value, int | float):
    return math.nan
  return float(value)


def read_history(path) -> History:
  """`history.jsonl`. A reward that is not finite makes a child a failed one;
  lines without an accuracy are older than other rewards."""
  rows, skipped = read_lines(path)

  def column(name: str, missing: float = math.nan) -> np.ndarray:
    values = np.array([number(r.get(name)) for r in rows], float)
    return np.where(np.isfinite(values), values, missing)

  heirs = np.array([r.get("inherited") is True for r in rows], bool)
  ok = np.array([r.get("status", "ok") == "ok" for r in rows], bool)
  decisions = [r.get("decisions") for r in rows]
  reward = np.where(ok, column("reward"), math.nan)
  old = np.array(["accuracy" not in r for r in rows], bool)
  accuracy = np.where(old, reward, column("accuracy"))
  objectives = _objectives(rows)
  return History(
    id=column("id", -1).astype(int),
    round=column("round", 0).astype(int),
    decisions=[d if isinstance(d, list) else [] for d in decisions],
    reward=reward,
    accuracy=np.where(np.isnan(reward), math.nan, accuracy),
    stopped=~np.isnan(reward) & (column("steps") < column("horizon")),
    params=column("params"),
    macs=column("macs"),
    bytes=column("bytes"),
    latency=column("latency"),
    seconds=column("seconds", 0.0),
    skipped=skipped,
    over_limit=np.array([r.get("status") == "over_limit" for r in rows], bool),
    heir_of=np.where(heirs, column("parent", -1), -1).astype(int),
    objectives=objectives,
    rewards=_rewards(rows, objectives, np.isnan(reward)),
    scores=_scores(rows),
  )


def _scores(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
  found = [row.get("scores") for row in rows]
  found = [values if isinstance(values, dict) else {} for values in found]
  names = dict.fromkeys(name for values in found for name in values)
  return {
    name: np.array([number(values.get(name)) for values in found])
    for name in names
  }


def _objectives(rows: list[dict[str, Any]]) -> tuple[str, ...]:
  known = (row.get("objectives") for row in rows)
  return tuple(next((o for o in known if isinstance(o, dict)), ()))


def _rewards(rows, objectives: tuple[str, ...], failed) -> np.ndarray:
  """float[n, k]; a child that lacks one of them has none."""
  told = [row.get("objectives") for row in rows]
  told = [values if isinstance(values, dict) else {} for values in told]
  found = [[number(t.get(name)) for name in objectives] for t in told]
  found = np.array(found, float).reshape(len(rows), len(objectives))
  known = np.isfinite(found).all(-1) & ~failed
  return np.where(known[:, None], found, math.nan)


def read_retrain(path) -> list[Curve]:
  """`retrain.jsonl`: one curve per (stage, child), the final ones last.

  A resumed training may have written a step twice; the later line counts.
  """
  rows, _ = read_lines(path)
  groups: dict[tuple[str, int], dict[float, dict]] = {}
  for row in rows:
    step = number(row.get("step"))
    if math.isnan(step) or math.isnan(number(row.get("id"))):
      continue
    key = (str(row.get("stage", "final")), int(row["id"]))
    groups.setdefault(key, {})[step] = row
  order = sorted(groups, key=lambda key: (key[0] == "final", key))
  return [_curve(*key, groups[key]) for key in order]


def _curve(stage: str, child: int, by_step: dict[float, dict]) -> Curve:
  rows = [by_step[step] for step in sorted(by_step)]
  columns = {
    name: np.array([number(r.get(name)) for r in rows])
    for name in (
      "step",
      "epoch",
      "loss",
      "accuracy",
      "valid_accuracy",
      "seconds",
    )
  }
  return Curve(id=child, stage=stage, **columns)


def why_no_run(path: pathlib.Path, missing: str) -> str:
  """In a line, what a path is that is not the folder of a run.

  Args:
    missing: the file that a run would have.
  """
  if not path.exists():
    return f"no such folder: {path}"
  if not path.is_dir():
    return f"{path} is a file: give the folder of a run"
  return f"{path} has no run in it: there is no {missing}"


def read_run(run_dir) -> Run:
  """Everything of a run's folder.

  Raises:
    FileNotFoundError: in one line, if there is no such folder, or no run in it.
  """
  path = places.fetched(run_dir)
  if not any((path / name).exists() for name in _FILES):
    raise FileNotFoundError(why_no_run(path, _FILES[0]))
  result = _here(read_json(path / "result.json"), path)
  return Run(
    path=path,
    config=read_json(path / "config.json"),
    history=read_history(path / HISTORY),
    curves=read_retrain(path / CURVES),
    result=result,
    changed=_changed(path),
    # Of a run that goes on, what is there is of the result before.
    tested=read_json(path / TESTED) if result else {},
  )


def how_to_load(result: dict[str, Any], folder) -> str:
  """The lines of Python that give the network of a result.

  Args:
    folder: where the run is.
  """
  shape = ", ".join(map(str, result["data"]["image_shape"]))
  package, name, call = "nasnet_jax", "winner", "search.load_winner"
  if result.get("job"):  # a search's result names none
    package, name, call = "nasnet_jax.jobs", "network", "results.load"
  return (
    f"from {package} import {call.partition('.')[0]}\n"
    f"{name} = {call}({places.shown(folder)!r})\n"
    f"logits = {name}.predict(images)  # uint8[N, {shape}]"
  )


def _here(result: dict[str, Any], folder: pathlib.Path) -> dict[str, Any]:
  """A result whose run may have been moved since it was written."""
  if "how_to_load" not in result:
    return result
  try:
    return {**result, "how_to_load": how_to_load(result, folder)}
  except (KeyError, TypeError):  # another version's, or a part of one
    return result


def last_write(path: pathlib.Path) -> float:
  """When a run's files last changed that its page shows; 0 before that."""
  times = [0.0]
  for name in (HISTORY, CURVES, SCALED, "ranking.jsonl", "result.json"):
    with contextlib.suppress(OSError):
      times.append((path / name).stat().st_mtime)
  return max(times)


def _changed(path: pathlib.Path) -> str:
  seconds = last_write(path)
  if not seconds:
    return ""
  when = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
  return when.strftime("%Y-%m-%d %H:%M:%S UTC")


def space_of(run: Run):
  """The space that was searched, or None where neither file tells.

  `result.json` has "space" and "space_options"; a running search has only its
  config, where "space" is a name or a dict with the name and the options.
  """
  for source in (run.result, run.config):
    space = source.get("space")
    options = dict(source.get("space_options") or {})
    if isinstance(space, dict):
      options = {**space, **options}
      space = options.get("name")
    if not isinstance(space, str):
      continue
    options.pop("name", None)
    try:
      return spaces.get(space, **options)
    except (TypeError, ValueError):
      continue  # a space of another version: the report goes without
  return None


def target_of(run: Run, cost: str) -> float | None:
  """The target of the run's reward, if it is one of that cost."""
  try:
    reward = run.config["search"]["reward"]
    kinds = ("mnasnet_soft", "mnasnet_hard")  # the others have none
    if reward["kind"] not in kinds or reward["cost"] != cost:
      return None
    target = number(reward["target"])
  except (KeyError, TypeError):  # an older config, or none yet
    return None
  return None if math.isnan(target) else target


def valid_decisions(run_history: History, space) -> tuple[np.ndarray, ...]:
  """The decision vectors that fit a space.

  Returns:
    rows: int[m], their places in the history.
    decisions: int32[m, D].
  """
  choices = np.asarray(space.num_choices)
  rows = [
    i
    for i, row in enumerate(run_history.decisions)
    if len(row) == len(choices) and all(type(d) is int for d in row)
  ]
  table = np.array([run_history.decisions[i] for i in rows], np.int64)
  table = table.reshape(-1, len(choices))
  fits = ((table >= 0) & (table < choices)).all(-1)
  return np.array(rows, int)[fits], table[fits].astype(np.int32)


def write_atomic(path, content: str | bytes) -> pathlib.Path:
  """Writes a file so that a reader sees the old one or the new, never half."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  data = content.encode() if isinstance(content, str) else content
  partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
  try:
    partial.write_bytes(data)
    os.replace(partial, path)
  finally:
    partial.unlink(missing_ok=True)
  return path
