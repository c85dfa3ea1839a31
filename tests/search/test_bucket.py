"""A search in a bucket goes on from the bucket alone, bit for bit."""

import pathlib
import shutil
import signal

import pytest

from nasnet_jax import controllers
from nasnet_jax.search import rounds
from nasnet_jax.training import workdir

PLACE = "gs://bucket/run"
SETTINGS = rounds.RoundSettings(children=8, children_per_round=4, seed=5)
FILES = (rounds.HISTORY, rounds.JOURNAL)


class _Gone(BaseException):
  """The machine ends here, with all that is on it."""


def _search(folder, evaluator):
  controller = controllers.make("random_search", (2, 3, 3, 2))
  return rounds.run(folder, controller, evaluator, SETTINGS)


def test_a_machine_that_is_lost_between_any_two_objects_costs_no_bit(
  bucket, harness, tmp_path, monkeypatch, rows_of
):
  _search(tmp_path, harness.FakeEvaluator())
  wanted = [rows_of(tmp_path / name) for name in FILES]
  sent, lost = [], 0

  def before_write(path):
    sent.append(path)
    if len(sent) >= limit:
      raise _Gone

  bucket.before_write = before_write
  for limit in [*range(2, 200, 5), 10_000]:
    sent.clear()
    # A new machine each time; the bucket is all that it has.
    monkeypatch.setenv("NASNET_JAX_CACHE", str(tmp_path / f"cache{limit}"))
    try:
      with workdir.locked(PLACE) as folder:
        _search(folder, harness.FakeEvaluator())
    except _Gone:
      lost += 1
    else:
      assert [rows_of(folder / name) for name in FILES] == wanted
      assert limit > 12  # it was lost on the way, again and again
      break
  assert lost > 2  # how much is sent at a time depends on the machine
  top = bucket.top / "bucket/run"
  assert [rows_of(top / name) for name in FILES] == wanted


@pytest.mark.slow
def test_a_killed_search_ends_alike_out_of_the_bucket_alone(
  finished, environment, run_python, tmp_path, same_outcome, monkeypatch
):
  store, cache = tmp_path / "store", tmp_path / "cache"
  monkeypatch.setitem(environment, "BUCKET", str(store))
  monkeypatch.setitem(environment, "NASNET_JAX_CACHE", str(cache))

  def search(*fault):
    shutil.rmtree(cache, ignore_errors=True)
    script = "tests/search/harness.py"
    return run_python(script, PLACE, *fault, "--traceback")

  for fault in ("send:4", "train:5", "save:3", "send:60", "fit:19"):
    done = search(fault)
    assert done.returncode == -signal.SIGKILL, (fault, done.stderr)
  done = search()
  assert done.returncode == 0, done.stderr
  assert "goes on with" in done.stdout
  top = store / "bucket" / "run"
  same_outcome(top, finished)
  assert (top / "report.html").exists()
  assert (top / "final" / "weights").is_dir()
  assert not (pathlib.Path(__file__).parents[2] / "gs:").exists()
