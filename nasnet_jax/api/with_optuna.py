"""Our strategies as samplers of Optuna, and samplers of Optuna as strategies.

    choices = {"depth": [1, 2, 3], "op": ["conv", "pool"]}
    study = optuna.create_study(sampler=nas.optuna_sampler(choices, seed=0))

    nas.optuna_strategy("tpe", optuna.samplers.TPESampler)
    study = nas.Study("runs/x", space=[3, 3, 4], strategy="tpe")

Optuna is an extra: pip install 'nasnet_jax[optuna]'.
"""

import functools
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from nasnet_jax import controllers
from nasnet_jax.api import parts
from nasnet_jax.controllers import base
from nasnet_jax.search import objectives
from nasnet_jax.spaces import base as spaces
from nasnet_jax.training import own_parts

_log = logging.getLogger(__name__)
# Attributes of a trial: the numbers of these events, and the child's.
_ASKED, _TOLD, _CHILD = (f"nasnet_jax:{n}" for n in ("asked", "told", "child"))


def _optuna():
  try:
    import optuna
  except ImportError as error:
    raise ImportError(
      "optuna is not installed: pip install 'nasnet_jax[optuna]'"
    ) from error
  return optuna


def optuna_sampler(
  choices: Mapping[str, Sequence],
  strategy: str = "evolution",
  seed: int = 0,
  **options,
):
  """An `optuna.samplers.BaseSampler` that proposes what our strategies do.

  Trials are numbered events in their attributes, from which another process
  rebuilds the strategy's state, whatever the study's storage is. One process at
  a time, of any number of threads.

  Args:
    choices: the values of each parameter; the objective may suggest it as a
      categorical, an integer or a float.
    strategy: a key of `controllers.CONTROLLERS`.
    seed: of the strategy.
    **options: of the strategy.

  Raises:
    ImportError: where Optuna is not installed.
    ValueError: one line, for choices or options that make no search.
  """
  if not choices or not all(len(values) for values in choices.values()):
    raise ValueError("choices: give each parameter one value or more")
  sizes = tuple(len(values) for values in choices.values())
  controller = controllers.make(strategy, sizes, **options)
  objectives.require_one(controller, strategy, "a sampler")
  return _sampler_class()(dict(choices), controller, seed)


class _Asked:
  """A strategy, asked for a child at a time once it was told to begin.

  Attributes:
    pending: the proposals that wait for an answer, by child.
  """

  def __init__(self, choices, controller, seed: int):
    self._choices, self._controller, self._seed = choices, controller, seed
    self.pending: dict[int, base.Proposals] = {}

  def begin(self):
    """As if nothing had been asked."""
    self.pending, self._asks = {}, 0
    self._state = self._controller.init(jax.random.key(self._seed))

  def ask(self) -> int | None:
    """The next child; None if the strategy waits for answers."""
    key = jax.random.fold_in(jax.random.key(self._seed), self._asks)
    proposals, state = self._controller.ask(self._state, key, 1)
    if not len(proposals):
      return None
    child = int(proposals.id[0])
    self._state, self._asks = state, self._asks + 1
    self.pending[child] = proposals
    return child

  def values(self, child: int) -> dict[str, Any]:
    """Of a child that waits, by parameter."""
    return self._named(self.pending[child].decisions[0])

  def random(self, number: int) -> dict[str, Any]:
    """Values that no strategy proposed."""
    sizes = tuple(map(len, self._choices.values()))
    rng = np.random.default_rng([self._seed, number])
    return self._named(spaces.sample(sizes, rng, 1)[0])

  def _named(self, row) -> dict[str, Any]:
    pairs = zip(self._choices.items(), row, strict=True)
    return {name: values[int(i)] for (name, values), i in pairs}

  def answer(self, child: int, study, params, state, values):
    """Tells what became of a child's trial; a failure, where it did not end or
    somebody enqueued other values than the strategy proposed."""
    proposed = self.values(child)
    same = all(params.get(k, v) == v for k, v in proposed.items())
    reward = np.nan
    if same and state == _optuna().trial.TrialState.COMPLETE:
      reward = _reward(study, values)
    status = base.OK if np.isfinite(reward) else base.FAILED
    told = self.pending.pop(child)
    self._state = self._controller.tell(
      self._state, told, np.float32([reward]), np.int32([status])
    )


