"""What a child takes over of its parent's final weights (Real et al. 2017).

A child has its parent's blocks at its parent's places, but for what was
mutated. It takes over the weights and running statistics of

- edges that have the operation and read the state that they had,
- combiners that are the ones they were, in blocks that both have,
- projections, and the rows of the classifier, state by state: of the states
  that both concatenate,
- the stem and all else that each child has.

Everything else stays as the child's own seed has it.
"""

import functools

import jax.numpy as jnp

from nasnet_jax.population import any_stack, shared_banks
from nasnet_jax.spaces.genotype import Genes, Genotype, genes_of


def inherit(
  stack: any_stack.AnyStack,
  genotypes: tuple[Genotype, Genotype],
  weights: tuple[dict, dict],
) -> dict:
  """The child's weights, or running statistics, with which it begins.

  Args:
    stack: the network with its cells left open.
    genotypes: the parent's, and the child's.
    weights: the parent's final ones, and the child's own initial ones, as
      `AnyStack.init` gives them.
  """
  old, new = weights
  found = {"stem": old["stem"]}
  used = [
    functools.partial(any_stack.used_states, genotype, stack.cells)
    for genotype in genotypes
  ]
  for cell, part in zip(stack.cells, stack.parts, strict=True):
    genes = [genes_of(genotype, cell.kind) for genotype in genotypes]
    had = [
      shared_banks.had_by(part, new[cell.name], g, stack.read_by(cell, u))
      for g, u in zip(genes, used, strict=True)
    ]
    found[cell.name] = _of_cell(genes, had, old[cell.name], new[cell.name])
  if "classifier" in new:  # it has no statistics
    last = len(stack.cells)
    both = jnp.repeat(used[0](last) & used[1](last), stack.shapes[-1].features)
    kernels = old["classifier"]["kernel"], new["classifier"]["kernel"]
    found["classifier"] = {
      **old["classifier"],
      "kernel": shared_banks.where(both, *kernels),
    }
  return found


def _of_cell(genes: list[Genes], had: list[dict], old: dict, new: dict) -> dict:
  """had: `shared_banks.had_by` of parent and child."""
  combine = genes[0].combine == genes[1].combine
  found = {}
  for name, tree in new.items():
    if name == "edges":
      same = same_edges(*genes)
      found[name] = shared_banks.where(same, old[name], tree)
      continue
    found[name] = dict(old[name])
    for of, mask in had[1].get(name, {}).items():
      if of in tree:  # statistics are those of the norm alone
        both = had[0][name][of] & mask
        both &= combine if name == "combine" else True
        found[name][of] = shared_banks.where(both, old[name][of], tree[of])
  return found


def same_edges(parent: Genes, child: Genes):
  """bool[B, 2]: edges whose operation and state are the parent's."""
  both = (parent.active & child.active)[:, None]
  inputs = parent.inputs == child.inputs
  return both & inputs & (parent.ops == child.ops)
