"""Weights & Biases and MLflow themselves, without a network."""

import json

import pytest

pytestmark = pytest.mark.slow

CONFIG = {"job": "search", "search": {"children": 4}, "space": {"ops": ["a"]}}
ROWS = [
  {"id": i, "reward": 0.5 + i / 8, "accuracy": None, "status": "ok"}
  for i in range(2)
]
CURVE = [
  {"stage": "rank", "id": 1, "step": step, "epoch": step / 4, "loss": 1 / step}
  for step in (4, 8)
]
RESULT = {"test_accuracy": 0.75, "winner": {"id": 1, "params": 90}}


class Config(dict):
  """As much of a ConfigDict as is read."""


def _tell_all(name: str, folder):
  """A run that was stopped after its round and went on."""
  from nasnet_jax.jobs import callbacks

  for part in (0, 1):
    tell = callbacks.listeners(Config(callbacks=(name,)))
    tell("on_start", folder, CONFIG)
    if part == 0:
      tell("on_round", ROWS)
      continue
    for row in CURVE:
      tell("on_epoch", row)
    tell("on_end", RESULT)


def test_weights_and_biases_takes_a_run_that_was_stopped(
  tmp_path, monkeypatch, caplog
):
  pytest.importorskip("wandb")
  monkeypatch.setenv("WANDB_MODE", "offline")
  monkeypatch.setenv("WANDB_SILENT", "true")
  _tell_all("wandb", tmp_path)
  assert "callback" not in caplog.text
  runs = list((tmp_path / "wandb").glob("offline-run-*"))
  name = (tmp_path / "wandb_id.txt").read_text()
  assert runs and all(run.name.endswith(name) for run in runs)
  stored = b"".join(
    path.read_bytes() for path in (tmp_path / "wandb").rglob("*.wandb")
  )
  for word in (b"child/reward", b"rank_1/loss", b"test_accuracy"):
    assert word in stored


def test_mlflow_takes_a_run_that_was_stopped(tmp_path, monkeypatch, caplog):
  mlflow = pytest.importorskip("mlflow")
  monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
  mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
  _tell_all("mlflow", tmp_path)
  assert "callback" not in caplog.text
  client, name = mlflow.MlflowClient(), (tmp_path / "mlflow_id.txt").read_text()
  run = client.get_run(name)
  assert run.info.status == "FINISHED"
  assert run.data.metrics["test_accuracy"] == 0.75
  assert run.data.metrics["winner/params"] == 90
  rewards = client.get_metric_history(name, "child/reward")
  assert [(m.step, m.value) for m in rewards] == [(0, 0.5), (1, 0.625)]
  losses = client.get_metric_history(name, "rank_1/loss")
  assert [(m.step, m.value) for m in losses] == [(4, 0.25), (8, 0.125)]
  path = mlflow.artifacts.download_artifacts(
    run_id=name, artifact_path="config.json"
  )
  with open(path) as file:
    assert json.load(file) == CONFIG