@functools.cache
def _sampler_class():
  optuna = _optuna()

  class Sampler(optuna.samplers.BaseSampler):
    """See `optuna_sampler`."""

    def __init__(self, choices, controller, seed: int):
      self._choices = choices
      self._asked = _Asked(choices, controller, seed)
      self._guard = threading.RLock()
      self._study, self._events = None, 0
      self._values: dict[int, dict[str, Any]] = {}  # by trial

    def infer_relative_search_space(self, study, trial):
      return {}

    def sample_relative(self, study, trial, search_space):
      return {}

    def sample_independent(self, study, trial, param_name, param_distribution):
      if param_name not in self._choices:
        raise ValueError(
          f"the sampler was given no choices for {param_name!r}, only for"
          f" {', '.join(self._choices)}"
        )
      value = self._values[trial.number][param_name]
      if not param_distribution._contains(
        param_distribution.to_internal_repr(value)
      ):
        raise ValueError(
          f"the sampler's choice {value!r} for {param_name!r} is not in"
          f" {param_distribution}"
        )
      return value

    def before_trial(self, study, trial):
      if len(study.directions) > 1:
        raise ValueError("a strategy has one reward: give one direction")
      with self._guard:
        self._catch_up(study)
        child = self._asked.ask()
        if child is None:
          _log.warning("the strategy waits for answers: a random trial instead")
          self._values[trial.number] = self._asked.random(trial.number)
          return
        self._note(study, trial, _ASKED, self._events)
        self._note(study, trial, _CHILD, child)
        self._events += 1
        self._values[trial.number] = self._asked.values(child)

    def after_trial(self, study, trial, state, values):
      with self._guard:
        self._values.pop(trial.number, None)
        marks = study._storage.get_trial_system_attrs(trial._trial_id)
        child = marks.get(_CHILD)
        if child not in self._asked.pending:
          return
        self._note(study, trial, _TOLD, self._events)
        self._events += 1
        self._asked.answer(child, study, trial.params, state, values)

    def _note(self, study, trial, name: str, number: int):
      study._storage.set_trial_system_attr(trial._trial_id, name, number)

    def _catch_up(self, study):
      """The state after all that the study's trials say, if it is not known."""
      key = study.study_name, id(study._storage)
      if self._study == key:
        return
      self._study = key
      self._asked.begin()
      events = []
      for other in study.get_trials(deepcopy=False):
        marks = other.system_attrs
        events += [
          (marks[name], name, other)
          for name in (_ASKED, _TOLD)
          if name in marks
        ]
      for _, name, other in sorted(events, key=lambda event: event[0]):
        if name == _ASKED:
          self._asked.ask()
        else:
          child = other.system_attrs[_CHILD]
          self._asked.answer(
            child, study, other.params, other.state, other.values
          )
      self._events = 1 + max((number for number, *_ in events), default=-1)

  return Sampler


def _reward(study, values) -> float:
  """Larger is better to a strategy."""
  least = study.direction == _optuna().study.StudyDirection.MINIMIZE
  return -values[0] if least else values[0]


# --- samplers as strategies --------------------------------------------------

_ROOM, _WAITING, _GOOD, _FAILED = range(4)  # what a row of the state holds


class State(NamedTuple):
  """The last C children; child i is in row i modulo C.

  Attributes:
    decisions: int32[C, D].
    rewards: f32[C].
    status: int8[C].
    next_id: int64[].
  """

  decisions: Any
  rewards: Any
  status: Any
  next_id: Any


def optuna_strategy(name: str, make: Callable) -> Callable:
  """Gives a sampler of Optuna a name, which searches know it by.

  The sampler is made anew for each ask, with a seed of its own, and sees the
  children so far as trials: so a search goes on after a kill as all others do.

  Args:
    name: for `strategy=` and `search.controller`.
    make: (seed=...) -> sampler: `optuna.samplers.TPESampler`, or a function.

  Returns:
    the strategy. Its options: `ordered`, whether choices are neighbours of each
    other (integers of Optuna, in place of categories); `max_children`, so many
    of the last are remembered.

  Raises:
    ImportError: where Optuna is not installed.
    ValueError: one line, for a name of the library's own.
  """
  _optuna()

  def factory(space, *, ordered: bool = False, max_children: int = 4096):
    if max_children < 1:
      raise ValueError(f"max_children is {max_children}: give 1 or more")
    sampling = _Sampling(make, base.as_space(space), ordered, max_children)
    return base.Controller(
      sampling.init, sampling.ask, sampling.tell, sampling.teach
    )

  factory = parts.strategy(name)(factory)
  own_parts.note("strategy", name, make)
  return factory


