"""Callbacks for Weights & Biases and for MLflow, extras of those names.

Both go on with the same run of theirs when ours goes on: its id lies in the
run's folder. Where they send things is up to their own environment variables
(WANDB_MODE, WANDB_PROJECT, MLFLOW_TRACKING_URI).
"""

import math
import pathlib
from typing import Any

from nasnet_jax.training import workdir

Row = dict[str, Any]
_RESULT = ("test_accuracy", "valid_accuracy", "test_correct", "test_examples")


class Wandb:
  """Weights & Biases: a line for each child and each point of a curve."""

  def __init__(self):
    import wandb

    self._wandb, self._run = wandb, None

  def on_start(self, folder: pathlib.Path, config: Row):
    path = folder / "wandb_id.txt"
    known = path.read_text() if path.exists() else None
    self._run = self._wandb.init(
      dir=str(folder),
      name=folder.name,
      config=config,
      id=known,
      resume="allow" if known else None,
    )
    workdir.write_text(path, self._run.id)

  def on_round(self, rows: list[Row]):
    for row in rows:
      self._run.log(_in_group("child", row))

  def on_epoch(self, row: Row):
    self._run.log(_in_group(f"{row['stage']}_{row['id']}", row))

  def on_end(self, result: Row):
    self._run.summary.update(_of_result(result))
    self._run.finish()


class MLflow:
  """MLflow: metrics by child and by step, config and result as files."""

  def __init__(self):
    import mlflow

    self._client, self._id = mlflow.MlflowClient(), None
    self._experiment = mlflow.set_experiment

  def on_start(self, folder: pathlib.Path, config: Row):
    path = folder / "mlflow_id.txt"
    if path.exists():
      self._id = path.read_text()
    else:
      name = f"nasnet_jax {config.get('job', 'search')}"
      experiment = self._experiment(name).experiment_id
      run = self._client.create_run(experiment, run_name=folder.name)
      self._id = run.info.run_id
      workdir.write_text(path, self._id)
    self._client.update_run(self._id, status="RUNNING")
    self._client.log_dict(self._id, config, "config.json")

  def on_round(self, rows: list[Row]):
    for row in rows:
      self._log(_in_group("child", row), row["id"])

  def on_epoch(self, row: Row):
    self._log(_in_group(f"{row['stage']}_{row['id']}", row), row["step"])

  def on_end(self, result: Row):
    self._log(_of_result(result), 0)
    self._client.log_dict(self._id, result, "result.json")
    self._client.set_terminated(self._id)

  def _log(self, values: dict[str, float], step: int):
    for name, value in values.items():
      self._client.log_metric(self._id, name, value, step=step)


def _numbers(row: Row) -> dict[str, float]:
  return {
    name: value
    for name, value in row.items()
    if isinstance(value, int | float) and math.isfinite(value)
  }


def _in_group(group: str, row: Row) -> dict[str, float]:
  return {f"{group}/{name}": value for name, value in _numbers(row).items()}


def _of_result(result: Row) -> dict[str, float]:
  known = {name: result[name] for name in _RESULT if name in result}
  winner = _in_group("winner", result.get("winner", {}))
  return _numbers(known) | winner
