"""A folder here and its place in a bucket: never two truths, never half."""

import json
import logging
import shutil

import pytest

from nasnet_jax.data import buckets, mirror

PLACE = "gs://bucket/runs/one"


class _Gone(BaseException):
  """The process ends here."""


def _write(folder, **files):
  for name, text in files.items():
    path = folder / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _read(folder) -> dict[str, str]:
  return {p.stem: p.read_text() for p in folder.glob("*.jsonl")}


def _elsewhere(monkeypatch, tmp_path, name="other"):
  """From now on this is another machine."""
  monkeypatch.setenv("NASNET_JAX_CACHE", str(tmp_path / name))


def _pulled() -> dict[str, str]:
  one = mirror.Mirror(PLACE)
  one.pull()
  return _read(one.folder)


@pytest.mark.parametrize("n", range(1, 12))
def test_a_push_has_happened_or_not_wherever_it_ends(
  bucket, tmp_path, monkeypatch, n
):
  old = {"journal": "1\n", "kept": "a\n", "gone": "x\n"}
  new = {"journal": "1\n2\n", "kept": "a\n", "fresh": "y\n"}
  count = 0

  def dies(path):
    nonlocal count
    count += 1
    if count >= n:
      raise _Gone

  one = mirror.Mirror(PLACE)
  ended = False
  try:
    with one.followed():
      _write(one.folder, **old)
      one.push()
      bucket.before_write = dies
      (one.folder / "gone.jsonl").unlink()
      _write(one.folder, **new)
      one.push()
      ended = True
  except _Gone:
    pass
  bucket.before_write = lambda path: None
  assert n > 1 or not ended
  _elsewhere(monkeypatch, tmp_path)
  found = _pulled()
  assert found in (old, new)
  if ended:
    assert found == new
  # Who goes on there is followed by the first machine.
  other = mirror.Mirror(PLACE)
  with other.followed():
    _write(other.folder, journal="1\n2\n3\n")
  monkeypatch.setenv("NASNET_JAX_CACHE", str(tmp_path / "cache"))
  assert _pulled() == {**found, "journal": "1\n2\n3\n"}


def test_a_folder_that_is_ahead_of_its_bucket_stays(bucket):
  one = mirror.Mirror(PLACE)
  with one.followed():
    _write(one.folder, journal="1\n")
  _write(one.folder, journal="1\n2\n")  # written, and killed before a push
  assert _pulled() == {"journal": "1\n2\n"}
  with mirror.Mirror(PLACE).followed():
    pass
  plain = bucket.top / "bucket/runs/one/journal.jsonl"
  assert plain.read_text() == "1\n2\n"


def test_two_processes_do_not_write_to_one_place(bucket, tmp_path, monkeypatch):
  one = mirror.Mirror(PLACE)
  with (
    pytest.raises(buckets.BucketError, match="another process writes"),
    one.followed(),
  ):
    _elsewhere(monkeypatch, tmp_path)
    other = mirror.Mirror(PLACE)
    with other.followed():
      _write(other.folder, journal="theirs\n")
      _write(one.folder, journal="mine\n")
      mirror.committed()
  assert _pulled() == {"journal": "theirs\n"}


def test_what_cannot_be_right_is_refused_in_a_line(
  bucket, tmp_path, monkeypatch
):
  one = mirror.Mirror(PLACE)
  with one.followed():
    _write(one.folder, journal="1\n")
  shutil.copytree(bucket.top, tmp_path / "backup")
  with mirror.Mirror(PLACE).followed():
    _write(one.folder, journal="1\n2\n")
  newest = tmp_path / "newest"
  shutil.copytree(bucket.top, newest)

  def put(top):
    shutil.rmtree(bucket.top, ignore_errors=True)
    if top:
      shutil.copytree(top, bucket.top)

  put(tmp_path / "backup")
  with pytest.raises(buckets.BucketError, match="put back to an older state"):
    _pulled()
  put(None)
  with pytest.raises(buckets.BucketError, match=r"no run any more.*begin anew"):
    _pulled()
  _elsewhere(monkeypatch, tmp_path)
  with mirror.Mirror(PLACE).followed():
    pass
  monkeypatch.setenv("NASNET_JAX_CACHE", str(tmp_path / "cache"))
  with pytest.raises(buckets.BucketError, match="has another run"):
    _pulled()
  put(newest)
  path = bucket.top / "bucket/runs/one/journal.jsonl"
  path.write_text("0\n0\n")
  _elsewhere(monkeypatch, tmp_path, "third")
  with pytest.raises(buckets.BucketError, match=r"one/journal.jsonl is not"):
    _pulled()


