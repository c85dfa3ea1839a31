"""A search and what it found: `nas.Study(folder)`.

The same object is a search by hand, whose children the caller evaluates:

    study = nas.Study("runs/x", space=[3, 3, 4], strategy="evolution", seed=0)
    for child in study.ask(8):
      study.tell(child, reward_of(child.decisions))
    study.run(evaluate, children=200)
"""

import functools
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

from nasnet_jax.api import finishing, starting, writing
from nasnet_jax.data import places
from nasnet_jax.jobs import results
from nasnet_jax.report import runs
from nasnet_jax.search import by_hand

Row = dict[str, Any]


class Children(list):
  """Rows of history.jsonl, one for each child that was told; dicts."""

  def frame(self):
    """The same as a pandas.DataFrame, a row per child.

    Raises:
      ImportError: where pandas is not installed.
    """
    import pandas

    return pandas.DataFrame(list(self)).set_index("id", drop=False)


class Study:
  """A run's folder: a search under way, stopped or finished; or one by hand.

  Args:
    folder: the run's. Without a space it has to be there.
    space: of a search by hand: a name, numbers of choices such as [3, 3, 4],
      or a space. Whoever opens the folder again need not repeat it.
    strategy: of a search by hand, a key of `controllers.CONTROLLERS`.
    seed: of the strategy and of all children.
    enqueue: decisions of children that come first, before the strategy's own.
    start_from: the folder, or the study, of another search of this space, from
      whose children the strategy learns before its first own; what it knew at
      the start is kept in this folder.
    **options: of the strategy.

  Raises:
    ValueError: one line: a folder without a run or with another one, or
      arguments that make no search.

  >>> import tempfile
  >>> folder = tempfile.mkdtemp()
  >>> study = Study(folder, space=[3, 3, 4], strategy="random_search", seed=0)
  >>> children = study.ask(8)
  >>> for child in children:
  ...   study.tell(child, -sum(child.decisions))
  >>> _ = study.run(lambda child: -sum(child.decisions), children=20)
  >>> len(study.children)
  20
  >>> study.best(1)[0]["reward"] == max(r["reward"] for r in study.children)
  True
  """

  def __init__(
    self,
    folder,
    space=None,
    strategy: str | None = None,
    seed: int = 0,
    enqueue: Iterable = (),
    start_from=None,
    **options,
  ):
    self.folder: pathlib.Path = places.of_run(folder)
    self._hand: by_hand.ByHand | None = None
    given = {"strategy": strategy, "seed": seed, "enqueue": enqueue, **options}
    given["start_from"] = start_from
    if space is not None:
      starting.prepare()
      given["strategy"] = strategy or "evolution"
      self._hand = by_hand.ByHand(folder, space, **given)
    elif strategy is not None or any(
      (seed, list(enqueue), start_from, options)
    ):
      raise ValueError(
        "a strategy, seed, enqueue, start_from and options are for a search by"
        " hand: give its space, too"
      )
    else:
      self.folder = places.fetched(folder)
      runs.read_run(self.folder)  # says what is wrong with a folder

  # A search by hand.

  def ask(self, n: int = 1) -> list[by_hand.Child]:
    """Children to evaluate, see `by_hand.ByHand.ask`."""
    return self._by_hand.ask(n)

  def tell(self, child, reward: float | None, **costs):
    """The reward of a child, see `by_hand.ByHand.tell`."""
    self._by_hand.tell(child, reward, **costs)

  def run(
    self,
    evaluate: Callable[[by_hand.Child], float | None],
    children: int,
    at_once: int = 1,
  ) -> "Study":
    """Searches until so many children are told, see `by_hand.ByHand.run`."""
    self._by_hand.run(evaluate, children, at_once)
    return self

  def close(self):
    """Lets another process go on with a search by hand."""
    if self._hand is not None:
      self._hand.close()
      self._hand = None

  @property
  def _by_hand(self) -> by_hand.ByHand:
    if self._hand is None:
      config = self.config
      if config.get("job") != by_hand.JOB:
        raise ValueError(
          f"{self.folder} holds a search that trains its children itself: only"
          " one that was begun with nas.Study(folder, space=...) is asked and"
          " told"
        )
      starting.prepare()
      self._hand = by_hand.reopen(self.folder, config)
    return self._hand

  # Any search.

  @property
  def config(self) -> Row:
    """config.json."""
    return runs.read_json(self.folder / results.CONFIG)

  @property
  def children(self) -> Children:
    """The children so far, in the order in which they were told."""
    return Children(runs.read_lines(self.folder / "history.jsonl")[0])

  def best(self, k: int = 1) -> Children:
    """The rows of the k best children; fewer where fewer succeeded."""
    if k < 1:
      raise ValueError(f"best is asked for {k} children: ask for 1 or more")
    ok = [row for row in self.children if row["status"] == "ok"]
    return Children(sorted(ok, key=lambda r: (-r["reward"], r["id"]))[:k])

  @property
  def result(self) -> Row:
    """result.json; WorkdirError, one line, before the search is finished."""
    return results.read_result(self.folder)

  def front(self, cost: str = "macs") -> Children:
    """The rows of children that no other beats in both accuracy and a cost, by
    rising cost; those that failed or were stopped early are left out.

    Args:
      cost: "params", "macs", "bytes" or "latency".
    """
    from nasnet_jax.report import search_charts

    if cost not in search_charts.COSTS:
      raise ValueError(
        f"no cost is called {cost!r}: {', '.join(search_charts.COSTS)}"
      )
    rows = self.children
    history = runs.read_history(self.folder / "history.jsonl")
    by_id = {row["id"]: row for row in rows}
    chosen = history.id[search_charts.front(history, cost)].tolist()
    return Children(by_id[child] for child in chosen)

  @property
  def cost(self) -> Row:
    """What the search took: children, their epochs and seconds; of one that is
    not finished, what is known so far."""
    path = self.folder / results.RESULT
    if path.exists():
      return runs.read_json(path).get("cost", {})
    rows = self.children
    seconds = sum(row["seconds"] for row in rows)
    return {"children": len(rows), "child_seconds": round(seconds, 3)}

  def genotype(self, child: int | str) -> Row:
    """A child's architecture in names, as JSON holds it.

    Args:
      child: its number, or its place: "1st".

    Raises:
      ValueError: one line, for a child that is not there or failed.
    """
    space, genotype = results.find_cells(f"{self.folder}#{child}")
    return space.to_json(genotype)

  def train(
    self,
    child: int | str,
    folder=None,
    *,
    epochs: int | None = None,
    callbacks: Iterable[Any] = (),
  ) -> results.Trained:
    """Trains any child as the final stage would train the winner, and tests it.

    Args:
      child: its number, or its place: "2nd".
      folder: of that run, with which the same call goes on; None: the study's,
        with "-child12" behind its name.
      epochs: None: as many as the winner's.
      callbacks: see `jobs.callbacks`.

    Raises:
      ValueError: one line, for a child that cannot be trained.
    """
    return finishing.train(self.folder, child, folder, epochs, callbacks)

  def resume(self, *, callbacks: Iterable[Any] = (), **changes) -> "Study":
    """Goes on with a search that was stopped, or with a finished one for more
    children.

    Args:
      callbacks: see `jobs.callbacks`.
      **changes: of `config.search`: children=200, hours=8.

    Raises:
      ValueError: one line, for what cannot change, or data that is not there.
    """
    finishing.resume(self.folder, callbacks, changes)
    self.__dict__.pop("winner", None)
    return self

  def report(self) -> pathlib.Path:
    """Writes report.html into the folder; its path."""
    return writing.report(self.folder)

  def _repr_html_(self) -> str:
    from nasnet_jax.report import notebook

    return notebook.snippet(self.folder)

  @functools.cached_property
  def winner(self) -> results.Trained:
    """The network that won, trained: `study.winner.predict(images)`."""
    return results.load(self.folder)

  def __repr__(self) -> str:
    state = "finished" if (self.folder / results.RESULT).exists() else "open"
    return f"<Study {self.folder}: {len(self.children)} children, {state}>"
