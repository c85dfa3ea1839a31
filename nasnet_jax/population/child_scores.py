"""Scores of children before their training, in one program for all of them."""

import dataclasses
import functools
import logging
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec

from nasnet_jax.data import augment as aug
from nasnet_jax.data import batches
from nasnet_jax.models.layers import Numerics
from nasnet_jax.population import any_stack, cell_blocks, mixed, networks
from nasnet_jax.population import population as pop
from nasnet_jax.scores import formulas, relus
from nasnet_jax.spaces.cells import CellSpace
from nasnet_jax.spaces.genotype import genes_of
from nasnet_jax.training import hosts, program_cache

_log = logging.getLogger(__name__)
Array = jax.Array


class ScoreSettings(NamedTuple):
  """What is asked of each child.

  Attributes:
    names: of `formulas.NAMES`.
    images: training images, the same ones for all children.
  """

  names: tuple[str, ...] = ()
  images: int = 64


NO_SCORES = ScoreSettings()


def check_space(names: tuple[str, ...], space):
  """Raises ValueError, one line, for a score that a space has not."""
  if not names:
    return
  if not isinstance(space, CellSpace):
    raise ValueError(
      f"search.scores is {names}, but children of space {space.name} have no"
      " cells, of which scores are: set it to (), or take a space of cells"
    )
  combiners = [name for name in space.combiners if name.endswith("_norm")]
  if "synflow" in names and combiners:
    raise ValueError(
      'search.scores has "synflow", which is not defined where blocks are'
      f" normalised ({', '.join(combiners)}, of space {space.name}): take"
      " another score"
    )


def in_batch(numerics: Numerics) -> Numerics:
  """Those of a scored network: all images are one group of batch norm, on one
  device, in float32."""
  return dataclasses.replace(
    numerics,
    bn_axis=None,
    bn_parts=1,
    bn_frozen=False,
    dtype=jnp.float32,
    kernels="xla",
  )


def without_norms(numerics: Numerics) -> Numerics:
  """The same without batch norms: a mean of 0, a variance of 1, and nothing
  that float32 sees added to it."""
  return dataclasses.replace(
    in_batch(numerics), bn_frozen=True, bn_epsilon=1e-12
  )


def child_model(stacks, genotype, params, stats) -> formulas.Model:
  """A child of any genotype, as the formulas take it.

  Args:
    stacks: (`AnyStack` with numerics `in_batch`, another `without_norms`).
    genotype: of one child.
    params, stats: its initial variables.
  """

  def apply(stack, params, images):
    return stack.apply(params, stats, genotype, images, None, True)[0]

  in_batches, plain = (functools.partial(apply, stack) for stack in stacks)
  norms = functools.partial(_sum_of_norms, stacks[0], genotype)

  def agreement(params, images):
    def features(params, images):
      return stacks[0].features(params, stats, genotype, images, None, True)[0]

    counted = relus.agreement(features, len(images), results=True)
    (states, used), count = counted(params, images)
    last = jax.vmap(relus.same_state)(states)  # of all states, used or not
    return count + jnp.where(used[:, None, None], last, 0.0).sum(0)

  return formulas.Model(params, in_batches, plain, norms, agreement)


def _sum_of_norms(stack: any_stack.AnyStack, genotype, tree) -> Array:
  """See `formulas.Model`; a child's edges and blocks share their arrays."""
  total = jnp.zeros(())
  parts = {cell.name: part for cell, part in zip(stack.cells, stack.parts)}
  kinds = {cell.name: cell.kind for cell in stack.cells}
  for name, own in tree.items():
    own = dict(own)
    if name in parts:
      part, genes = parts[name], genes_of(genotype, kinds[name])
      branch, _ = cell_blocks.branch_numbers(genes, part.mix, part.raw_places)
      total += _edge_norms(part, branch, own.pop("edges"))
      for kernel in formulas.kernels(own.pop("combine", {})):
        total += jnp.sqrt((kernel * kernel).sum((1, 2, 3))).sum()
    total += formulas.sum_of_norms(own)
  return total


