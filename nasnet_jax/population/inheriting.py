"""The evaluator whose children begin with their parents' final weights.

The program that trains is that of any other search: beside it are two small
ones, which read a child out of its slot, and give a new one what it inherits.
Final weights lie in the run's folder, a checkpoint per child, written before
anybody is told that the child is done. A child that trains again after a kill
writes the same bits, so they are a function of the history.
"""

import functools
import pathlib
from collections.abc import Collection
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from nasnet_jax.population import population as pop
from nasnet_jax.population import slots
from nasnet_jax.population.evaluation import NO_PARENT, Stops
from nasnet_jax.population.evaluator import PopulationEvaluator
from nasnet_jax.population.inherited_weights import inherit
from nasnet_jax.training import checkpoint, hosts, program_cache, workdir
from nasnet_jax.training import mesh as meshes

FOLDER = "parents"  # of a run; more children need them after its end, too


class Final(NamedTuple):
  """A child at its end. No leading axis on the host.

  Attributes:
    genotype: its own.
    params, batch_stats: as in `training.state.TrainState`.
  """

  genotype: Any
  params: Any
  batch_stats: Any


class InheritingEvaluator(PopulationEvaluator):
  """A `PopulationEvaluator` whose queue takes parents.

  `open_folder` comes before any that have one.
  """

  def __init__(self, space, *args, **kwargs):
    """As of `PopulationEvaluator`.

    Raises:
      ValueError: one line, for a space whose children have no cells.
    """
    super().__init__(space, *args, **kwargs)
    if self.population.network.stack is None:
      raise ValueError(
        f'search.weights is "inherit", but children of space {space.name} have'
        ' no cells: set it to "alone", or take a space of cells'
      )
    self.adopt = pop.map_children(
      self.mesh,
      self.recipe.width,
      functools.partial(_adopt, self.population.network.stack),
      4,
      donate_argnums=0,
    )
    children, everywhere = (
      NamedSharding(self.mesh, PartitionSpec(*axes)) for axes in (["arch"], [])
    )
    self.take = jax.jit(
      _take, in_shardings=(children, everywhere), out_shardings=everywhere
    )
    self._folder: pathlib.Path | None = None

  def open_folder(self, folder: pathlib.Path):
    """Final weights lie in this run's folder from now on."""
    self._folder = folder / FOLDER
    if hosts.is_first():
      checkpoint.remove_leftovers(self._folder)

  @property
  def keeps(self) -> bool:
    """Whether there is a folder: without a run nobody inherits."""
    return self._folder is not None

  def keep_only(self, children: Collection[int]):
    """Throws away the final weights of all others."""
    if not hosts.is_first():
      return
    for child in checkpoint.steps(self._folder):
      if child not in children:
        checkpoint.remove(self._folder / str(child))

  def write(self, child: int, final: Final):
    """Keeps a child's final weights."""
    checkpoint.write(self._folder / str(child), final)

  def check_kept(self, parent: int):
    """Raises WorkdirError if there are no weights of this child."""
    if not (self._folder / str(parent)).is_dir():
      raise self._gone(parent)

  def read(self, parent: int) -> Final:
    """The final weights of a child, on the host.

    Raises:
      WorkdirError: if they are not there, or damaged.
    """
    try:
      return checkpoint.read(self._folder / str(parent), self.blank())
    except checkpoint.DamagedError as error:
      raise self._gone(parent) from error

  def _gone(self, parent: int) -> workdir.WorkdirError:
    return workdir.WorkdirError(
      f"{self._folder / str(parent)} is missing or damaged, and children begin"
      f" with the weights of child {parent}: put back what was there or take"
      " another folder"
    )

  def blank(self, *sizes: int) -> Final:
    """Zeros in the place of final weights, stacked."""
    return jax.tree.map(
      lambda s: np.zeros((*sizes, *s.shape), s.dtype), self._shapes
    )

  @functools.cached_property
  def _shapes(self) -> Final:
    network = self.population.network
    weights = jax.eval_shape(
      lambda genotype: network.init(jax.random.key(0), genotype),
      network.genotype_shapes,
    )
    return Final(network.genotype_shapes, *weights)

  def _compile(self, made: pop.Population) -> pop.Population:
    compiled = super()._compile(made)
    count = made.slots
    state = jax.eval_shape(made.empty)
    heirs = np.zeros(count, bool), self.blank(count)
    _, _, _, _, genotypes = self._arguments()["refill"]
    programs = program_cache.compile_all(
      {"adopt": self.adopt, "take": self.take},
      lambda: {
        "adopt": (state, genotypes, *made.put(heirs)),
        "take": (state, self._put_slot(0)),
      },
      self.mesh.devices.flat,
      ("inherit", *self.about),
    )
    self.adopt, self.take = programs["adopt"], programs["take"]
    return compiled

  def _put_slot(self, slot: int):
    number = np.int32(slot)
    if not self.mesh.is_multi_process:
      return number
    return meshes.put(number, NamedSharding(self.mesh, PartitionSpec()))

  def final_of(self, slot: int, genotype) -> Final:
    """The weights of the child in a slot, on the host."""
    weights = self.take(self.state, self._put_slot(slot))
    return Final(genotype, *jax.device_get(weights))

  def _make_queue(self, stops: Stops) -> "InheritingQueue":
    return InheritingQueue(self, stops)


