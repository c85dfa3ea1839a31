"""Callbacks are told how a run goes, and can do it no harm."""

import json
import sys
import types

import pytest
from ml_collections import ConfigDict

from nasnet_jax.jobs import callbacks, run_log
from nasnet_jax.training import hosts, stop
from nasnet_jax.training.scalars import Scalars


class Listens:
  """Notes what it is told."""

  def __init__(self):
    self.told = []

  def on_epoch(self, row):
    self.told.append(row)


class Breaks:
  def on_epoch(self, row):
    row.clear()
    raise OSError("no\nnetwork")


def test_an_error_is_told_once_and_the_others_are_called(caplog):
  listens, row = Listens(), {"loss": 1.0}
  tell = callbacks.listeners(ConfigDict(), [Breaks(), listens])
  tell("on_epoch", row)
  tell("on_epoch", row)
  tell("on_end", {})  # nobody listens to this
  assert listens.told == [{"loss": 1.0}] * 2
  assert row == {"loss": 1.0}  # callbacks have copies
  lines = [record.getMessage() for record in caplog.records]
  assert lines == [
    "callback Breaks.on_epoch: OSError: no network; the run goes on"
  ]


def test_a_stop_is_no_error_of_a_callback():
  class Stops:
    def on_end(self, result):
      raise stop.Stopped(2)

  with pytest.raises(stop.Stopped):
    callbacks.listeners(ConfigDict(), [Stops()])("on_end", {})


def test_other_hosts_tell_nobody(monkeypatch):
  monkeypatch.setattr(hosts._Hosts, "index", 1)
  listens = Listens()
  tell = callbacks.listeners(ConfigDict({"callbacks": ("nowhere",)}), [listens])
  tell("on_epoch", {})
  assert listens.told == []


def test_every_point_of_a_curve_is_told(tmp_path):
  listens = Listens()
  tell = callbacks.listeners(ConfigDict(), [listens])
  with Scalars(tmp_path) as scalars:
    console = run_log.Console(stop.StopRequest(), scalars, 9.0, tell=tell)
    row = {"stage": "train", "id": 0, "step": 4, "loss": 0.5}
    console.after_point(row)
  assert listens.told == [row]


@pytest.mark.parametrize(
  ("named", "words"),
  [
    (("wandbb",), "'wandbb' is not one of wandb, mlflow, nor a 'module:name'"),
    (("nowhere_at_all:C",), "No module named 'nowhere_at_all'"),
    (("json:Callback",), "json has no Callback"),
    (("json:dumps",), "dumps"),
  ],
)
def test_a_name_that_is_no_callback_is_one_line(named, words):
  with pytest.raises((ValueError, TypeError), match=words) as error:
    callbacks.listeners(ConfigDict({"callbacks": named}))
  assert "\n" not in str(error.value)


def test_a_package_that_is_missing_names_the_extra(monkeypatch):
  monkeypatch.setitem(sys.modules, "wandb", None)
  with pytest.raises(ValueError, match=r"pip install 'nasnet_jax\[wandb\]'"):
    callbacks.listeners(ConfigDict({"callbacks": ("wandb",)}))


class FakeWandb(types.ModuleType):
  """What is used of the package."""

  def __init__(self):
    super().__init__("wandb")
    self.logged, self.summary, self.ids = [], {}, []
    self.log, self.finish, self.id = self.logged.append, lambda: None, "abc"

  def init(self, **options):
    self.ids.append((options["id"], options["resume"]))
    json.dumps(options["config"])
    return self


def test_weights_and_biases_gets_children_curves_and_the_result(
  monkeypatch, tmp_path
):
  fake = FakeWandb()
  monkeypatch.setitem(sys.modules, "wandb", fake)
  for _ in range(2):  # the run goes on, and so does theirs
    tell = callbacks.listeners(ConfigDict({"callbacks": ("wandb",)}))
    tell("on_start", tmp_path, {"job": "search"})
  assert fake.ids == [(None, None), ("abc", "allow")]
  tell("on_round", [{"id": 3, "reward": 0.5, "accuracy": None, "status": "ok"}])
  tell("on_epoch", {"stage": "rank", "id": 3, "step": 8, "loss": 0.25})
  tell("on_end", {"test_accuracy": 0.75, "winner": {"id": 3, "params": 9}})
  assert fake.logged == [
    {"child/id": 3, "child/reward": 0.5},
    {"rank_3/id": 3, "rank_3/step": 8, "rank_3/loss": 0.25},
  ]
  assert fake.summary == {
    "test_accuracy": 0.75,
    "winner/id": 3,
    "winner/params": 9,
  }