def _edge_norms(part, branch: Array, bank: dict[str, Array]) -> Array:
  """The sum over the kernels that the edges' operations find in a bank
  [B, 2, size], of which others see other parts."""
  if "kernel" not in bank:
    return jnp.zeros(())
  starts, stops, _ = mixed.pieces(part.mix, part.numerics, "kernel")
  place = jnp.arange(bank["kernel"].shape[-1])[:, None]
  inside = place >= starts[branch][..., None, :]
  inside &= place < stops[branch][..., None, :]
  squares = bank["kernel"][..., None] ** 2
  return jnp.sqrt(jnp.where(inside, squares, 0.0).sum(-2)).sum()


class ChildScores:
  """Scores an evaluator's children, one at a time on each device of `arch`.

  A child's scores depend on its decisions and its seed, of which its initial
  weights are made, and on the images: not on devices, nor on who else is there.
  """

  def __init__(
    self,
    space,
    network,
    augmentation: aug.Augmentation,
    train: tuple[np.ndarray, np.ndarray],
    mesh: jax.sharding.Mesh,
    settings: ScoreSettings,
  ):
    """Args: as of `evaluator.PopulationEvaluator`.

    Raises:
      ValueError: one line, for a score that the space has not.
    """
    check_space(settings.names, space)
    self._space, self._mesh, self._settings = space, mesh, settings
    shape = train[0].shape[1:]
    self._stacks = tuple(
      networks.open_network(
        space, dataclasses.replace(network, numerics=numerics), shape
      )[0].stack
      for numerics in (
        in_batch(network.numerics),
        without_norms(network.numerics),
      )
    )
    self._augmentation = augmentation
    count = min(settings.images, len(train[1]))
    if count < settings.images:
      _log.warning(
        "search.score_images is %d, and there are %d images to train on: all of"
        " them are taken",
        *(settings.images, count),
      )
    chosen = np.asarray(batches.batch_indices(0, 0, len(train[1]), count))
    self._data = pop.put_data(train[0][chosen], train[1][chosen], mesh)
    self._size = mesh.shape["arch"]
    # Of one child after another also where a device trains several at once.
    self._program = pop.map_children(mesh, 1, self._measure, 3, PartitionSpec())

  def compile(self, about: Any):
    """about: as `program_cache.compile_all` has it."""
    zeros = self._put([], [], [])
    self._program = program_cache.compile_all(
      {"scores": self._program},
      lambda: {"scores": (*zeros, self._data)},
      self._mesh.devices.flat,
      ("scores", self._settings, about),
    )["scores"]

  def of(self, decisions, seeds) -> list[dict[str, float | None]]:
    """By name, of each child; None: not finite.

    Args:
      decisions: int32[n, D].
      seeds: uint32[n], as of their training.
    """
    genotypes = self._space.decode(np.asarray(decisions, np.int32))
    rows = [
      jax.tree.map(lambda leaf, i=i: leaf[i], genotypes)
      for i in range(len(seeds))
    ]
    return self.of_genotypes(rows, seeds)

  def of_genotypes(self, genotypes, seeds) -> list[dict[str, float | None]]:
    """The same of genotypes without a leading axis."""
    found = []
    for start in range(0, len(seeds), self._size):
      part = slice(start, start + self._size)
      rows = genotypes[part]
      measured = self._program(
        *self._put(rows, seeds[part], np.ones(len(rows), bool)), self._data
      )
      measured = jax.tree.map(hosts.fetch, measured)
      found += [
        formulas.finish({name: m[i] for name, m in measured.items()})
        for i in range(len(rows))
      ]
    return found

  def _put(self, genotypes, seeds, which):
    """The program's arguments; what is missing is not scored."""
    missing = self._size - len(genotypes)
    blank = jax.tree.map(
      lambda s: np.zeros(s.shape, s.dtype), self._stacks[0].genotype_shapes
    )
    rows = jax.tree.map(lambda *r: np.stack(r), *genotypes, *[blank] * missing)
    return pop.put_children(
      self._mesh,
      (
        rows,
        np.pad(np.asarray(seeds, np.uint32), (0, missing)),
        np.pad(np.asarray(which, bool), (0, missing)),
      ),
    )

  def _measure(self, genotype, seed, which, data: pop.Data) -> dict[str, Array]:
    def measure():
      params, stats = self._stacks[0].init(jax.random.key(seed), genotype)
      model = child_model(self._stacks, genotype, params, stats)
      images = aug.normalise(data.images, self._augmentation)
      return formulas.measure(self._settings.names, model, images, data.labels)

    shapes = jax.eval_shape(measure)
    nothing = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    return lax.cond(which, measure, lambda: nothing)
