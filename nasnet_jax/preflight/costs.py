"""What a compiled program takes on one chip, read from its text.

XLA's own cost analysis counts the body of a loop and each branch of a switch
once. Here a body counts as often as it runs, and a switch costs the mean of its
branches, weighted by how often each is taken.
"""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from nasnet_jax.preflight import collectives, hlo
from nasnet_jax.preflight.flops import multiply_adds
from nasnet_jax.preflight.hbm import hbm_bytes
from nasnet_jax.preflight.hlo import Computation, Instruction, Module


class Limits(NamedTuple):
  """What bounds a chip's time; see `preflight.chips`.

  Attributes:
    flops: per second, bfloat16 inputs.
    bandwidth: of HBM, bytes per second.
    link_bandwidth: from a chip to others of its slice, bytes per second.
  """

  flops: float
  bandwidth: float
  link_bandwidth: float


class Collective(NamedTuple):
  """Exchanges of one kind within the same groups of devices.

  Attributes:
    kind: "all-reduce" and so on.
    groups: of device numbers, in the order of the mesh.
    count: times per run.
    bytes: of the arrays of one chip, all times together.
    sent: bytes that leave a chip if the exchange goes around a ring.
  """

  kind: str
  groups: tuple[tuple[int, ...], ...]
  count: float
  bytes: float
  sent: float


class Cost(NamedTuple):
  """What running something takes on one chip.

  Attributes:
    flops: 2 per multiply-add of convolutions and products.
    bytes: to and from HBM.
    seconds: the roofline: the sum over instructions of the longest of its
      FLOPs at the chip's peak, its bytes at HBM's bandwidth, and its exchanges
      at the links' bandwidth.
    cycles: the compiler's own estimates, where it gives any.
    instructions: how many the chip starts.
    collectives: {(kind, groups): [count, bytes, sent]}.
  """

  flops: float = 0.0
  bytes: float = 0.0
  seconds: float = 0.0
  cycles: float = 0.0
  instructions: float = 0.0
  collectives: dict = {}  # noqa: RUF012 (never changed)

  def plus(self, other: "Cost", times: float = 1.0) -> "Cost":
    """This and `times` the other."""
    total = dict(self.collectives)
    for key, values in other.collectives.items():
      total[key] = np.add(total.get(key, 0.0), np.multiply(times, values))
    sums = (a + times * b for a, b in zip(self[:-1], other[:-1], strict=True))
    return Cost(*sums, total)

  def listed(self) -> list[Collective]:
    """The collectives, the largest first."""
    rows = [
      Collective(*key, *map(float, values))
      for key, values in self.collectives.items()
    ]
    return sorted(rows, key=lambda row: -row.sent)


# {number of branches: how often each branch of such a switch is taken}.
Shares = Mapping[int, np.ndarray]


_KERNEL = 'custom_call_target="tpu_custom_call"'
# A name of `population.switches.scope`.
_SCOPE = re.compile(r"if_branch_(\d+)_to_(\d+)_of_(\d+)")


