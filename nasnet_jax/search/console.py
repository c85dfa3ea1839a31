"""What a search says of itself while it runs: a few lines per round."""

import logging
from typing import Any

from nasnet_jax import running
from nasnet_jax.training import stop
from nasnet_jax.training.scalars import Scalars, duration

_log = logging.getLogger(__name__)
Row = dict[str, Any]


class Console(running.Console):
  """Of a search: the rounds too."""

  def __init__(
    self,
    request: stop.StopRequest,
    scalars: Scalars,
    children: int,
    every: float,
  ):
    """children: of the whole search; every: seconds between lines on work
    that is under way."""
    super().__init__(request, scalars, every)
    self._children = children
    self._rounds = []  # (children, seconds) of this process

  def in_round(self, share: float, text: str):
    """A round under way: `evaluators.Progress`."""
    self._request.check()
    if self._quiet_for_long():
      _log.info("  %3.0f%% of the round%s", 100 * share, text and f", {text}")

  def after_round(self, rows: list[Row], fresh: int, seconds: float):
    """A finished round: all rows, the number of this round's, its seconds."""
    self._rounds.append((fresh, seconds))
    # The first round compiles: it tells little of those to come.
    children, spent = map(sum, zip(*(self._rounds[1:] or self._rounds)))
    each = spent / children
    good = [r for r in rows if r["reward"] is not None]
    now = [r["reward"] for r in rows[-fresh:] if r["reward"] is not None]
    best = max(good, key=lambda r: r["reward"], default=None)
    mean = sum(now) / len(now) if now else None
    failed = fresh - len(now)
    words = [
      f"round {rows[-1]['round'] + 1}: {len(rows)}/{self._children} children",
      f"mean {mean:.4f}" if now else "",
      f"best {best['reward']:.4f} (child {best['id']})" if best else "",
      f"{failed} failed" if failed else "",
      f"{each:.1f} s per child",
    ]
    left = self._children - len(rows)
    if left > 0:
      words.append(f"{duration(left * each)} to go")
    self.say(", ".join(filter(None, words)))
    values = {
      "mean_reward": mean,
      "best_reward": best["reward"] if best else None,
      "failed": failed,
      "round": rows[-1]["round"],
      "seconds": round(seconds, 3),
      "child_seconds": sum(r["seconds"] for r in rows[-fresh:]),
    }
    self._scalars.write(len(rows), values, "search")
    self._request.check()
