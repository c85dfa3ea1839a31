"""A run's folder: one process, one config, whole lines."""

import importlib.util
import json
import os
import platform
import subprocess
import sys
import threading

import pytest

from nasnet_jax.training import workdir

CONFIG = {"job": "search", "child": {"epochs": 3}, "log": {"seconds": 5}}


def test_a_second_process_is_kept_out(tmp_path):
  with (
    workdir.locked(tmp_path / "run"),
    pytest.raises(workdir.WorkdirError, match="another process works in"),
    workdir.locked(tmp_path / "run"),
  ):
    pass
  with workdir.locked(tmp_path / "run") as folder:
    assert folder.is_dir()


def test_a_file_is_no_folder_to_work_in(tmp_path):
  (tmp_path / "file").touch()
  with (
    pytest.raises(workdir.WorkdirError, match="file is no folder"),
    workdir.locked(tmp_path / "file"),
  ):
    pass


def test_a_run_of_another_job_is_told_by_the_jobs_name(tmp_path):
  workdir.claim(tmp_path / "config.json", {"child": {"epochs": 3}, "job": "a"})
  with pytest.raises(workdir.WorkdirError, match="job was 'a' and is now 'b'"):
    workdir.claim(tmp_path / "config.json", {"job": "b", "train": {}})


def test_a_field_that_differs_is_named(tmp_path):
  path = tmp_path / "config.json"
  workdir.claim(path, CONFIG)
  other = {**CONFIG, "child": {"epochs": 4}}
  with pytest.raises(
    workdir.WorkdirError, match=r"child.epochs was 3 and is now 4"
  ):
    workdir.claim(path, other, ("log",))
  assert json.loads(path.read_text()) == CONFIG


@pytest.mark.parametrize(
  ("config", "name"),
  [
    ({**CONFIG, "extra": 1}, "extra was 'not there'"),
    ({"job": "search", "log": {"seconds": 5}}, "child.epochs was 3"),
  ],
)
def test_a_field_more_or_less_is_named(tmp_path, config, name):
  workdir.claim(tmp_path / "config.json", CONFIG)
  with pytest.raises(workdir.WorkdirError, match=name):
    workdir.claim(tmp_path / "config.json", config)


def test_a_config_of_before_a_field_goes_on_where_it_says_the_same(tmp_path):
  path = tmp_path / "config.json"
  new = {**CONFIG, "data": {"note": None}, "decay": (2, 3), "fold": 1}
  absent = {"fold": 1, "decay": (2, 3)}
  for config in (CONFIG, new, CONFIG):
    workdir.claim(path, config, absent=absent)
    assert json.loads(path.read_text()) == json.loads(json.dumps(config))
  for field, value in (("fold", 2), ("data", {"note": "mine"})):
    with pytest.raises(workdir.WorkdirError, match="was 'not there'"):
      workdir.claim(path, {**new, field: value}, absent=absent)


def test_fields_that_may_change_do(tmp_path):
  path = tmp_path / "config.json"
  workdir.claim(path, CONFIG)
  new = {**CONFIG, "log": {"seconds": 9}}
  workdir.claim(path, new, ("log",))
  assert json.loads(path.read_text()) == new


def test_tuples_compare_equal_to_the_lists_of_the_file(tmp_path):
  for _ in range(2):
    workdir.claim(tmp_path / "config.json", {"operations": ("a", "b")})


def test_lines_that_do_not_count_are_taken_out(tmp_path, caplog):
  path = tmp_path / "rows.jsonl"
  workdir.append_lines(path, [{"round": r} for r in (0, 0, 1)])
  kept = workdir.keep_lines(path, lambda row: row["round"] < 1, "unfinished")
  assert kept == [{"round": 0}] * 2
  assert path.read_text() == '{"round": 0}\n' * 2
  assert "dropped 1 line(s), unfinished" in caplog.text


def test_a_cut_last_line_is_taken_out(tmp_path, caplog):
  path = tmp_path / "rows.jsonl"
  path.write_text('{"a": 1}\n{"a": ')
  assert workdir.keep_lines(path, lambda _: True, "") == [{"a": 1}]
  assert path.read_text() == '{"a": 1}\n'
  assert "cut short" in caplog.text


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
  path = tmp_path / "rows.jsonl"
  path.write_text('{"a": 1}\n\x00\x00\n{"a": 2}\n')
  with pytest.raises(workdir.WorkdirError, match="line 2 is damaged"):
    workdir.keep_lines(path, lambda _: True, "")


def _hold(folder, machine):
  """Another process that has the folder's lock, as if on that machine."""
  script = (
    "import fcntl, sys, time\n"
    "file = open(sys.argv[1], 'w')\n"
    "fcntl.flock(file, fcntl.LOCK_EX)\n"
    "file.write(sys.argv[2]); file.flush()\n"
    "print('held', flush=True)\n"
    "time.sleep(60)\n"
  )
  process = subprocess.Popen(
    [sys.executable, "-c", script, str(folder / ".lock"), f"{machine} 1 0"],
    stdout=subprocess.PIPE,
  )
  process.stdout.readline()
  return process


def test_the_lock_of_a_machine_that_died_is_waited_for(tmp_path, monkeypatch):
  monkeypatch.setattr(workdir, "_LOCK_POLL", 0.01)
  holder = _hold(tmp_path, "elsewhere")
  try:
    timer = threading.Timer(0.3, holder.kill)  # the file server notices
    timer.start()
    with workdir.locked(tmp_path):
      assert holder.wait() != 0
    timer.join()
    owner = (tmp_path / ".lock").read_text().split()
    assert owner[:2] == [platform.node(), str(os.getpid())]
  finally:
    holder.kill()
    holder.wait()


@pytest.mark.parametrize("machine", [platform.node(), "elsewhere"])
def test_a_lock_that_is_held_is_told_at_once_or_in_the_end(
  tmp_path, monkeypatch, machine
):
  monkeypatch.setattr(workdir, "_LOCK_POLL", 0.01)
  monkeypatch.setattr(
    workdir, "_LOCK_SECONDS", 600 if machine != "elsewhere" else 0.1
  )
  holder = _hold(tmp_path, machine)
  try:
    with (
      pytest.raises(workdir.WorkdirError, match="another process"),
      workdir.locked(tmp_path),
    ):
      pass
  finally:
    holder.kill()
    holder.wait()


def test_a_new_file_takes_no_name_that_there_is(tmp_path):
  folder = tmp_path / "made" / "here"
  names = []
  for _ in range(3):
    path = workdir.new_file(folder, "cat", ".png")
    path.touch()
    names.append(path.name)
  assert names == ["cat.png", "cat_2.png", "cat_3.png"]


def test_a_system_without_file_locks_is_named_in_a_line(monkeypatch):
  monkeypatch.setitem(sys.modules, "fcntl", None)  # as on Windows
  spec = importlib.util.spec_from_file_location("again", workdir.__file__)
  with pytest.raises(ImportError, match="Linux and macOS; on Windows take WSL"):
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_a_place_for_no_folder_is_told_with_the_way(tmp_path):
  (tmp_path / "file").touch()
  with (
    pytest.raises(
      workdir.WorkdirError,
      match=r"file/run cannot be made \(.*\): take another",
    ),
    workdir.locked(tmp_path / "file" / "run"),
  ):
    pass
