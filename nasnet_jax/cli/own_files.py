"""`--import=my_parts.py`: operations, spaces, strategies, rewards and data
sources of a user's own."""

import importlib.util
import sys

from nasnet_jax.data import paths


def load(file: str):
  """Runs a file, which registers what it has, as a module of its own name.

  Raises:
    ValueError: one line, for a file that is not there or cannot be run.
  """
  path = paths.local(file).absolute()
  if path.suffix != ".py" or not path.is_file():
    raise ValueError(f"--import={file}: no such file of Python")
  if path.stem in sys.modules:
    raise ValueError(
      f"--import={file}: a module is called {path.stem} already: rename the"
      " file"
    )
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  sys.modules[path.stem] = module
  sys.path.append(str(path.parent))  # what it imports lies beside it
  try:
    spec.loader.exec_module(module)
  except Exception as error:
    words = " ".join(str(error).split())
    raise ValueError(
      f"--import={file}: {type(error).__name__}: {words}"
    ) from error
