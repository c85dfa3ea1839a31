"""Whoever wants to know how a run goes: callbacks of every job.

    class Mine:
      def on_round(self, rows):  # of a search: the round's rows of the history
        print(max(row["reward"] or 0 for row in rows))

    search.run(config, "runs/mine", callbacks=[Mine()])

Any object with some of the methods of `Callback` is one. By command they are
named: --config.callbacks="('wandb',)", 'mlflow', or 'module:name' of your own.
They are called on the first host only, and an error in one never stops a run:
it is told in a line, once for each method.
"""

import copy
import importlib
import logging
import pathlib
from collections.abc import Iterable
from typing import Any, Protocol

from nasnet_jax.training import hosts

_log = logging.getLogger(__name__)
Row = dict[str, Any]
METHODS = ("on_start", "on_round", "on_epoch", "on_end")
READY = {
  "wandb": "nasnet_jax.jobs.trackers:Wandb",
  "mlflow": "nasnet_jax.jobs.trackers:MLflow",
}


class Callback(Protocol):
  """What a callback may have; each method may be left out."""

  def on_start(self, folder: pathlib.Path, config: Row):
    """A process begins to work, or goes on, in a run's folder."""

  def on_round(self, rows: list[Row]):
    """A search's round ended; without rounds, so many children: their rows, as
    in history.jsonl."""

  def on_epoch(self, row: Row):
    """A point of a training's curve: its row, as in retrain.jsonl."""

  def on_end(self, result: Row):
    """The run is finished: result.json."""


class Listeners:
  """The callbacks of a run, called by the methods' names."""

  def __init__(self, callbacks: Iterable[Any] = ()):
    self._callbacks = tuple(callbacks)
    self._told = set()

  def __call__(self, method: str, *arguments):
    """Calls a method of all of them that have it, with copies."""
    if not hosts.is_first():
      return
    for callback in self._callbacks:
      function = getattr(callback, method, None)
      if function is None:
        continue
      try:
        function(*copy.deepcopy(arguments))
      except Exception as error:  # whatever it is, the run is worth more
        self._tell(callback, method, error)

  def _tell(self, callback, method: str, error: Exception):
    key = id(callback), method
    if key not in self._told:
      self._told.add(key)
      text = " ".join(str(error).split())[:200]
      _log.warning(
        "callback %s.%s: %s: %s; the run goes on",
        *(type(callback).__name__, method, type(error).__name__, text),
      )


NOBODY = Listeners()


def listeners(config, callbacks: Iterable[Any] = ()) -> Listeners:
  """Those that a config names, and those that are given.

  Raises:
    ValueError: one line, for a name or a package that is not there, or an
      object that is no callback.
  """
  named = config.get("callbacks") or ()
  if isinstance(named, str):
    named = tuple(filter(None, named.split(",")))
  found = [*callbacks, *map(_named, named if hosts.is_first() else ())]
  for callback in found:
    if not any(hasattr(callback, method) for method in METHODS):
      raise ValueError(
        f"callback {callback!r} has none of the methods {', '.join(METHODS)}"
      )
  return Listeners(found)


def _named(name: str):
  module, _, attribute = READY.get(name, name).partition(":")
  if not attribute:
    raise ValueError(
      f"callbacks: {name!r} is not one of {', '.join(READY)}, nor a"
      " 'module:name' of your own"
    )
  try:
    found = getattr(importlib.import_module(module), attribute)
    return found() if callable(found) else found
  except ImportError as error:
    hint = f": pip install 'nasnet_jax[{name}]'" if name in READY else ""
    raise ValueError(f"callbacks: {name!r}: {error}{hint}") from None
  except AttributeError:
    raise ValueError(f"callbacks: {module} has no {attribute}") from None
