"""Settings that follow from the machine: fields of a config that are 0.

  child.fold, child.width, child.steps_per_call, child.eval_batch_size,
  final.steps_per_call, final.eval_batch_size,
  train.steps_per_call, train.eval_batch_size

`for_child` and `for_training` are the rules, pure functions of a machine and of
what is trained; `docs/speed.md` has a table of what they give. `resolve` puts
their values into a config. What is not 0 was given, and stays.
"""

import logging
import math
import statistics
from collections.abc import Mapping
from typing import Any, NamedTuple

_log = logging.getLogger(__name__)
Row = dict[str, Any]

_ACCELERATORS = ("tpu", "gpu", "cuda", "rocm")
_LANES, _SUBLANES = 128, 8  # a TPU's register of float32
# A padded map below this is passed over so fast that the small instructions of
# a fold cost more than they save: `search_digits:tiny` has 2 MiB.
_LEAST_MAP = 4 * 2**20
_EVALUATED = {"memory": 500, "stream": 200}  # images per step of evaluation
_WIDEST = 8
# What more children per device must save, by an estimate, to be worth it.
_WORTH = 0.97
# Of the seconds of a random child's update around their mean, as a share: the
# waiting of 1, 2, 4 and 8 children on each of 256 chips is 1.26, 1.17, 1.11 and
# 1.08 by the TPU's compiler (docs/pods.md).
SPREAD = 0.093
_OF_MEMORY = 0.75  # that children may take
# What a run does that says nothing of a field: the default of its recipe.
_ABSENT = {"fold": 1, "width": 1, "steps_per_call": 1, "eval_batch_size": 500}


class Machine(NamedTuple):
  """What a job runs on.

  Attributes:
    platform: "cpu", "gpu" or "tpu", as JAX has it.
    kind: of a device, "TPU v5 lite".
    devices: how many there are.
    memory: bytes of one device; None if that is not known.
  """

  platform: str
  kind: str
  devices: int
  memory: int | None = None

  @property
  def is_accelerator(self) -> bool:
    return self.platform in _ACCELERATORS

  def __str__(self) -> str:
    return f"{self.devices} x {self.kind}"


class Training(NamedTuple):
  """What is trained, as far as its settings follow from it.

  Attributes:
    epoch: updates of an epoch.
    data: devices that share a batch.
    source: "memory", "stream", or "pictures" with boxes.
  """

  epoch: int
  data: int = 1
  source: str = "memory"


class Child(NamedTuple):
  """A child of a search, as far as its settings follow from it.

  Attributes:
    epoch: updates of an epoch.
    batch_size: examples per update, over all devices of `data`.
    data: devices that share a batch.
    maps: (features, side) of the output of each cell; () if it has no cells.
    blocks: of a cell.
    arch: devices that children are spread over.
    per_round: children that are asked for at a time; 0: there are no rounds.
    rung: updates to the first rung of successive halving; 0: there is none.
  """

  epoch: int
  batch_size: int
  data: int = 1
  maps: tuple[tuple[int, int], ...] = ()
  blocks: int = 5
  arch: int = 1
  per_round: int = 0
  rung: int = 0


def for_training(machine: Machine, training: Training) -> dict[str, int]:
  """steps_per_call and eval_batch_size of one network's training."""
  in_memory = training.source == "memory"
  many = machine.is_accelerator and in_memory
  return {
    "steps_per_call": training.epoch if many else 1,
    "eval_batch_size": _evaluated(training.source, training.data),
  }


def for_child(
  machine: Machine, child: Child, given: Mapping[str, int] | None = None
) -> dict[str, int]:
  """fold, width, steps_per_call and eval_batch_size of a search's children.

  Args:
    given: those that are not to be chosen; the others fit them.
  """
  given = dict(given or {})
  fold = given.get("fold") or _fold(machine, child, given)
  steps = child.epoch if machine.is_accelerator else 1
  chosen = {
    "fold": fold,
    "width": _width(machine, child, fold),
    # A rung lies between two calls.
    "steps_per_call": min(steps, child.rung or steps),
    "eval_batch_size": _evaluated("memory", child.data * fold),
  }
  return {**chosen, **given}


