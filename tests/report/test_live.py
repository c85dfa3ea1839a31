"""The page of a job under way."""

import json
import logging
import time

import pytest

from nasnet_jax import report
from nasnet_jax.report import html, live, runs


def _until(done, seconds: float = 60.0):
  end = time.monotonic() + seconds
  while not done():
    assert time.monotonic() < end
    time.sleep(0.02)


def test_the_page_follows_a_search_and_shows_how_far_it_is(
  make_run, monkeypatch
):
  folder = make_run(finished=False)
  monkeypatch.setattr(live, "SHARE", 1e9)  # pages cost nothing
  config = {"space": {"name": "nasnet"}, "search": {"children": 160}}
  (folder / "config.json").write_text(json.dumps(config))
  path, page = folder / runs.HISTORY, folder / "report.html"
  lines = path.read_text().splitlines(keepends=True)
  path.write_text("".join(lines[:20]))
  with report.following(folder, seconds=0.01):
    _until(page.exists)
    assert "20 of 160 children" in page.read_text()
    path.write_text("".join(lines))
    _until(lambda: "40 of 160 children" in page.read_text())
  assert 'aria-valuenow="25"' in page.read_text()
  assert not (folder / "figures").exists()


def test_after_ctrl_c_there_is_a_page(make_run):
  folder = make_run(children=12, finished=False)
  with pytest.raises(KeyboardInterrupt), report.following(folder, 999):
    _until((folder / "report.html").exists)
    with (folder / runs.HISTORY).open("a") as file:
      file.write('{"id": 12, "reward": 0.5}\n')
    raise KeyboardInterrupt
  assert "13 children" in (folder / "report.html").read_text()
  assert not list(folder.glob(".report*"))


def test_an_error_is_one_warning_and_stops_nothing(
  make_run, monkeypatch, caplog
):
  def full(*_, **__):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(html, "write_report", full)
  folder = make_run(children=4, finished=False)
  with caplog.at_level(logging.WARNING):
    writer = live._Writer(folder, 0.0)
    writer.write()
    writer.write()
    with report.following(folder, 999):
      done = True
  assert done and writer.pages == 0
  warned = [r.getMessage() for r in caplog.records]
  assert len([w for w in warned if "No space left" in w]) <= 2
  assert warned[0].count("\n") == 0 and "No space left" in warned[0]


def test_pages_are_spaced_by_what_they_cost(make_run, monkeypatch):
  """A page of one second may be written each hundred seconds."""
  writer = live._Writer(make_run(children=4, finished=False), 10.0)
  waits = []

  class Over:
    def wait(self, seconds):
      waits.append(seconds)
      return len(waits) > 3

  times = iter([1.0, 2.0, 2.0])  # the second time it has grown, then not
  monkeypatch.setattr(runs, "last_write", lambda _: next(times))
  monkeypatch.setattr(writer, "write", lambda: 1.0)
  writer._over = Over()
  writer.run()
  assert waits == [0.0, 100.0, 100.0, 10.0]


def test_what_a_killed_process_left_is_cleared(make_run):
  folder = make_run(children=4, finished=False)
  left = folder / ".report.html.123.tmp"
  left.write_text("half")
  with report.following(folder, 999):
    _until((folder / "report.html").exists)
  assert not left.exists()


def test_a_page_that_followed_the_run_is_not_taken_for_that_of_its_end(
  make_run,
):
  folder = make_run(finished=False)
  page = report.write_report(folder)
  result = make_run(children=20) / "result.json"
  (folder / "result.json").write_bytes(result.read_bytes())
  page.touch()  # as if the thread had been late
  text = report.finish_report(folder).read_text()
  assert "Not finished" not in text and "80.00%" in text