class Walk:
  """Costs of a module's computations, on one kind of chip.

  Attributes:
    unknown_loops: names of loops whose length the text does not tell.
    uncounted: names of kernels of our own whose cycles and FLOPs are left out,
      since XLA takes their author's word; `bundles` knows the cycles.
  """

  def __init__(
    self,
    module: Module,
    limits: Limits,
    shares: Shares | None = None,
    trips: float = 1.0,
  ):
    """shares: see `Shares`; a switch of another number of branches costs what
    its dearest branch does. trips: of a loop whose length depends on data."""
    self.module, self.limits, self.trips = module, limits, trips
    self.shares = shares or {}
    self.unknown_loops: list[str] = []
    self.uncounted: list[str] = []
    self._costs: dict[str, Cost] = {}

  def total(self) -> Cost:
    """Of one run of the program."""
    return self.cost(self.module.entry)

  def cost(self, name: str) -> Cost:
    """Of one run of a computation."""
    if name not in self._costs:
      total = Cost()
      computation = self.module.computations[name]
      for instruction in computation.instructions.values():
        total = total.plus(self._of(instruction, computation))
      self._costs[name] = total
    return self._costs[name]

  def runs(self) -> dict[str, float]:
    """How often each computation runs in one run of the program."""
    found: dict[str, float] = {}

    def add(name: str, times: float):
      found[name] = found.get(name, 0.0) + times
      computation = self.module.computations[name]
      for instruction in computation.instructions.values():
        for inner, each in self._within(instruction, computation) or ():
          if each:
            add(inner, times * each)

    add(self.module.entry, 1.0)
    return found

  def leaves(self, name: str) -> Iterator[tuple[Instruction, Cost]]:
    """Instructions of a computation that take something by themselves."""
    computation = self.module.computations[name]
    for instruction in computation.instructions.values():
      if self._within(instruction, computation) is None:
        yield instruction, self._leaf(instruction, computation)

  def _of(self, instruction: Instruction, computation: Computation) -> Cost:
    within = self._within(instruction, computation)
    if within is None:
      return self._leaf(instruction, computation)
    total = Cost()
    for name, times in within:
      total = total.plus(self.cost(name), times)
    return total

  def _within(self, instruction, computation) -> list | None:
    """(computation, how often) of what an instruction runs; [] for one that
    takes nothing, None for one that takes something by itself."""
    opcode = instruction.opcode
    if opcode in hlo.FREE or opcode.endswith("-done"):
      return []
    if opcode == "while":
      return self._loop(instruction, computation)
    if opcode == "conditional":
      return self._switch(instruction)
    if opcode == "call":
      return [(hlo.called(instruction, "to_apply"), 1.0)]
    return None

  def _loop(self, instruction, computation) -> list:
    trips = hlo.loop_length(self.module, instruction, computation)
    if trips is None:
      trips = self._trips_of_a_branch(instruction)
    if trips is None:
      trips = self.trips
      self.unknown_loops.append(instruction.name)
    return [(hlo.called(instruction, "body"), trips)]

  def _trips_of_a_branch(self, loop) -> float | None:
    """The mean, of a loop that turns once if a switch takes certain branches
    (`switches.scope`); None for other loops."""
    if _SCOPE.search(loop.rest) is None:
      return None
    shares = self._shares_in_scope(loop)
    return 1.0 if shares is None else float(shares.sum())

  def _shares_in_scope(self, instruction) -> np.ndarray | None:
    """How often each of a scope's branches is taken; None: not known."""
    first, behind, count = map(int, _SCOPE.search(instruction.rest).groups())
    shares = self.shares.get(count)
    return None if shares is None else np.asarray(shares)[first:behind]

  def _shares_of(self, switch, count: int) -> np.ndarray | None:
    """How often each of a switch's branches is taken when it is reached."""
    if _SCOPE.search(switch.rest) is None:
      return self.shares.get(count)
    taken = self._shares_in_scope(switch)
    if taken is None or not taken.sum():
      return None if taken is None else np.zeros(count)
    rest = np.zeros(count - len(taken))  # `inactive`, which no turn takes
    return np.concatenate([taken / taken.sum(), rest])

  def _switch(self, instruction) -> list:
    names = hlo.branches(instruction)
    shares = self._shares_of(instruction, len(names))
    if shares is None:
      costs = {name: self.cost(name) for name in names}
      dearest = max(
        names, key=lambda n: (costs[n].seconds, costs[n].cycles, costs[n].flops)
      )
      return [(dearest, 1.0)]
    return list(zip(names, map(float, shares), strict=True))

  def _leaf(self, instruction, computation) -> Cost:
    flops = self._flops(instruction, computation)
    moved = hbm_bytes(self.module, instruction, computation)
    exchanges = self._exchanges(instruction, computation)
    sent = sum(values[2] for values in exchanges.values())
    seconds = max(
      flops / self.limits.flops,
      moved / self.limits.bandwidth,
      sent / self.limits.link_bandwidth,
    )
    cycles = self._cycles(instruction)
    return Cost(flops, moved, seconds, cycles, 1.0, exchanges)

  def _cycles(self, instruction) -> float:
    if _KERNEL in instruction.rest:
      self.uncounted.append(instruction.name)
      return 0.0
    found = re.search(r'"estimated_cycles":"(\d+)"', instruction.rest)
    return float(found.group(1)) if found else 0.0

  def _flops(self, instruction, computation) -> float:
    total = multiply_adds(instruction, computation) * 2.0
    for name in hlo.inner_of(instruction):
      inner = self.module.computations[name]
      for inside in inner.instructions.values():
        total += self._flops(inside, inner)
    return total

  def _exchanges(self, instruction, computation) -> dict:
    opcode = instruction.opcode.removesuffix("-start")
    found = {}
    if opcode in collectives.KINDS and not collectives.goes_on(
      instruction, computation
    ):
      key, values = collectives.read(opcode, instruction, computation)
      found[key] = values
    for name in hlo.inner_of(instruction):
      inner = self.module.computations[name]
      for inside in inner.instructions.values():
        for key, values in self._exchanges(inside, inner).items():
          found[key] = np.add(found.get(key, 0.0), values)
    return found
