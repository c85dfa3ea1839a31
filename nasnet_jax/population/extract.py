"""From a child to the variables of the static network that it is."""

from typing import Any

import jax
import numpy as np

from nasnet_jax.models import stacked_plan
from nasnet_jax.population import any_stack, cell_blocks, mixed
from nasnet_jax.population.networks import Network
from nasnet_jax.spaces.genotype import ADD, CONCAT, Genotype, genes_of
from nasnet_jax.training.state import TrainState


class _Variables:
  """Of one module, as they come together."""

  def __init__(self):
    self.params: dict[str, Any] = {}
    self.stats: dict[str, Any] = {}

  def add(self, name: str, params, stats):
    """A part's; what is empty leaves no trace, as in Linen."""
    if params:
      self.params[name] = params
    if stats:
      self.stats[name] = stats


def extract(
  network: Network, genotype: Genotype, state: TrainState
) -> dict[str, Any]:
  """The variables of the static network that this child is.

  Args:
    genotype: of one child, no leading axis.
    state: the same, without a leading axis.

  Returns:
    {"params", "batch_stats"} for `apply` of the family's static network.
  """
  params, stats = jax.device_get((state.params, state.batch_stats))
  if network.extract:
    return network.extract(params, stats, genotype)
  genotype = Genotype(*(np.asarray(leaf) for leaf in genotype))
  found = _Variables()
  found.add("stem", params["stem"], stats["stem"])

  def used(position: int) -> np.ndarray:
    return np.asarray(any_stack.used_states(genotype, network.cells, position))

  for cell, shape, mix in zip(
    network.cells, network.shapes, network.mixes, strict=True
  ):
    made = _extract_cell(
      params[cell.name],
      stats[cell.name],
      genes_of(genotype, cell.kind),
      shape,
      mix,
      [None if i is None else used(i) for i in cell.reads()],
    )
    found.add(cell.name, made.params, made.stats)
  head = params["classifier"]
  rows = np.repeat(used(len(network.cells)), network.shapes[-1].features)
  found.add("classifier", {**head, "kernel": head["kernel"][rows]}, {})
  return {"params": found.params, "batch_stats": found.stats}


def _extract_cell(params, stats, genes, shape, mix, reads) -> _Variables:
  """reads: the used states of h_i and h_{i-1}; None: there is none."""
  found = _Variables()
  if isinstance(shape, stacked_plan.SeparateShape):
    found.add("inputs", params["inputs"], stats["inputs"])
  else:
    _add_inputs(found, params, stats, shape, reads)
  raw_places, _ = stacked_plan.groups_of(shape, genes.active.shape[0])
  branch, _ = cell_blocks.branch_numbers(genes, mix, raw_places)
  for b in np.flatnonzero(genes.active):
    for side in range(2):
      chosen = mix.branches[int(branch[b, side])]
      found.add(
        f"block_{b}_{side}",
        mixed.read_view(chosen.params, _row(params["edges"], b, side)),
        mixed.read_view(chosen.stats, _row(stats["edges"], b, side)),
      )
    _add_combiner(found, params, stats, genes.combine[b], b)
  for s in (0, 1):
    if f"fit_state_{s}" in params and genes.concat[s]:
      _add_fit_state(found, params, stats, f"fit_state_{s}")
  return found


def _row(tree, *i):
  return jax.tree.map(lambda x: x[i], tree)


def _add_combiner(found: _Variables, params, stats, combine: int, b: int):
  """The weights of block b's combiner; an addition has none."""
  if combine == ADD:
    return
  norm, name = _row(params["combine"]["norm"], b), f"block_{b}_combine"
  if combine != CONCAT:
    found.add(name, norm, {})
    return
  conv = params["combine"]["conv"]["kernel"][b]
  found.add(
    name,
    {"conv": {"kernel": conv.reshape(-1, conv.shape[-1])}, "norm": norm},
    {"norm": _row(stats["combine"]["norm"], b)},
  )


def _add_fit_state(found: _Variables, params, stats, name: str):
  """What brings an input to the output's shape, for the concatenation."""
  conv = params[name]["conv"]
  convs = {"conv": conv}
  if not isinstance(conv, dict):
    convs = {f"conv_{i}": c for i, c in enumerate(conv)}
  found.add(name, {**convs, "norm": params[name]["norm"]}, stats[name])


def _add_inputs(found: _Variables, params, stats, shape, reads):
  """What prepares h_i and h_{i-1}."""
  current, previous = reads
  found.add("project", _project(params["project"], current), stats["project"])
  if previous is None:
    return
  fit, fit_stats = params["fit_previous"], stats["fit_previous"]
  if shape.previous[2] != shape.side:
    inner = {"norm": fit["norm"]}
    for i, conv in enumerate(fit["conv"]):
      inner[f"conv_{i}"] = {"kernel": _joined(conv["kernel"], previous)}
    found.add("fit_previous", {"reduce": inner}, {"reduce": fit_stats})
  elif previous.sum() * shape.previous[1] != shape.features:
    inner = _project(fit, previous)
    found.add("fit_previous", {"project": inner}, {"project": fit_stats})


def _project(params, used):
  kernel = _joined(params["conv"]["kernel"], used)
  return {"conv": {"kernel": kernel}, "norm": params["norm"]}


def _joined(kernel, used):
  """The kernel of the concatenation of the used states."""
  return kernel[used].reshape(-1, kernel.shape[-1])