class InheritingQueue(slots.SlotQueue):
  """A `SlotQueue` whose children may have a parent."""

  def __init__(self, owner: InheritingEvaluator, stops: Stops):
    """owner: see `SlotQueue`."""
    super().__init__(owner, stops)
    self._parents: dict[int, int] = {}

  def add(self, children, decisions, seeds, budgets, parents=()) -> None:
    """See `Queue`.

    Args:
      parents: of each child the number of the one whose final weights it
        begins with, or NO_PARENT; () for none at all.

    Raises:
      WorkdirError: if a parent's weights are not there.
    """
    for child, parent in zip(children, parents):
      if parent != NO_PARENT:
        self.owner.check_kept(int(parent))
        self._parents[int(child)] = int(parent)
    super().add(children, decisions, seeds, budgets)

  def _after_filling(self, fresh: np.ndarray):
    heirs = {
      slot: self._parents.pop(child.number)
      for slot, child in enumerate(self.children)
      if child and fresh[slot] and child.number in self._parents
    }
    if not heirs:
      return
    owner, count = self.owner, len(self.children)
    finals = owner.blank(count)
    for slot, parent in heirs.items():
      for leaf, value in zip(
        jax.tree.leaves(finals),
        jax.tree.leaves(owner.read(parent)),
        strict=True,
      ):
        leaf[slot] = value
    which = np.isin(np.arange(count), list(heirs))
    state, owner.state = owner.state, None
    owner.state = owner.adopt(
      state, self.on_devices, *owner.population.put((which, finals))
    )

  def _before_leaving(self, slot: int, child):
    if not child.failed and self.owner.keeps:
      final = self.owner.final_of(slot, child.genotype)
      self.owner.write(child.number, final)


def _adopt(stack, state, genotype, heir, final: Final):
  """The state of a child that begins with another one's final weights."""
  genotypes = final.genotype, genotype

  def begin(state):
    return state._replace(
      params=inherit(stack, genotypes, (final.params, state.params)),
      batch_stats=inherit(
        stack, genotypes, (final.batch_stats, state.batch_stats)
      ),
    )

  return lax.cond(heir, begin, lambda state: state, state)


def _take(state, slot):
  """(params, batch_stats) of one slot."""

  def row(leaf):
    return lax.dynamic_index_in_dim(leaf, slot, 0, keepdims=False)

  return jax.tree.map(row, (state.params, state.batch_stats))
