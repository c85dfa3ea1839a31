"""Whole jobs on several processes: stopped, killed, gone on with elsewhere.

Children's results are equal bits however `arch` is spread; where `data` is, the
sums of gradients are rounded otherwise.
"""

import json
import pathlib
import signal
import time

import pytest

pytestmark = pytest.mark.slow

DEAD = 10  # seconds after which a silent host is given up, here
SEARCH = [
  "--config=configs/search_digits.py:tiny",
  "--config.network.num_reductions=0",
  "--config.space.num_blocks=1",
  "--config.space.operations=('identity', 'conv_1x1')",
  "--config.search.children=24",
  "--config.search.children_per_round=8",
  "--config.search.controller_options.ppo.batch_size=8",
  "--config.child.epochs=2",
]
# Two epochs of 6 updates. The whole batch is one group of batch norm.
TRAIN = [
  "--config=configs/train_cifar.py:tiny",
  "--config.train.batch_size=24",
  "--config.train.report_epochs=0.5",
  "--config.train.drop_path_keep=1.0",
  "--config.data.max_per_class=20",
]


@pytest.fixture
def job(start_processes, launch_environment):
  """job(workdir, flags, hosts, stop) -> processes of launch/main.py.

  stop: (method, n), for `stop_at.py`, of the last host."""

  def start(workdir, flags, hosts=1, stop=None):
    port = start_processes.free_port()
    processes = []
    for index in range(hosts):
      more = [
        f"--config.hosts.coordinator=127.0.0.1:{port}",
        f"--config.hosts.count={hosts}",
        f"--config.hosts.index={index}",
        f"--config.hosts.timeout={DEAD}",
      ]
      arguments = ["launch/main.py", *flags, f"--workdir={workdir}"]
      if stop and index == hosts - 1:
        arguments[:1] = ["tests/launch/stop_at.py", *stop]
      processes.append(
        start_processes(
          arguments + (more if hosts > 1 else []), launch_environment
        )
      )
    return processes

  return start


def _wait_for(file: pathlib.Path, lines: int, process):
  """Until a file has so many lines."""
  limit = time.monotonic() + 600
  while not file.exists() or len(file.read_text().splitlines()) < lines:
    assert process.is_running, process.end()[1]
    assert time.monotonic() < limit
    time.sleep(0.02)


def _ends_well(processes):
  for process in processes:
    code, output = process.end(600)
    assert code == 0, output


def _rows(path):
  lines = path.read_text().splitlines()
  return [{**json.loads(line), "seconds": 0} for line in lines]


def _same_search(folder, reference):
  for name in ("history.jsonl", "ranking.jsonl", "retrain.jsonl"):
    assert _rows(folder / name) == _rows(reference / name), name
  results = [
    json.loads((f / "result.json").read_text()) for f in (folder, reference)
  ]
  for name in ("winner", "test_correct"):
    assert results[0][name] == results[1][name]


@pytest.fixture(scope="module")
def searched(launch, tmp_path_factory):
  """A search that one process did on eight devices, undisturbed."""
  folder = tmp_path_factory.mktemp("search") / "run"
  flags = [*SEARCH, "--config.mesh.arch=8"]
  done = launch("main.py", *flags, f"--workdir={folder}")
  assert done.returncode == 0, done.stderr
  return folder


@pytest.mark.parametrize("hosts", [2, 4])
def test_a_search_is_the_same_on_any_number_of_hosts(
  job, searched, tmp_path, hosts
):
  _ends_well(job(tmp_path, [*SEARCH, "--config.mesh.arch=8"], hosts))
  _same_search(tmp_path, searched)


def test_a_search_stopped_on_eight_devices_goes_on_on_four_and_on_two_hosts(
  job, searched, tmp_path
):
  # A round is 36 calls on eight devices, 72 on four: the second process does
  # one and half of the next.
  for arch, call, told, known in ((8, 50, 8, 0), (4, 120, 16, 4)):
    flags = [*SEARCH, f"--config.mesh.arch={arch}"]
    (process,) = job(tmp_path, flags, stop=("in_round", call))
    code, output = process.end()
    assert code == 143, output
    assert len(_rows(tmp_path / "history.jsonl")) == told
    done = tmp_path / "round.jsonl"
    assert len(_rows(done) if done.exists() else []) == known
  _ends_well(job(tmp_path, [*SEARCH, "--config.mesh.arch=4"], hosts=2))
  _same_search(tmp_path, searched)


@pytest.mark.parametrize("killed", [0, 1])
def test_a_host_that_is_killed_ends_the_others_and_costs_nothing(
  job, searched, tmp_path, killed
):
  flags = [*SEARCH, "--config.mesh.arch=8"]
  processes = job(tmp_path, flags, hosts=2)
  _wait_for(tmp_path / "history.jsonl", 8, processes[0])
  processes[killed].signal(signal.SIGKILL)
  start = time.monotonic()
  code, output = processes[1 - killed].end()
  assert code not in (0, None), output
  assert time.monotonic() - start < 6 * DEAD
  assert not (tmp_path / "result.json").exists()
  _ends_well(job(tmp_path, flags, hosts=2))
  _same_search(tmp_path, searched)


