"""Packages that a notebook loaded before newer ones were installed.

Imports nothing but Python's own library: what is here may not fit together.
"""

import importlib.metadata
import re
import sys

_PACKAGE = "nasnet_jax"
_MODULES = {"pillow": "PIL", "scikit-learn": "sklearn", "absl-py": "absl"}


def stale() -> list[str]:
  """Of the packages that ours needs: "numpy 1.26.4 is loaded, and 2.4.0
  installed"."""
  found = []
  for line in importlib.metadata.requires(_PACKAGE) or ():
    if "extra ==" in line:
      continue
    name = re.match(r"[\w.-]+", line)[0]
    module = sys.modules.get(_MODULES.get(name.lower(), name.replace("-", "_")))
    version = getattr(module, "__version__", None)
    try:
      there = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      continue
    if isinstance(version, str) and version != there:
      found.append(f"{name} {version} is loaded, and {there} installed")
  return found


def check():
  """Raises RuntimeError, in one line, if the kernel has to be started anew."""
  found = stale()
  if found:
    raise RuntimeError(
      f"restart the runtime and run this cell again: {'; '.join(found)}"
    )
