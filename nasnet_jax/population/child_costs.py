"""What children cost, each as a network of its own."""

import functools
from collections.abc import Callable

import jax
import numpy as np

from nasnet_jax.costs import latency, traffic
from nasnet_jax.models import families
from nasnet_jax.population.evaluation import Costs
from nasnet_jax.training import hosts


class ChildCosts:
  """Counts and measures for an evaluator."""

  def __init__(
    self,
    space,
    network,
    make_counter: Callable,
    image_shape: tuple[int, int, int],
    costs: Costs,
  ):
    """space, network: as the evaluator's; make_counter: of
    `networks.open_network`; image_shape: of the children's images."""
    self._space, self._network, self._costs = space, network, costs
    self._make_counter = make_counter
    side = costs.image_side
    self._shape = (side, side, image_shape[-1]) if side else image_shape
    self._latencies: dict[str, float] = {}  # by `base.key`

  @functools.cached_property
  def _count(self):  # made when a child is done: it takes seconds
    return self._make_counter(self._shape)

  def of(self, genotype) -> dict[str, float]:
    """What `Outcome` has of one child's costs."""
    found = self._counted(genotype)
    if self._costs.also == "latency":
      network = families.network(self._space, genotype, self._network)
      found["latency"] = self._latency(genotype, network)
    return found

  def counted(self, decisions) -> list[dict[str, float]]:
    """Of int[n, D]; without a latency, which would be measured."""
    genotypes = self._space.decode(np.asarray(decisions, np.int32))
    return [
      self._counted(jax.tree.map(lambda leaf, i=i: leaf[i], genotypes))
      for i in range(len(decisions))
    ]

  def _counted(self, genotype) -> dict[str, float]:
    params, macs = self._count(genotype)
    found = {"params": params, "macs": macs}
    if self._costs.also == "bytes" or self._costs.bytes:
      network = families.network(self._space, genotype, self._network)
      found["bytes"] = traffic.count_bytes(network, self._shape)
    return found

  def _latency(self, genotype, network) -> float:
    """Measured once for all equal networks, and by the first host for all."""
    key = self._space.key(self._space.encode(genotype))
    if key not in self._latencies:
      seconds = np.float32(0)
      if hosts.is_first():
        seconds = latency.measure(
          network, self._shape, self._costs.latency_batch
        )
      self._latencies[key] = float(hosts.gather(np.float32(seconds))[0])
    return self._latencies[key]

  def remember(self, decisions, seconds: float):
    """A latency that was measured before, of int[D]; the first one counts."""
    self._latencies.setdefault(self._space.key(decisions), seconds)
