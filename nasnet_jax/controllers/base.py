"""What a controller is: three functions that see decisions and rewards only.

    state = controller.init(rng)
    proposals, state = controller.ask(state, rng, n)
    state = controller.tell(state, proposals, rewards, status)

State is a pytree of arrays, so a search is saved by saving it, and since every
function is deterministic, replaying the journal of asks and tells rebuilds the
state bit for bit. A controller may be asked again before all answers are in.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

OK, FAILED = 0, 1


class Proposals(NamedTuple):
  """m <= n proposals. Every leaf has the leading axis m, so rows can be split,
  joined and told back in any order.

  Attributes:
    id: int64[m], unique over the life of a controller state, ascending.
    decisions: int32[m, D].
    budget: float32[m], multiple of the job's own budget (1.0 = as configured).
    extras: pytree of arrays [m, ...] that `tell` needs back (PPO's
      log-probabilities, say); () for none.
  """

  id: Any
  decisions: Any
  budget: Any
  extras: Any = ()

  def __len__(self) -> int:
    return len(self.id)

  def rows(self, index) -> "Proposals":
    """The rows that `index` (int array, slice or mask) selects."""
    return jax.tree.map(lambda x: np.asarray(x)[index], self)


class Controller(NamedTuple):
  """optax-shaped: a tuple of functions.

  Attributes:
    init: (rng) -> state. rng is a `jax.random.key`.
    ask: (state, rng, n) -> (proposals, state). Fewer than n proposals, or
      none, is an answer (the space is exhausted, or answers are awaited).
    tell: (state, proposals, rewards f32[m], status i32[m]) -> state. A
      reward of NaN or a status of FAILED must harm nothing.
  """

  init: Callable
  ask: Callable
  tell: Callable
