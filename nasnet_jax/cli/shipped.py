"""What is shipped beside the package: `launch/` and `configs/`.

from nasnet_jax import search
from nasnet_jax.cli import shipped

search.run(shipped.config("search_digits:tiny"), "runs/digits")
"""

import difflib
import importlib.metadata
import importlib.util
import os
import pathlib
from typing import Any


class NotShippedError(ValueError):
  """What is not there; the message is one line that names the fix."""


def home() -> pathlib.Path:
  """Where `launch/` and `configs/` are: the checkout, or what was installed.

  Raises:
    NotShippedError: for an installation without them.
  """
  checkout = pathlib.Path(__file__).parents[2]
  if (checkout / "launch" / "main.py").exists():
    return checkout
  for file in importlib.metadata.files("nasnet_jax") or ():
    if file.parts[-3:] == ("nasnet_jax", "launch", "main.py"):
      return pathlib.Path(str(file.locate())).resolve().parents[1]
  raise NotShippedError(
    "launch/ was not installed with nasnet_jax: install it again with pip, or"
    " run python launch/main.py in a checkout"
  )


def names() -> list[str]:
  """Of the configs."""
  return sorted(file.stem for file in (home() / "configs").glob("*.py"))


def of_jobs() -> dict[str, list[str]]:
  """{job: names of its configs}."""
  found: dict[str, list[str]] = {}
  for name in names():
    found.setdefault(config(name).job, []).append(name)
  return found


def path(config: str) -> str:
  """A shipped config by its name; anything else stays what it is.

  Args:
    config: such as "search_cifar:small", or a file of one's own.

  Raises:
    NotShippedError: for a bare name that is neither, naming the nearest.
    DataError: for a path with a variable that is not set.
  """
  file, colon, variant = config.partition(":")
  if not os.path.exists(file):
    from nasnet_jax.data import paths  # with NumPy, which help does not need

    file = paths.expanded(file)
  name = file.removeprefix("configs/").removesuffix(".py")
  if not os.path.exists(file) and name in names():
    file = str(home() / "configs" / f"{name}.py")
  elif not os.path.exists(file) and file == os.path.basename(file):
    near = difflib.get_close_matches(name, names(), n=1)
    hint = f"did you mean {near[0]}?" if near else f"only {', '.join(names())}"
    raise NotShippedError(f"no config is called {file!r}: {hint}")
  return f"{file}{colon}{variant}"


def config(name: str) -> Any:
  """The ConfigDict of a shipped config, or of a file of one's own; locked, so
  a misspelt field is an error.

  Args:
    name: as in `path`.

  Raises:
    NotShippedError: for a name that is neither.
    ValueError: for a variant that it does not have.
  """
  file, _, variant = path(name).partition(":")
  if not os.path.exists(file):
    raise NotShippedError(f"{file} is not there: give a config's file or name")
  spec = importlib.util.spec_from_file_location(pathlib.Path(file).stem, file)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(variant).lock()