def test_a_signal_at_one_host_stops_all_at_the_same_round(
  job, searched, tmp_path
):
  flags = [*SEARCH, "--config.mesh.arch=8"]
  processes = job(tmp_path, flags, hosts=2, stop=("in_round", 50))
  ends = [process.end() for process in processes]
  assert [code for code, _ in ends] == [143, 143], ends
  _ends_well(job(tmp_path, flags, hosts=2))
  _same_search(tmp_path, searched)


def test_a_search_without_rounds_is_the_same_on_two_hosts(job, tmp_path):
  flags = [
    *SEARCH,
    "--config.mesh.arch=8",
    "--config.search.asynchronous=True",
    "--config.search.halving.eta=2",
  ]
  _ends_well(job(tmp_path / "one", flags))
  _ends_well(job(tmp_path / "two", flags, hosts=2))
  _same_search(tmp_path / "two", tmp_path / "one")
  rows = _rows(tmp_path / "one" / "history.jsonl")
  assert any(row["steps"] < row["horizon"] for row in rows)


def _on_one_and_two_hosts(job, folder, flags):
  """Trains on both, with equal curves; the two contents of result.json."""
  runs = [folder / "one", folder / "two"]
  for hosts, run in enumerate(runs, 1):
    _ends_well(job(run, flags, hosts))
  wanted, found = (_rows(run / "retrain.jsonl") for run in runs)
  assert wanted
  assert [row["step"] for row in found] == [row["step"] for row in wanted]
  for row, other in zip(found, wanted):
    assert row["loss"] == pytest.approx(other["loss"], rel=1e-4)
  return [json.loads((run / "result.json").read_text()) for run in runs]


def test_photographs_are_read_by_rows_on_two_hosts(job, tmp_path):
  flags = [
    "--config=configs/transfer_imagenet.py:tiny",
    "--config.mesh.data=2",
    "--config.train.epochs=1",
    "--config.data.source=fake",
    "--config.data.options.num_images=48",
    "--config.data.options.num_classes=3",
    "--config.data.stream.image_size=32",
    "--config.data.stream.workers=0",
  ]
  one, two = _on_one_and_two_hosts(job, tmp_path, flags)
  assert one["test_examples"] == two["test_examples"]


def test_a_detector_is_the_same_on_two_hosts(job, coco_files, tmp_path):
  coco_files.white_boxes(tmp_path / "boxes", count=8, tests=3)
  flags = [
    "--config=configs/detect_voc.py:tiny",
    "--config.data.source=coco",
    f"--config.data.data_dir={tmp_path / 'boxes'}",
    "--config.data.options.valid_split=val2017",
    "--config.data.sizes.buckets=((128, 128),)",
    "--config.mesh.data=2",
    "--config.train.batch_size=4",
    "--config.train.epochs=4",
    "--config.train.eval_batch_size=2",
    "--config.train.warmup_epochs=0",
  ]
  one, two = (r["test"] for r in _on_one_and_two_hosts(job, tmp_path, flags))
  assert one["images"] == two["images"] == 3
  assert one["voc_ap50"] == pytest.approx(two["voc_ap50"], abs=0.02)


# --- training ----------------------------------------------------------------


def _mesh(data):
  return [*TRAIN, f"--config.mesh.data={data}"]


@pytest.fixture(scope="module")
def trained(launch, tmp_path_factory):
  """A training that one process did on eight devices, undisturbed."""
  folder = tmp_path_factory.mktemp("train") / "run"
  done = launch("main.py", *_mesh(8), f"--workdir={folder}")
  assert done.returncode == 0, done.stderr
  return folder


def _near(folder, reference):
  found, wanted = (_rows(f / "retrain.jsonl") for f in (folder, reference))
  assert [row["step"] for row in found] == [row["step"] for row in wanted]
  assert len(wanted) == 4
  for row, other in zip(found, wanted):
    # A dozen updates: float32 sums in another order, and what momentum makes
    # of them.
    assert row["loss"] == pytest.approx(other["loss"], rel=1e-4)
    assert row["accuracy"] == pytest.approx(other["accuracy"], abs=0.02)


@pytest.mark.parametrize("hosts", [2, 4])
def test_a_training_is_the_same_on_any_number_of_hosts(
  job, trained, tmp_path, hosts
):
  _ends_well(job(tmp_path, _mesh(8), hosts))
  _near(tmp_path, trained)


def test_a_training_stopped_on_eight_devices_goes_on_on_four_and_on_two_hosts(
  job, trained, tmp_path
):
  # After 5 and 3 of 12 updates; there is a point of the curve at every third.
  for data, call, points in ((8, 5, 1), (4, 3, 2)):
    (process,) = job(tmp_path, _mesh(data), stop=("in_fit", call))
    code, output = process.end()
    assert code == 143, output
    assert len(_rows(tmp_path / "retrain.jsonl")) == points
  _ends_well(job(tmp_path, _mesh(4), hosts=2))
  _near(tmp_path, trained)


def test_a_mesh_that_the_batch_does_not_bear_is_refused_with_the_reason(
  job, trained, tmp_path
):
  (process,) = job(tmp_path, _mesh(7))
  code, output = process.end()
  assert code == 1
  assert "a batch of 24" in output
  assert "mesh.data" in output
