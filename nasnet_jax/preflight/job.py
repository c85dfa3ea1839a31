"""The preflight of a config, and the changes that would make it fit."""

from collections.abc import Callable, Iterator
from typing import Any

from nasnet_jax.preflight import chips, figures, plans, program

Row = dict[str, Any]
Change = dict[str, Any]  # fields of the config by dotted name


def run(
  config,
  topology: str,
  *,
  fit: bool = False,
  top: int = 0,
  compile_step: Callable = program.compile_step,
) -> Row:
  """Figures of a config's step on a topology, see `figures.figures`.

  Args:
    config: a ConfigDict as the job takes; it is not changed.
    topology: such as "v5e:16x16".
    fit: whether to try changes, one compilation each, until the step fits. The
      figures are then those of the first that fits, or of the last change;
      "tried" lists them all.
    top: of `figures.figures`.
    compile_step: (Step) -> Compiled.

  Raises:
    ValueError: in one line.
  """
  chip = chips.of(topology)
  devices = program.get_devices(topology)

  def look(config) -> tuple[Row, plans.Plan]:
    plan = plans.make_plan(config, devices, chip.hbm)
    found = figures.figures(plan, compile_step(plan.step), chip, top)
    about = {"topology": topology, "slice_chips": len(devices)}
    return {**about, "chosen": list(plan.chosen), **found}, plan

  found, plan = look(config)
  config = plan.config  # what was chosen is what is changed
  if not fit or found["fits"]:
    return found
  tried = []
  for change in changes(config, len(devices)):
    with_it = config.copy_and_resolve_references()
    with_it.update_from_flattened_dict(change)
    found, _ = look(with_it)
    flags = [f"--config.{name}={value}" for name, value in change.items()]
    row = {"changes": flags, "fits": found["fits"], "hbm": found["hbm"]}
    tried.append(row)
    if found["fits"]:
      break
  return {**found, "chosen": list(plan.chosen), "tried": tried}


def changes(config, num_devices: int) -> Iterator[Change]:
  """Changes that save memory, those that cost the least time first; each
  includes those before it."""
  if config.job == "search":
    width = config.child.width
    while width > 1:
      width //= 2
      yield {"child.width": width}
    return
  change: Change = {}
  if config.mesh.data < num_devices and not (
    config.train.batch_size // config.train.micro_batches % num_devices
  ):
    change = {**change, "mesh.data": num_devices}
    yield change
  if not config.network.get("remat", True):
    change = {**change, "network.remat": True}
    yield change
  if not config.mesh.get("shard_params", True):
    change = {**change, "mesh.shard_params": True}
    yield change
  for parts in _micro_batches(config, {**change}.get("mesh.data")):
    yield {**change, "train.micro_batches": parts}


def _micro_batches(config, data: int | None) -> Iterator[int]:
  """Numbers of micro-batches, ascending, which divide over the devices and in
  which batch norm's groups keep their size."""
  size, group = config.train.batch_size, config.train.bn_group
  devices = data or config.mesh.data
  for parts in range(config.train.micro_batches + 1, size // devices + 1):
    part = size // parts
    whole_groups = not group or part % group == 0
    if size % parts == 0 and part % devices == 0 and whole_groups:
      yield parts
