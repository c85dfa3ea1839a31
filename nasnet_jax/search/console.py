"""What a search logs while it runs: a few lines per round."""

import logging
import time
from collections.abc import Callable
from typing import Any

from nasnet_jax.jobs import callbacks, run_log
from nasnet_jax.search import halving, rounds
from nasnet_jax.training import compile_clock, live, profile, stop
from nasnet_jax.training.live import duration
from nasnet_jax.training.scalars import Scalars

_log = logging.getLogger(__name__)
Row = dict[str, Any]


class Console(run_log.Console):
  """A search's console, which also tells of rounds."""

  def __init__(
    self,
    request: stop.StopRequest,
    scalars: Scalars,
    settings: rounds.RoundSettings,
    epochs: float,
    every: float,
    trace: profile.StepTrace | None = None,
    tick: Callable[[], None] = lambda: None,
    tell: callbacks.Listeners = callbacks.NOBODY,
  ):
    """settings: of the search; epochs: of a child of budget 1; every: seconds
    between lines on work that is under way; trace, tell: see `run_log.Console`;
    tick: called at every device call, too."""
    super().__init__(request, scalars, every, trace, tell)
    self._tick = tick
    self._settings, self._epochs = settings, epochs
    self._rounds = []  # (children, seconds) of this process
    told = [row for row in scalars.rows if row["group"] == "search"]
    self._last = told[-1] if told else {"step": 0, "round": -1}
    self._since = self._now()

  def _now(self) -> float:
    """A clock that stands still while something compiles."""
    return time.monotonic() - compile_clock.seconds()

  def in_round(self, share: float, text: str):
    """A round under way: `evaluation.Progress`. Without rounds, the search."""
    self._trace.tick()
    self._tick()
    self._request.check("children")
    self._show(share, text)
    if self._quiet_for_long():
      what = "search" if self._settings.asynchronous else "round"
      text = text and f", {text}"
      _log.info("  %3.0f%% of the %s%s", 100 * share, what, text)

  def _show(self, share: float, text: str):
    """The live line of a round under way."""
    total, done = self._settings.children, self._last["step"]
    words = f"{done}/{total} children"
    under_way = share * total - done  # children that these seconds trained
    if not self._settings.asynchronous:
      size = min(self._settings.children_per_round, total - done)
      words = f"round {self._last['round'] + 2}, {words}"
      under_way = share * size
    best = self._last.get("best_reward")
    words += f", best {best:.4f}" if best is not None else ""
    each = self._each()
    if each is None and under_way > 0:
      each = (self._now() - self._since) / under_way
    left = None if each is None else each * max(0, total - done - under_way)
    text = text and f" ({text})"  # at the end, where terminals cut it off
    live.show(words, left=left, then=f" and the final stage{text}")

  def _each(self) -> float | None:
    """Seconds per child; None before the first round of this process."""
    # The first round begins cold, so it says little about those to come.
    rounds_ = self._rounds[1:] or self._rounds
    if not rounds_:
      return None
    children, spent = map(sum, zip(*rounds_))
    return spent / children

  def in_fit(self, stage: str, child: int, step: int, horizon: int):
    self._tick()
    super().in_fit(stage, child, step, horizon)

  def after_round(self, rows: list[Row], fresh: int, seconds: float):
    """A finished round: all rows, the number of this round's, its seconds."""
    compiled = compile_clock.seconds(since=time.monotonic() - seconds)
    self._rounds.append((fresh, max(0.0, seconds - compiled)))
    each = self._each()
    good = [r for r in rows if r["reward"] is not None]
    now = [r["reward"] for r in rows[-fresh:] if r["reward"] is not None]
    best = max(good, key=lambda r: r["reward"], default=None)
    mean = sum(now) / len(now) if now else None
    over = sum(r.get("status") == halving.OVER_LIMIT for r in rows[-fresh:])
    failed = fresh - len(now) - over
    total = self._settings.children
    number = f"round {rows[-1]['round'] + 1}: "
    if self._settings.asynchronous:
      number = ""
    words = [
      f"{number}{len(rows)}/{total} children",
      f"mean {mean:.4f}" if now else "",
      f"best {best['reward']:.4f} (child {best['id']})" if best else "",
      f"{failed} failed" if failed else "",
      f"{over} over a limit" if over else "",
      self._saved(rows),
      f"{each:.1f} s per child",
    ]
    left = total - len(rows)
    if left > 0:
      words.append(f"{duration(left * each)} to go")
    self.say(", ".join(filter(None, words)))
    values = {
      "mean_reward": mean,
      "best_reward": best["reward"] if best else None,
      "failed": failed,
      "over_limit": over or None,
      "round": rows[-1]["round"],
      "seconds": round(seconds, 3),
      "child_seconds": sum(r["seconds"] for r in rows[-fresh:]),
      **profile.numbers(),
    }
    self.scalars.write(len(rows), values, "search")
    self._last, self._since = self.scalars.rows[-1], self._now()
    self._tell("on_round", rows[-fresh:])
    self._request.check("rounds")

  def _saved(self, rows: list[Row]) -> str:
    """In words, what stopping children early has saved so far."""
    if not self._settings.halving.eta:
      return ""
    spent = halving.spent(rows, self._epochs)
    whole = spent.epochs + spent.epochs_saved
    return (
      f"{spent.stopped} stopped early, {spent.epochs_saved:.1f} of"
      f" {whole:.1f} epochs and {duration(spent.seconds_saved)} saved"
    )
