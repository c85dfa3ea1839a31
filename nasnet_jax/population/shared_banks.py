"""Weights that all children of a search share, and a child's part of them.

ENAS (Pham et al. 2018) and single path one-shot (Guo et al. 2019) train one set
of weights for all cells of a space. Here these are a child's own, except that
an edge has a bank for each operation that it may be, in place of one for the
operation that it is. A child's weights are gathered by its genes, and it runs
like any other child; the gradient of the gathering puts each gradient back
where the weight came from. What a child does not have is 0 in its part, so the
gradient of a sum of ones says which weights it has.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasnet_jax.population import any_stack, cell_blocks, mixed
from nasnet_jax.population.any_cell import AnyCell
from nasnet_jax.spaces.genotype import ADD, CONCAT, Genes, Genotype, genes_of

Array = jax.Array


class SharedBanks(NamedTuple):
  """The shared weights of a network of cells.

  Attributes:
    stack: the network with its cells left open.
    per_input: whether an edge has a bank for each operation on each state, as
      ENAS has; if not, for each operation on each shape of state.
  """

  stack: any_stack.AnyStack
  per_input: bool = False

  def init(self, rng: Array) -> dict:
    """Initial values of all weights.

    As of a child whose cells pass on all of their blocks; each bank of an edge
    as that of its operation.
    """
    stack = self.stack
    params, _ = stack.init(rng, _everything(stack))
    for cell, part in zip(stack.cells, stack.parts, strict=True):
      key = jax.random.fold_in(rng, cell.index)
      params[cell.name]["edges"] = self._init_edges(part, key)
    return params

  def _init_edges(self, part: AnyCell, rng: Array) -> dict[str, Array]:
    """Banks [B, 2, banks of an edge, size]."""
    branches = jnp.asarray(self._branches(part))
    keys = jax.random.split(rng, (part.num_blocks, 2, len(branches)))
    init = functools.partial(mixed.init_params, part.mix, part.numerics)
    over_banks = jax.vmap(init)
    over_edges = jax.vmap(jax.vmap(over_banks, (None, 0)), (None, 0))
    return over_edges(branches, keys)

  def _branches(self, part: AnyCell) -> np.ndarray:
    """int[banks of an edge]: the branch of each, see `mixed.Mixed`."""
    mix = part.mix
    if not self.per_input:
      return np.arange(mix.inactive)
    group = np.asarray(part.raw_places) >= 0
    operations = np.arange(mix.num_operations)
    return (group[:, None] * mix.num_operations + operations).ravel()

  def banks_of(self, part: AnyCell, genes: Genes) -> Array:
    """int32[B, 2]: the bank that each edge of a cell takes."""
    if self.per_input:
      return genes.inputs * part.mix.num_operations + genes.ops
    branch, _ = cell_blocks.branch_numbers(genes, part.mix, part.raw_places)
    return jnp.minimum(branch, part.mix.inactive - 1)  # of no active block

  def child(self, params: dict, genotype: Genotype) -> dict:
    """The weights of one child, as `AnyStack.apply` takes them; 0 where it has
    none."""
    stack = self.stack
    used = functools.partial(any_stack.used_states, genotype, stack.cells)
    found = {"stem": params["stem"]}
    for cell, part in zip(stack.cells, stack.parts, strict=True):
      genes = genes_of(genotype, cell.kind)
      found[cell.name] = {
        **_of_cell(part, params[cell.name], genes, stack.read_by(cell, used)),
        "edges": self._of_edges(part, params[cell.name]["edges"], genes),
      }
    rows = jnp.repeat(used(len(stack.cells)), stack.shapes[-1].features)
    head = params["classifier"]
    found["classifier"] = {
      **head,
      "kernel": jnp.where(rows[:, None], head["kernel"], 0.0),
    }
    return found

  def _of_edges(self, part: AnyCell, banks: dict, genes: Genes) -> dict:
    place = self.banks_of(part, genes)[..., None, None]
    active = genes.active[:, None, None]

    def take(bank):
      row = jnp.take_along_axis(bank, place, 2, mode="clip")[:, :, 0]
      return jnp.where(active, row, 0.0)

    return jax.tree.map(take, banks)

  def of_children(self, params: dict, genotypes: Genotype) -> dict:
    """Trees of bool like params: the weights that any of these children has.

    Args:
      genotypes: with a leading axis of children.
    """

    def total(params):
      children = jax.vmap(functools.partial(self.child, params))(genotypes)
      return sum(leaf.sum() for leaf in jax.tree.leaves(children))

    # The sum is linear, so its gradient counts, whatever the weights are.
    return jax.tree.map(lambda count: count > 0, jax.grad(total)(params))


def _everything(stack: any_stack.AnyStack) -> Genotype:
  """A genotype that has all weights but those of the edges."""
  shapes = stack.genotype_shapes
  blank = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
  code = CONCAT if "concat" in stack.choices.combiners else ADD
  num_inputs = shapes.concat.shape[-1] - stack.choices.num_blocks
  return blank._replace(
    combine=jnp.full_like(blank.combine, code),
    active=jnp.ones_like(blank.active),
    concat=blank.concat.at[..., num_inputs:].set(True),
  )


def _of_cell(part: AnyCell, params: dict, genes: Genes, reads) -> dict:
  """A child's part of a cell's weights, those of the edges as they were.

  Args:
    reads: the used states of each output that the cell reads, or None.
  """
  found = dict(params)
  for name, masks in had_by(part, params, genes, reads).items():
    found[name] = {
      **params[name],
      **{of: where(mask, params[name][of]) for of, mask in masks.items()},
    }
  return found


def had_by(part: AnyCell, names, genes: Genes, reads) -> dict[str, dict]:
  """Which weights of a cell a child has: masks of the leaves' first axes, by
  name and "conv" or "norm". What is not in it each child has; of the edges
  nothing is said.

  Args:
    names: of the cell's weights.
    reads: see `_of_cell`.
  """
  found: dict[str, dict] = {}
  if "project" in names:  # kernels of the states that are used
    found["project"] = {"conv": reads[0]}
  if "fit_previous" in names:
    needed = ~part.takes_previous_as_it_is(reads[1])
    found["fit_previous"] = {"conv": reads[1] & needed, "norm": needed}
  if "combine" in names:
    found["combine"] = {
      "conv": genes.active & (genes.combine == CONCAT),
      "norm": genes.active & (genes.combine != ADD),
    }
  return found


def where(mask: Array, tree: Any, other: Any = None) -> Any:
  """The tree where the mask, of the leaves' first axes, is true.

  Args:
    other: what is taken elsewhere, a tree of the same form; None: zeros.
  """
  if other is None:
    other = jax.tree.map(jnp.zeros_like, tree)

  def one(leaf, rest):
    wide = mask.reshape(mask.shape + (1,) * (leaf.ndim - mask.ndim))
    return jnp.where(wide, leaf, rest)

  return jax.tree.map(one, tree, other)
