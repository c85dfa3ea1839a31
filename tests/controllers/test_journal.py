"""The journal survives what happens to files, and refuses what it cannot."""

import hashlib
import json
import logging
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from nasnet_jax.controllers import base, journal, make

CHOICES = (2, 3, 1, 4, 13, 2)
LONG = (2, 13, 5, 1, 7) * 8  # long enough for sums split among cores
OPTIONS = {"hidden": 8, "epochs": 2}


def key(i):
  return jax.random.fold_in(jax.random.key(7), i)


def digest(tree):
  leaves = [np.asarray(x).tobytes() for x in jax.tree.leaves(tree)]
  return hashlib.sha256(b"".join(leaves)).hexdigest()


def write(path, rounds=3, num_choices=CHOICES, name="ppo", options=OPTIONS):
  """A journal of some rounds of 16, a child left pending in each; its state."""
  controller = make(name, num_choices, **options)
  state = controller.init(key(0))
  for i in range(rounds):
    proposals, state = controller.ask(state, key(i), 16)
    journal.record_ask(path, key(i), 16, proposals)
    told = proposals.rows(slice(1, None))
    rewards = np.sin(told.id.astype(np.float32))
    status = np.zeros(len(told), np.int32)
    journal.record_tell(path, told, rewards, status)
    state = controller.tell(state, told, rewards, status)
  return state


def replay(path, **changes):
  controller = make("ppo", CHOICES, **(OPTIONS | changes))
  return journal.replay(controller, key(0), journal.read(path))


def test_rewards_and_status_read_back_to_the_bit(tmp_path):
  path = tmp_path / "journal.jsonl"
  random = np.random.default_rng(0)
  rewards = random.integers(0, 1 << 32, 5000, np.uint32).view(np.float32)
  rewards[:4] = 0.1, -0.0, np.inf, -np.inf
  m = len(rewards)
  proposals = base.Proposals(np.arange(m), np.zeros((m, 1)), np.ones(m))
  status = (np.arange(m) % 2).astype(np.int32)
  journal.record_tell(path, proposals, rewards, status)
  (tell,) = journal.read(path)
  known = ~np.isnan(rewards)
  assert (np.isnan(tell.rewards) == ~known).all()
  assert tell.rewards[known].tobytes() == rewards[known].tobytes()
  assert (tell.id == proposals.id).all()
  assert (tell.status == status).all()


def test_every_line_is_json_that_any_reader_knows(tmp_path):
  path = tmp_path / "journal.jsonl"
  proposals = base.Proposals(np.arange(2), np.zeros((2, 1)), np.ones(2))
  journal.record_ask(path, key(1), 2, proposals)
  journal.record_tell(path, proposals, [np.nan, 0.5], [base.FAILED, base.OK])

  def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")

  ask, tell = (
    json.loads(line, parse_constant=refuse)
    for line in path.read_text().splitlines()
  )
  assert list(ask) == ["ask", "key", "came", "checksum"]
  assert tell == {"tell": [0, 1], "rewards": ["nan", 0.5], "status": [1, 0]}


def test_no_journal_is_an_empty_one(tmp_path):
  assert journal.read(tmp_path / "journal.jsonl") == []
  replayed = replay(tmp_path / "journal.jsonl")
  start = make("ppo", CHOICES, **OPTIONS).init(key(0))
  assert digest(replayed.state) == digest(start)
  assert len(replayed.pending) == 0


@pytest.mark.smoke
@pytest.mark.parametrize("name", ["ppo", "reinforce"])
def test_another_process_on_one_core_replays_to_the_same_bits(
  name, tmp_path, one_device
):
  path = tmp_path / "journal.jsonl"
  state = write(path, num_choices=LONG, name=name, options={})
  script = (
    "import os, sys;"
    "hasattr(os, 'sched_setaffinity') and os.sched_setaffinity(0,"
    " [min(os.sched_getaffinity(0))]);"
    "sys.path.insert(0, sys.argv[1]); import test_journal as t;"
    "c = t.make(sys.argv[3], t.LONG);"
    "r = t.journal.replay(c, t.key(0), t.journal.read(sys.argv[2]));"
    "print(t.digest(r.state))"
  )
  here = str(pathlib.Path(__file__).parent)
  process = subprocess.run(
    [sys.executable, "-c", script, here, str(path), name],
    capture_output=True,
    text=True,
    check=True,
    env=one_device(),  # fake devices would give both as many threads
  )
  assert process.stdout.split()[-1] == digest(state)


