"""What hosts agree on; that they do, in processes of their own, is tested in
tests/search/test_hosts.py and tests/launch/test_hosts.py."""

import numpy as np
import pytest

from nasnet_jax.training import hosts, mesh, stop, workdir


@pytest.fixture
def pretend(monkeypatch):
  """pretend(index, others): two hosts or more; `others` makes, of this host's
  value, those of the rest, which come after it where it is the first."""

  def be(index, others):
    def gather(value):
      value = np.asarray(value)
      rest = [np.asarray(v, value.dtype) for v in others(value)]
      rest.insert(index, value)
      return np.stack(rest)

    monkeypatch.setattr(hosts._Hosts, "count", len(others(0)) + 1)
    monkeypatch.setattr(hosts._Hosts, "index", index)
    monkeypatch.setattr(hosts, "gather", gather)

  return be


def test_a_laptop_needs_nothing():
  hosts.start()
  assert (hosts.count(), hosts.index()) == (1, 0)
  assert hosts.gather(3).tolist() == [3]
  hosts.agree("anything", b"")


@pytest.mark.parametrize(
  "arguments",
  [("", 2), ("machine", 2, 0), ("machine:1", 2, 2), ("machine:1", 0, 0)],
)
def test_numbers_that_make_no_run_are_told_before_it_starts(arguments):
  with pytest.raises(ValueError, match="HOST:PORT"):
    hosts.start(*arguments)


def test_a_host_that_has_come_to_differ_is_named(pretend):
  state = {"weights": np.arange(3.0)}
  pretend(0, lambda value: [value, value])
  hosts.agree("the state", state)
  pretend(0, lambda value: [value, value + 1])
  with pytest.raises(hosts.HostsError, match="differ in the state: 2 from"):
    hosts.agree("the state", state)


@pytest.mark.parametrize(
  "other",
  [
    {"weights": np.array([0.0, 1.0, np.nextafter(2, 3)])},
    {"weights": np.arange(3, dtype=np.float32)},
    {"weights": np.arange(3.0)[None]},
  ],
  ids=["a bit", "a type", "a shape"],
)
def test_a_digest_sees(other):
  state = {"weights": np.arange(3.0)}
  assert hosts.digest(state) == hosts.digest({"weights": np.arange(3.0)})
  assert hosts.digest(state) != hosts.digest(other)


def test_a_signal_at_one_host_stops_all(pretend):
  request = stop.StopRequest()
  pretend(0, lambda value: [value])
  request.check("work")
  pretend(0, lambda value: [value * 0 + 15])
  with pytest.raises(stop.Stopped) as caught:
    for _ in range(stop._MOST_CALLS):
      request.check("work")
  assert caught.value.signum == 15


def test_hosts_ask_each_other_twice_a_second_whatever_a_call_takes(
  pretend, monkeypatch
):
  now, asked = [0.0], []
  monkeypatch.setattr(stop.time, "monotonic", lambda: now[0])

  def others(value):
    if np.ndim(value):
      asked.append(round(now[0], 6))
    return [value]

  pretend(0, others)
  request = stop.StopRequest()

  def work(calls, seconds, about):
    asked.clear()
    for _ in range(calls):
      now[0] += seconds
      request.check(about)
    return asked

  quick = work(200, 0.05, "quick")
  assert max(np.diff(quick)) <= stop._SECONDS
  assert len(quick) < 30
  # Calls that take longer are asked about from the first one on.
  slow = work(3, 5.0, "slow")
  assert len(slow) == 3


def test_the_first_host_alone_writes(pretend, tmp_path):
  path = tmp_path / "rows.jsonl"
  pretend(1, lambda value: [value])
  workdir.append_lines(path, [{"a": 1}])
  workdir.write_json(tmp_path / "result.json", {})
  assert list(tmp_path.iterdir()) == []
  pretend(0, lambda value: [value])
  workdir.append_lines(path, [{"a": 1}])
  assert workdir.keep_lines(path, lambda _: True, "") == [{"a": 1}]


def test_a_folder_that_not_all_hosts_share_is_refused(pretend, tmp_path):
  pretend(0, lambda value: [value])
  with workdir.locked(tmp_path):
    pass
  pretend(0, lambda value: [value + 1])
  with (
    pytest.raises(workdir.WorkdirError, match=r"not the same .* host\(s\) 1"),
    workdir.locked(tmp_path),
  ):
    pass


def test_a_mesh_without_devices_of_some_host_is_refused(pretend):
  pretend(0, lambda value: [value])  # all devices are of process 0 here
  with pytest.raises(ValueError, match="no device of 1 of the 2 hosts"):
    mesh.make_mesh(4)