def _evaluated(source: str, divides: int) -> int:
  """Examples per step of evaluation, a multiple of `divides`; pictures with
  boxes are as large as memory bears."""
  most = _EVALUATED.get(source, divides)
  return max(divides, most - most % divides)


def _fold(machine: Machine, child: Child, given: Mapping[str, int]) -> int:
  """The largest power of two that fills no more than a register's lanes and
  leaves enough examples to fill its sublanes."""
  if machine.platform != "tpu" or not child.maps:
    return 1
  features, side = child.maps[0]
  examples = child.batch_size // child.data
  if examples * side**2 * _LANES * 4 < _LEAST_MAP:
    return 1
  sizes = [examples]
  if given.get("eval_batch_size"):
    sizes.append(given["eval_batch_size"] // child.data)
  fold = 1
  while (
    2 * fold * features <= _LANES
    and 2 * fold * _SUBLANES <= examples
    and not any(size % (2 * fold) for size in sizes)
  ):
    fold *= 2
  return fold


def _width(machine: Machine, child: Child, fold: int) -> int:
  """Children per device that end a round soonest. More of them even out what
  unequal children take, but may leave slots without a child. Without rounds it
  is 1: more children under way are more that a strategy proposes blindly."""
  known = machine.memory and child.maps and child.per_round
  if not machine.is_accelerator or not known:
    return 1
  room = _OF_MEMORY * machine.memory // child_bytes(machine, child, fold)
  best, least = 1, _round(child, 1)
  width = 2
  while width <= min(_WIDEST, room):
    if _round(child, width) < _WORTH * least:
      best, least = width, _round(child, width)
    width *= 2
  return best


def _round(child: Child, width: int) -> float:
  """The time of a round, in those of a mean child alone on its device."""
  turns = math.ceil(child.per_round / (child.arch * width))
  # Blom 1958: the expected largest of so many normal numbers.
  share = (child.arch - 0.375) / (child.arch + 0.25)
  largest = statistics.NormalDist().inv_cdf(share)
  return turns * width * (1 + SPREAD / math.sqrt(width) * largest)


def child_bytes(machine: Machine, child: Child, fold: int) -> int:
  """An estimate of the memory of one child in training, with cells.

  The two factors are fitted to what the TPU's compiler says of `search_cifar`,
  which this meets within a tenth (docs/results/preflight).
  """
  inputs = 2
  first = child.maps[0][0]
  weights = states = 0
  for features, side in child.maps:
    # The largest bank of an edge: of conv_1x7_7x1, and of sep_conv_7x7.
    weights += 2 * child.blocks * (14 * features**2 + 98 * features)
    here = max(1, fold * first // features)
    channels = here * features
    if machine.platform == "tpu":
      channels = -(-channels // _LANES) * _LANES
    examples = child.batch_size // child.data // here
    states += (child.blocks + inputs) * examples * side**2 * channels
  return round(4 * (16 * weights + 4 * states))


# --- configs -----------------------------------------------------------------


def without_open(fields) -> Row:
  """A group of a config's fields without those that are left to the machine."""
  return {
    name: value
    for name, value in fields.to_dict().items()
    if value or name not in _ABSENT
  }


class Resolved(NamedTuple):
  """A config without zeros, and what is to be told of it.

  Attributes:
    config: a copy.
    words: lines.
  """

  config: Any
  words: tuple[str, ...]


def machine_of(devices=None, memory: int | None = None) -> Machine:
  """The machine that these devices are.

  Args:
    devices: None: all that JAX has.
    memory: bytes of one; None: what the device says.
  """
  import jax

  devices = list(jax.devices() if devices is None else devices)
  first = devices[0]
  if memory is None and first.platform in _ACCELERATORS:
    stats = jax.local_devices()[0].memory_stats() or {}
    memory = stats.get("bytes_limit")
  return Machine(first.platform, first.device_kind, len(devices), memory)


def for_search(
  config, machine: Machine, num_images: int, maps, blocks: int, before=None
):
  """`Resolved` of a search's config.

  Args:
    num_images: to train on.
    maps, blocks: see `Child`.
    before: config.json of the run that goes on; None: it begins.
  """
  child, search = config.child, config.search
  epoch = max(1, num_images // max(1, child.batch_size))
  calls_count = not _is_speed_alone(config)
  data = max(1, config.mesh.data)
  facts = Child(
    epoch,
    child.batch_size,
    data,
    maps,
    blocks,
    config.mesh.arch or max(1, machine.devices // data),
    0 if search.asynchronous else search.children_per_round,
    max(1, round(search.halving.min_epochs * epoch))
    if search.halving.eta
    else 0,
  )
  final = Training(max(1, num_images // max(1, config.final.batch_size)))
  again = () if calls_count else ("child.steps_per_call",)
  return _resolve(
    config,
    machine,
    {
      "child": lambda given: for_child(machine, facts, given),
      "final": lambda given: {**for_training(machine, final), **given},
    },
    {"child.steps_per_call": epoch, "final.steps_per_call": final.epoch},
    before,
    again,
  )


def for_train(
  config, machine: Machine, num_images: int, source: str, before=None
):
  """`Resolved` of the config of a training, a detection or a scaling.

  Args:
    num_images, before: see `for_search`.
    source: see `Training`.
  """
  epoch = max(1, num_images // max(1, config.train.batch_size))
  facts = Training(epoch, max(1, config.mesh.data), source)
  return _resolve(
    config,
    machine,
    {"train": lambda given: {**for_training(machine, facts), **given}},
    {"train.steps_per_call": epoch},
    before,
  )


def tell(lines: tuple[str, ...]):
  """Logs the words of a `Resolved`."""
  for line in lines:
    _log.info("%s", line)


def may_change(config) -> tuple[str, ...]:
  """Fields of a search that change no number, however the run goes on."""
  return ("child.steps_per_call",) if _is_speed_alone(config) else ()


def _is_speed_alone(config) -> bool:
  """Whether updates per call change no number: rungs, and the clock of a search
  without rounds, are counted in calls."""
  return not (config.search.asynchronous or config.search.halving.eta)


def _resolve(config, machine, rules, epochs, before, again=()) -> Resolved:
  """The config with the values of all rules.

  Args:
    rules: by group: (fields that are settled) -> all of its fields.
    epochs: updates of an epoch, by field, for the words.
    before: config.json of the run that goes on; None: it begins.
    again: fields that are chosen anew when a run goes on.
  """
  config = config.copy_and_resolve_references()
  chosen, kept = {}, {}
  for group, rule in rules.items():
    fields = config[group]
    left = [n for n in _ABSENT if n in fields and not fields[n]]
    given = {n: fields[n] for n in _ABSENT if fields.get(n)}
    held = {}
    if before is not None:
      there = before.get(group, {})
      names = [n for n in left if f"{group}.{n}" not in again]
      held = {n: there.get(n) or _ABSENT[n] for n in names}
    free = rule(given)
    for name, value in rule({**given, **held}).items():
      if name in left:
        fields[name] = value
        where = kept if name in held else chosen
        where[f"{group}.{name}"] = value, free[name]
  return Resolved(config, tuple(_words(machine, chosen, kept, epochs)))


def _words(machine, chosen, kept, epochs):
  def said(name, value):
    epoch = value > 1 and value == epochs.get(name)
    return f"{name}={value}" + " (an epoch)" * epoch

  if chosen:
    told = " ".join(said(n, value) for n, (value, _) in chosen.items())
    first = next(iter(chosen))
    yield f"chosen for {machine}: {told}; --config.{first}=... overrides"
  other = {n: both for n, both in kept.items() if both[0] != both[1]}
  if other:
    told = ", ".join(
      f"{said(name, value)} ({free} would be chosen for {machine})"
      for name, (value, free) in other.items()
    )
    yield f"kept as the run began, since it changes numbers: {told}"
