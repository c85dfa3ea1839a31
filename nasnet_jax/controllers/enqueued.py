"""Children that somebody wants to see first, before a strategy's own.

A strategy remembers what it proposed by its numbers, so those of the enqueued
children come first and its own are counted from behind them. Whether it learns
from children that it never proposed is up to it: evolution takes them into its
population, the others are not told of them.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from nasnet_jax.controllers import base


class State(NamedTuple):
  """How many enqueued children were asked for, and the strategy's state."""

  given: Any
  inner: Any


def enqueued(
  controller: base.Controller, decisions, learns: bool
) -> base.Controller:
  """The controller, whose first proposals are these.

  Args:
    controller: a strategy.
    decisions: int32[k, D], of the enqueued children.
    learns: whether the strategy is told of children it did not propose.
  """
  first = np.asarray(decisions, np.int32)
  count = len(first)

  def init(rng) -> State:
    return State(np.zeros((), np.int64), controller.init(rng))

  def ask(state: State, rng, n: int):
    given = int(state.given)
    taken = min(n, count - given)
    own, inner = controller.ask(state.inner, rng, n - taken)
    mine = _proposals(given, first[given : given + taken], own)
    proposals = base.join([mine, base.renumber(own, count)])
    return proposals, State(np.array(given + taken, np.int64), inner)

  def tell(state: State, proposals, rewards, status) -> State:
    base.succeeded(proposals, rewards, status, controller.objectives)
    counts = np.asarray(proposals.id) >= count
    if learns:
      counts[:] = True
    told = base.renumber(proposals.rows(counts), -count)
    rewards, status = np.asarray(rewards)[counts], np.asarray(status)[counts]
    return state._replace(
      inner=controller.tell(state.inner, told, rewards, status)
    )

  def parents(state: State):
    return base.shifted(controller.parents(state.inner), count)

  return controller._replace(
    init=init,
    ask=ask,
    tell=tell,
    teach=None,
    parents=controller.parents and parents,
  )


def _proposals(start: int, decisions, own: base.Proposals) -> base.Proposals:
  """own: the strategy's proposals, whose extras zeros here stand for."""

  def filled(value, tree):
    return jax.tree.map(
      lambda x: np.full((len(decisions), *x.shape[1:]), value, x.dtype), tree
    )

  proposals, _ = base.number(
    start, decisions, filled(0, own.extras), filled(base.NOBODY, own.parent)
  )
  return proposals
