"""Searches whose children the caller evaluates."""

import json
import os
import signal
import subprocess
import sys

import pytest

import nasnet_jax as nas
from nasnet_jax.controllers import CONTROLLERS

_CHOICES = [3, 3, 4]
_BEST = (2, 1, 3)


def _reward(child) -> float:
  return sum(a == b for a, b in zip(child.decisions, _BEST)) / 3


def _open(folder, **changes):
  given = {"space": _CHOICES, "strategy": "evolution", "population": 5}
  return nas.Study(folder, **{**given, **changes})


def _content(folder) -> list[bytes]:
  return [(folder / f"{n}.jsonl").read_bytes() for n in ("history", "journal")]


@pytest.mark.parametrize(
  "strategy", sorted({*CONTROLLERS} - {"progressive", "ppo", "reinforce"})
)
def test_every_strategy_searches_by_hand(tmp_path, strategy):
  study = nas.Study(tmp_path, space=_CHOICES, strategy=strategy)
  study.run(_reward, children=15, at_once=5)
  assert [row["id"] for row in study.children] == list(range(15))
  assert study.best()[0]["reward"] == max(r["reward"] for r in study.children)


def test_a_study_that_is_opened_again_goes_on_as_if_it_had_not_been(tmp_path):
  whole = _open(tmp_path / "whole").run(_reward, children=12, at_once=4)
  study = _open(tmp_path / "parts")
  study.run(_reward, children=4, at_once=4)
  asked = study.ask(4)
  study.tell(asked[0], _reward(asked[0]))
  study.close()
  study = nas.Study(tmp_path / "parts")  # which knows its space and strategy
  back = study.ask(4)
  assert back == asked[1:]
  for child in back:
    study.tell(child, _reward(child))
  study.run(_reward, children=12, at_once=4)
  strip = [[{**row, "round": 0} for row in s.children] for s in (whole, study)]
  assert strip[0] == strip[1]


_KILLED = """
import os, signal, sys
import nasnet_jax as nas
from nasnet_jax.controllers import journal
original, count = journal._append, [0]
def append(path, event):
  count[0] += 1
  if count[0] == int(sys.argv[2]):
    os.kill(os.getpid(), signal.SIGKILL)
  original(path, event)
journal._append = append
def reward(child):
  return sum(a == b for a, b in zip(child.decisions, (2, 1, 3))) / 3
study = nas.Study(sys.argv[1], space=[3, 3, 4], population=5)
study.run(reward, children=8)
"""


def test_a_study_that_is_killed_ends_like_one_that_was_not(tmp_path):
  # The seventh event is a tell, whose line of the history is written before.
  for event, code in ((6, -signal.SIGKILL), (99, 0)):
    done = subprocess.run(
      [sys.executable, "-c", _KILLED, tmp_path / "killed", str(event)],
      env={**os.environ, "JAX_PLATFORMS": "cpu"},
      check=False,
    )
    assert done.returncode == code
  _open(tmp_path / "whole").run(_reward, children=8)
  assert _content(tmp_path / "killed") == _content(tmp_path / "whole")


@pytest.mark.parametrize("strategy", ["evolution", "genetic", "local_search"])
def test_enqueued_children_come_first_and_the_strategy_goes_on(
  tmp_path, strategy
):
  first = [[2, 1, 2], [0, 0, 0]]
  study = nas.Study(tmp_path, space=_CHOICES, strategy=strategy, enqueue=first)
  asked = study.ask(5)
  assert [list(child.decisions) for child in asked[:2]] == first
  assert [child.id for child in asked] == list(range(len(asked)))
  for child in reversed(asked):
    study.tell(child, _reward(child))
  study.close()
  nas.Study(tmp_path).run(_reward, children=12)
  assert len(nas.Study(tmp_path).children) == 12


def test_evolution_breeds_from_an_enqueued_child(tmp_path):
  study = _open(tmp_path, enqueue=[_BEST], population=1, sample=1, identity=1.0)
  study.tell(study.ask()[0], 1.0)
  # The strategy's own first child is a random one.
  random, bred = study.ask(2)
  assert bred.decisions == _BEST
  assert (random.parent, bred.parent) == (None, 0)


