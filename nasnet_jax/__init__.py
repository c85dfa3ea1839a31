"""Neural architecture search in the NASNet line, in JAX.

    import nasnet_jax as nas

    study = nas.search(images, labels, hours=1)
    study.winner.predict(new_images)

A child network is data: one compiled program trains any cell of a space.
Start with `docs/ten_lines.md` and `docs/architecture.md`; jobs that are configs
live under `launch/`.

The names below are imported when they are first asked for (PEP 562), so that
`import nasnet_jax` costs nothing and does not start JAX.
"""

import importlib
import types

__version__ = "0.1.0.dev0"

# name -> the module that has it
_WHERE = {
  "Study": "nasnet_jax.api.study",
  "cells": "nasnet_jax.api.parts",
  "chain": "nasnet_jax.api.chains",
  "check": "nasnet_jax.api.checks",
  "create_model": "nasnet_jax.api.models",
  "data_source": "nasnet_jax.api.parts",
  "list_models": "nasnet_jax.api.models",
  "load": "nasnet_jax.api.models",
  "one_of": "nasnet_jax.api.chains",
  "operation": "nasnet_jax.api.parts",
  "optuna_sampler": "nasnet_jax.api.with_optuna",
  "optuna_strategy": "nasnet_jax.api.with_optuna",
  "reward": "nasnet_jax.api.parts",
  "strategy": "nasnet_jax.api.parts",
}
# Packages that are called by their own name -> where that function is.
_CALLED = {
  "export": "nasnet_jax.api.writing",
  "report": "nasnet_jax.api.writing",
  "search": "nasnet_jax.api.searching",
}
__all__ = ["__version__", *sorted([*_WHERE, *_CALLED])]


class CallableModule(types.ModuleType):
  """A package that is a function, too: `nas.search(images, labels)`.

  `search`, `report` and `export` are packages and functions of one name. An
  import of a package puts its module into this one, over whatever was there,
  so the module itself has to be what is called. These packages take this class
  for theirs (`sys.modules[__name__].__class__`); their modules are imported as
  ever.
  """

  def __call__(self, *arguments, **keywords):
    name = self.__name__.rpartition(".")[2]
    function = getattr(importlib.import_module(_CALLED[name]), name)
    return function(*arguments, **keywords)


def __getattr__(name: str):
  if name in _CALLED:
    return importlib.import_module(f"{__name__}.{name}")
  if name not in _WHERE:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  found = getattr(importlib.import_module(_WHERE[name]), name)
  globals()[name] = found
  return found


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