def test_pending_proposals_come_back_ready_to_be_told(tmp_path):
  path = tmp_path / "journal.jsonl"
  state = write(path)
  replayed = replay(path)
  assert replayed.pending.id.tolist() == [0, 16, 32]
  controller = make("ppo", CHOICES, **OPTIONS)
  first, _ = controller.ask(controller.init(key(0)), key(0), 16)
  row = replayed.pending.rows(slice(0, 1))
  assert digest(row) == digest(first.rows(slice(0, 1)))
  controller.tell(state, replayed.pending, [0.1] * 3, [base.OK] * 3)


def test_a_line_cut_short_is_dropped_and_the_file_goes_on(tmp_path, caplog):
  path, whole = tmp_path / "journal.jsonl", tmp_path / "whole.jsonl"
  write(whole)
  lines = whole.read_bytes().splitlines(keepends=True)
  for cut in (1, 20, len(lines[-1]) - 1):  # the last lacks just its end
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:cut])
    caplog.clear()
    with caplog.at_level(logging.WARNING):
      events = journal.read(path)
    assert "dropped line 6" in caplog.text
    assert len(events) == 5
    replayed = replay(path)
    told = replayed.pending.rows(np.isin(replayed.pending.id, range(33, 48)))
    rewards = np.sin(told.id.astype(np.float32))
    journal.record_tell(path, told, rewards, np.zeros(15, np.int32))
    assert path.read_bytes() == whole.read_bytes()


def test_reading_changes_no_file(tmp_path):
  path = tmp_path / "journal.jsonl"
  write(path, rounds=1)
  path.write_bytes(path.read_bytes()[:-5])
  before = path.read_bytes()
  journal.read(path)
  assert path.read_bytes() == before


@pytest.mark.parametrize(
  "line",
  [
    b'{"ask": 16, "key": [0',
    b'{"tell": [1], "rewards": [0.5, 0.25], "status": [0]}',
    b'{"tell": [1], "rewards": ["high"], "status": [0]}',
    b'{"ask": 16, "key": [0, -1], "came": 16, "checksum": 1}',
    b'{"reward": 1}',
    b"[1, 2]",
    b"\x00\x00\xff",
    b"",
  ],
)
def test_a_corrupt_line_is_an_error_that_names_it(tmp_path, line):
  path = tmp_path / "journal.jsonl"
  write(path, rounds=1)
  lines = path.read_bytes().splitlines()
  path.write_bytes(b"\n".join([lines[0], line, lines[1], b""]))
  with pytest.raises(ValueError, match=r"journal\.jsonl, line 2: not a line"):
    journal.read(path)


def test_replay_notices_a_controller_with_other_options(tmp_path):
  path = tmp_path / "journal.jsonl"
  write(path)
  with pytest.raises(ValueError, match="event 5: the controller now proposes"):
    replay(path, learning_rate=0.1)  # it shows after the first update


def test_replay_refuses_an_answer_told_twice(tmp_path):
  path = tmp_path / "journal.jsonl"
  write(path)
  lines = path.read_bytes().splitlines(keepends=True)
  path.write_bytes(b"".join([*lines, lines[-1]]))
  with pytest.raises(ValueError, match="event 7: child 33 is answered but not"):
    replay(path)


def test_a_full_disk_leaves_a_journal_that_goes_on(tmp_path, monkeypatch):
  path = tmp_path / "journal.jsonl"
  state = write(path)
  lines = path.read_bytes().splitlines(keepends=True)
  path.write_bytes(b"".join(lines[:-1]))

  def fail(descriptor):
    with open(path, "r+b") as file:
      file.truncate(path.stat().st_size - 30)
    raise OSError(28, "No space left on device")

  told = replay(path).pending
  told = told.rows(told.id > 32)
  rewards, status = np.sin(told.id.astype(np.float32)), [base.OK] * 15
  with monkeypatch.context() as context:
    context.setattr(journal.os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
      journal.record_tell(path, told, rewards, status)
  journal.record_tell(path, told, rewards, status)
  assert path.read_bytes() == b"".join(lines)
  assert digest(replay(path).state) == digest(state)