def test_a_child_that_failed_teaches_nothing_and_is_no_best(tmp_path):
  study = _open(tmp_path)
  study.run(lambda child: None if child.id == 0 else 0.5, children=3)
  assert study.children[0]["status"] == "failed"
  assert study.best(9) == study.children[1:]


@pytest.mark.parametrize("macs", ["5", -1, float("nan"), None])
def test_a_cost_that_is_no_number_is_refused(tmp_path, macs):
  study = _open(tmp_path)
  (child,) = study.ask()
  with pytest.raises(ValueError, match=r"child 0: macs is .*give a number"):
    study.tell(child, 0.5, macs=macs)
  study.tell(child, 0.5, macs=5)


def test_numbers_of_children_that_ask_for_none_are_refused(tmp_path):
  study = _open(tmp_path)
  for numbers in ((0, 1), (3, 0)):
    with pytest.raises(ValueError, match="give 1 or more"):
      study.run(lambda _: 0.5, *numbers)
  with pytest.raises(ValueError, match="best is asked for -1 children"):
    study.best(-1)


@pytest.mark.parametrize(
  ("reward", "words"),
  [
    ("high", "child 0: the reward is 'high': give a number"),
    (float("inf"), "give a finite number"),
  ],
)
def test_a_reward_that_is_none_is_refused_and_the_child_waits(
  tmp_path, reward, words
):
  study = _open(tmp_path)
  child = study.ask()[0]
  with pytest.raises(ValueError, match=words):
    study.tell(child, reward)
  study.tell(child, 0.5)
  with pytest.raises(ValueError, match="child 0 was told before"):
    study.tell(child, 0.5)
  with pytest.raises(ValueError, match="child 7 was never asked for"):
    study.tell(7, 0.5)


def test_an_error_of_the_evaluation_leaves_the_child_for_later(tmp_path):
  study = _open(tmp_path)
  with pytest.raises(ZeroDivisionError):
    study.run(lambda child: 1 / 0, children=3)
  assert [child.id for child in nas.Study(tmp_path).ask(3)] == [0]


def test_an_interrupted_answer_is_taken_back(tmp_path, monkeypatch):
  from nasnet_jax.controllers import journal

  study = _open(tmp_path)
  child = study.ask()[0]

  def interrupted(*_):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(journal, "record_tell", interrupted)
    with pytest.raises(KeyboardInterrupt):
      study.tell(child, 0.25)
  study.tell(child, 0.75)
  assert [row["reward"] for row in study.children] == [0.75]


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"seed": 1}, "holds a run of another config: seed was 0 and is now 1"),
    ({"space": [3, 3, 5]}, "space.num_choices was"),
    ({"strategy": "genetic"}, "strategy was 'evolution'"),
  ],
)
def test_another_search_in_the_same_folder_is_refused(tmp_path, changes, words):
  _open(tmp_path)
  with pytest.raises(ValueError, match=words):
    _open(tmp_path, **changes)


def test_bad_arguments_are_one_line_each(tmp_path):
  with pytest.raises(ValueError, match="no option of evolution"):
    _open(tmp_path, populaton=3)
  with pytest.raises(ValueError, match="enqueue: decision 2 is 9"):
    _open(tmp_path, enqueue=[[0, 0, 9]])
  with pytest.raises(ValueError, match="space is 3"):
    _open(tmp_path, space=3)
  with pytest.raises(ValueError, match="give its space, too"):
    nas.Study(tmp_path, strategy="evolution")
  with pytest.raises((ValueError, FileNotFoundError), match="has no run in it"):
    nas.Study(tmp_path)


def test_the_folder_says_what_is_searched(tmp_path):
  _open(tmp_path, enqueue=[[0, 1, 2]])
  config = json.loads((tmp_path / "config.json").read_text())
  assert config["job"] == "by_hand"
  assert config["space"] == {"name": "list", "num_choices": _CHOICES}
  assert config["enqueue"] == [[0, 1, 2]]
