"""docs/extending.md, run word by word by somebody who has the package and an
empty folder."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

_PAGE = pathlib.Path(__file__).parents[2] / "docs" / "extending.md"
_COMMAND = """#!/bin/sh
exec {} -c 'from nasnet_jax.cli.commands import main; main()' "$@"
"""


def _blocks(language: str) -> list[str]:
  return re.findall(
    rf"^```{language}\n(.*?)^```$", _PAGE.read_text(), re.M | re.S
  )


def _in_file(block: str) -> str:
  """The file that a block goes into, by its first line; "" for none."""
  match = re.match(r"# (\w+\.py)\n", block)
  return match[1] if match else ""


@pytest.fixture(name="run")
def _run(tmp_path, monkeypatch):
  """run(arguments) -> its output, in a folder with the page's files."""
  folder = tmp_path / "empty"
  folder.mkdir()
  for block in _blocks("python"):
    if _in_file(block):
      with open(folder / _in_file(block), "a") as file:
        file.write(block)
  command = tmp_path / "bin" / "nasnet-jax"
  command.parent.mkdir()
  command.write_text(_COMMAND.format(sys.executable))
  command.chmod(0o755)
  # The package is found from here, as an installed one would be.
  package = [str(_PAGE.parents[1]), os.environ.get("PYTHONPATH", "")]
  monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, package)))
  monkeypatch.setenv(
    "PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}"
  )
  monkeypatch.setenv("JAX_PLATFORMS", "cpu")

  def run(*arguments: str) -> str:
    done = subprocess.run(
      arguments,
      cwd=folder,
      check=False,
      capture_output=True,
      text=True,
    )
    assert not done.returncode, done.stderr
    return done.stdout

  return run


def _script(searches: bool) -> str:
  blocks = [b for b in _blocks("python") if not _in_file(b)]
  kept = [b for b in blocks if searches or "nas.search(" not in b]
  assert kept
  return "".join(kept)


def test_the_parts_of_the_page_are_sound(run):
  printed = run(sys.executable, "-c", _script(searches=False))
  for words in (
    "operation 'mixed_pool_3x3': shapes, weights",
    "space 'one_cell': 2 operations are sound",
    "strategy 'hill': 12 children asked and told, twice alike",
    "reward 'small': 0.49",
    "data source 'bars': 200 images",
  ):
    assert words in printed
  (shell,) = _blocks("sh")
  shown = run("sh", "-c", shell.splitlines()[0])
  assert "Cells for bars that lie or stand." in shown


@pytest.mark.slow
def test_the_page_runs_word_by_word(run):
  printed = run(sys.executable, "-c", _script(searches=True))
  assert printed.endswith("my_parts:small\n")
  (shell,) = _blocks("sh")
  told = run("sh", "-ec", shell)
  assert "report:" in told
  assert "accuracy" in told
