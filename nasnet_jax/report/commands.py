"""Commands about a run, in the form in which its own was typed."""

import os
import pathlib
import shlex

from nasnet_jax.data import places
from nasnet_jax.report import runs

_PROGRAMS = {
  "scale": "main.py",
  "train": "main.py",
  "finetune": "main.py",
  "detect": "detect.py",
  "predict": "predict.py",
  "evaluate": "evaluate.py",
  "export": "export.py",
}


def place(run: runs.Run) -> str:
  """The run's folder as it is to be typed: from where the job was started, if
  it lies below, else from the root."""
  folder = run.path.resolve()
  if places.shown(folder) != str(folder):
    return places.shown(folder)
  below = os.path.relpath(folder)
  return folder.as_posix() if below.startswith("..") else below


def folder_beside(run: runs.Run, name: str) -> str:
  """A folder for another run, beside this one."""
  return f"{place(run)}_{name}"


def command(run: runs.Run, name: str, *arguments: str) -> str:
  """A command in the form in which this run's own was typed: nasnet-jax, or
  the programs in launch/."""
  given = str(run.result.get("command") or run.config.get("command") or "")
  words = shlex.split(given) if given else []
  program = pathlib.PurePath(words[1]) if len(words) > 1 else None
  if program is None or program.name != "main.py" or program.is_absolute():
    return _line(["nasnet-jax", name, *arguments])
  configs = program.parent.parent / "configs"
  arguments = [_as_file(word, configs) for word in arguments]
  script = program.with_name(_PROGRAMS[name]).as_posix()
  return _line([words[0], script, *arguments])


def _as_file(word: str, configs: pathlib.PurePath) -> str:
  flag, _, value = word.partition("=")
  if flag != "--config":
    return word
  name, colon, variant = value.partition(":")
  return f"{flag}={(configs / name).as_posix()}.py{colon}{variant}"


def _line(words: list[str]) -> str:
  """The words, each quoted if a shell would read it otherwise. A shell takes a
  # within a word as it is."""
  return " ".join(
    word
    if "#" in word
    and shlex.quote(word.replace("#", "")) == word.replace("#", "")
    else shlex.quote(word)
    for word in words
  )