def test_a_run_that_was_copied_into_a_bucket_goes_on_there(bucket):
  top = bucket.top / "bucket/runs/one"
  top.mkdir(parents=True)
  (top / "journal.jsonl").write_text("1\n")
  assert _pulled() == {"journal": "1\n"}
  with mirror.Mirror(PLACE).followed():
    pass
  mark = json.loads((top / mirror.MARK).read_text())
  assert list(mark["files"]) == ["journal.jsonl"]
  assert _pulled() == {"journal": "1\n"}


def test_a_bucket_that_is_gone_for_a_while_stops_no_run(bucket, caplog):
  one = mirror.Mirror(PLACE)
  with one.followed():
    bucket.reachable = False
    _write(one.folder, journal="1\n")
    mirror.committed()
    mirror.committed()
    assert caplog.text.count("not sent, tried again later") == 1
    bucket.reachable = True
    mirror.committed()
    plain = bucket.top / "bucket/runs/one/journal.jsonl"
    assert plain.read_text() == "1\n"
    bucket.reachable = False
    with pytest.raises(
      buckets.BucketError, match=f"the run is in {one.folder}"
    ):
      one._push_rest()
    bucket.reachable = True


def test_pushes_take_a_small_part_of_the_time(bucket, monkeypatch):
  monkeypatch.setattr(mirror, "_SHARE", 0.05)
  now, sent = [0.0], []
  monkeypatch.setattr(mirror.time, "monotonic", lambda: now[0])

  def push(self):
    sent.append(now[0])
    now[0] += 1.0

  monkeypatch.setattr(mirror.Mirror, "_push", push)
  one = mirror.Mirror(PLACE)
  for _ in range(100):
    one.push()
    now[0] += 1.0
  assert sent[:3] == [0.0, 21.0, 42.0]


def test_an_address_that_cannot_be_reached_is_refused_at_once(
  bucket, monkeypatch
):
  bucket.reachable = False
  with pytest.raises(buckets.BucketError, match=r"cannot be used.*ConnectionE"):
    mirror.Mirror(PLACE).pull()
  for bad in ("az://bucket/run", "gs://", "http://there/run"):
    with pytest.raises(buckets.BucketError, match="only gs://"):
      mirror.Mirror(bad)


@pytest.mark.parametrize(
  ("address", "package"), [(PLACE, "gcsfs"), ("s3://bucket/run", "s3fs")]
)
def test_a_missing_package_is_named(address, package, monkeypatch):
  monkeypatch.setitem(__import__("sys").modules, package, None)
  with pytest.raises(buckets.BucketError, match=f"pip install {package}$"):
    mirror.Mirror(address)


def test_pages_and_logs_are_sent_as_they_are(bucket, caplog):
  caplog.set_level(logging.INFO)
  one = mirror.Mirror(PLACE)
  with one.followed():
    (one.folder / "figures").mkdir()
    (one.folder / "figures" / "a.png").write_text("p")
    (one.folder / ".report.html.tmp").write_text("half")
    (one.folder / "report.html").write_text("page")
  top = bucket.top / "bucket/runs/one"
  sent = {str(p.relative_to(top)) for p in top.rglob("*") if p.is_file()}
  assert sent == {mirror.MARK, "figures/a.png", "report.html"}
  assert json.loads((top / mirror.MARK).read_text())["files"] == {}
  assert mirror.address_of(one.folder) == PLACE
  assert mirror.address_of(top) == ""