class _Sampling(NamedTuple):
  """The functions of such a strategy."""

  make: Callable
  space: Any
  ordered: bool
  most: int

  def init(self, rng) -> State:
    del rng
    depth = len(self.space.num_choices)
    return State(
      np.zeros((self.most, depth), np.int32),
      np.zeros(self.most, np.float32),
      np.zeros(self.most, np.int8),
      np.zeros((), np.int64),
    )

  def ask(self, state: State, rng, n: int):
    seed = int(base.generator(rng).integers(1 << 31))
    depth = len(self.space.num_choices)
    rows = np.zeros((0, depth), np.int32)
    if n:
      study = self._study(state, seed)
      asked = [study.ask(self._distributions()).params for _ in range(n)]
      rows = np.array(
        [[params[f"d{i}"] for i in range(depth)] for params in asked], np.int32
      )
    proposals, next_id = base.number(state.next_id, rows)
    return proposals, self._filled(state, proposals.id, rows, next_id)

  def _filled(self, state: State, ids, rows, next_id, status=_WAITING):
    state = State(*(np.array(x) for x in state))
    kept = ids[-self.most :]
    places = kept % self.most
    state.decisions[places] = rows[len(ids) - len(kept) :]
    state.status[places], state.rewards[places] = status, 0
    return state._replace(next_id=next_id)

  def tell(self, state: State, proposals, rewards, status) -> State:
    good = base.succeeded(proposals, rewards, status)
    ids = np.asarray(proposals.id)
    known = ids >= int(state.next_id) - self.most
    state = State(*(np.array(x) for x in state))
    places = ids[known] % self.most
    state.rewards[places] = np.where(good, rewards, 0)[known]
    state.status[places] = np.where(good, _GOOD, _FAILED)[known]
    return state

  def teach(self, state: State, decisions, rewards) -> State:
    rows = np.asarray(decisions, np.int32)
    ids = np.arange(len(rows))
    next_id = np.array(len(rows), np.int64)
    state = self._filled(state, ids, rows, next_id, _GOOD)
    state.rewards[ids[-self.most :] % self.most] = rewards[-self.most :]
    return state

  def _distributions(self) -> dict[str, Any]:
    of = _optuna().distributions
    return {
      f"d{i}": of.IntDistribution(0, count - 1)
      if self.ordered
      else of.CategoricalDistribution(range(count))
      for i, count in enumerate(self.space.num_choices)
    }

  def _study(self, state: State, seed: int):
    """A study in memory whose trials are the children."""
    optuna = _optuna()
    of = optuna.trial.TrialState
    states = {_WAITING: of.RUNNING, _GOOD: of.COMPLETE, _FAILED: of.FAIL}
    with _Quiet(optuna):
      study = optuna.create_study(
        direction="maximize", sampler=self.make(seed=seed)
      )
    distributions, next_id = self._distributions(), int(state.next_id)
    for child in range(max(0, next_id - self.most), next_id):
      row, found = child % self.most, {}
      status = states[int(state.status[row])]
      if status == of.COMPLETE:
        found["value"] = float(state.rewards[row])
      params = {f"d{i}": int(d) for i, d in enumerate(state.decisions[row])}
      study.add_trial(
        optuna.trial.create_trial(
          state=status, params=params, distributions=distributions, **found
        )
      )
    return study


class _Quiet:
  """No line about each study in memory."""

  def __init__(self, optuna):
    self._logging = optuna.logging

  def __enter__(self):
    self._before = self._logging.get_verbosity()
    self._logging.set_verbosity(self._logging.WARNING)

  def __exit__(self, *_):
    self._logging.set_verbosity(self._before)
