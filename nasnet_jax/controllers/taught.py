"""A strategy that starts from children of another search.

It counts them as its own first ones, so its ids go on behind theirs; outside
they begin at 0, as those of every search do. Whether and how it learns from
them is its `teach`.
"""

import numpy as np

from nasnet_jax.controllers import base


def taught(controller: base.Controller, decisions, rewards) -> base.Controller:
  """The controller, which knows these children before it is asked.

  Args:
    controller: a strategy that has `teach`.
    decisions: int32[k, D].
    rewards: f32[k], finite; f32[k, n] of n objectives.
  """
  decisions = np.asarray(decisions, np.int32)
  rewards = np.asarray(rewards, np.float32)
  count = len(decisions)

  def init(rng):
    return controller.teach(controller.init(rng), decisions, rewards)

  def ask(state, rng, n: int):
    proposals, state = controller.ask(state, rng, n)
    return base.renumber(proposals, -count), state

  def tell(state, proposals, rewards, status):
    told = base.renumber(proposals, count)
    return controller.tell(state, told, rewards, status)

  def parents(state):
    return base.shifted(controller.parents(state), -count)

  return controller._replace(
    init=init,
    ask=ask,
    tell=tell,
    teach=None,
    parents=controller.parents and parents,
  )
