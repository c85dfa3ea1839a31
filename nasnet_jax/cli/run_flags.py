"""Which run a program asks about: --checkpoint=RUN, --workdir=RUN and a plain
word mean the same."""

import pathlib
from typing import NamedTuple

from absl import flags

from nasnet_jax.cli import entry
from nasnet_jax.data import paths, places

NAMES = ("checkpoint", "workdir")
_FILES = ("config.json", "result.json")  # one of them marks a run's folder


class RunFlags(NamedTuple):
  """The flags of one program."""

  checkpoint: flags.FlagHolder
  workdir: flags.FlagHolder

  def given(self) -> str:
    """What the flags say, "" if nothing.

    Raises:
      UsageError: if they name two folders.
    """
    found = [flag.value for flag in self if flag.value]
    if len({paths.expanded(one).rstrip("/") for one in found}) > 1:
      raise entry.UsageError(
        f"--checkpoint={found[0]} and --workdir={found[1]} mean the same and"
        " name two runs: give one"
      )
    return found[0] if found else ""

  def take(
    self, words: list[str], pictures: bool = False
  ) -> tuple[str, list[str]]:
    """(the run, "" if none is given; the words that are left).

    Args:
      words: plain ones, of which the first may be the run.
      pictures: whether the other words may be pictures; the first is then the
        run only if it is the folder of one.

    Raises:
      UsageError: as `given`, or for a word too many.
    """
    run = self.given()
    if not run and words and (not pictures or is_run(words[0])):
      run, words = words[0], words[1:]
    if words and not pictures:
      raise entry.UsageError(
        f"{words[0]!r} is one word too many: only the run is a plain word, all"
        " else is given by flags (pictures to evaluate on by --images=FOLDER)"
      )
    return run, words


def define() -> RunFlags:
  """Defines both flags."""
  return RunFlags(
    flags.DEFINE_string("checkpoint", None, "folder of a finished run"),
    flags.DEFINE_string("workdir", None, "the same"),
  )


def is_run(path) -> bool:
  """Whether it is the folder of a run."""
  folder: pathlib.Path = places.fetched(path)
  return any((folder / name).exists() for name in _FILES)
