"""The commands that train what a run found at the size of the papers."""

from nasnet_jax.report import runs
from nasnet_jax.report.commands import command, folder_beside, place
from nasnet_jax.spaces import compound_scaling
from nasnet_jax.spaces.blocks import BlockSpace
from nasnet_jax.spaces.cells import CellSpace
from nasnet_jax.spaces.mnasnet import MnasSpace

_CELLS = "train_cifar"  # trains the cells of any space of cells
_PNAS = "train_cifar:pnasnet_5"
_BLOCKS = "train_efficientnet"  # any row of blocks


def train(run: runs.Run, child: int | None = None) -> str:
  """The command that trains a child at full size, or the winner; "" where no
  config trains what this space has. That of blocks is for photographs."""
  space = runs.space_of(run)
  if isinstance(space, CellSpace):
    config = _PNAS if space.name == "pnas" else _CELLS
    given = [f"--config={config}", *_sizes(run), *_data(run)]
  elif isinstance(space, BlockSpace | MnasSpace):
    given = [f"--config={_BLOCKS}", *_photographs(run)]
  else:
    return ""
  whose = "" if child is None else f"#{child}"
  name = "full" if child is None else f"child_{child}"
  return command(
    run,
    "train",
    given[0],
    f"--config.model.genotype={place(run)}{whose}",
    *given[1:],
    f"--workdir={folder_beside(run, name)}",
  )


def scaled(run: runs.Run) -> str:
  """The command that trains the largest network of a scaling run at full size;
  "" where no config trains it."""
  network = run.result.get("network") or {}
  chosen = (run.result.get("winner") or {}).get("coefficients") or {}
  point = compound_scaling.Coefficients(**chosen) if chosen else None
  rows = [
    row
    for row in run.result.get("rows") or ()
    if point and row["phi"] and tuple(row["coefficients"]) == point
  ]
  if not rows:
    return ""
  row = max(rows, key=lambda row: row["phi"])
  factors = compound_scaling.factors(point, row["phi"])
  if "width" in network:
    given = [
      f"--config={_BLOCKS}",
      f"--config.network.width={network['width'] * factors.width:.6g}",
      f"--config.network.depth={network['depth'] * factors.depth:.6g}",
      f"--config.data.stream.image_size={row['side']}",
      *_photographs(run),
    ]
  elif "num_cells" in network:
    features = compound_scaling.round_features(
      network["features"], factors.width, 2
    )
    cells = compound_scaling.round_repeats(network["num_cells"], factors.depth)
    given = [
      f"--config={_CELLS}",
      f"--config.network.num_cells={cells}",
      f"--config.network.features={features}",
      *_topology(run.config.get("network") or {}),
      *_data(run),
    ]
    if (run.config.get("data") or {}).get("source") in ("folder", "tfds"):
      given = [g for g in given if "options.image_size" not in g]
      given.append(f"--config.data.options.image_size={row['side']}")
  else:
    return ""
  genotype = run.config["model"]["genotype"]
  return command(
    run,
    "train",
    given[0],
    f"--config.model.genotype={genotype}",
    *given[1:],
    f"--workdir={folder_beside(run, 'full')}",
  )


def _sizes(run: runs.Run) -> list[str]:
  """What small images make necessary: as in the final stage of this run."""
  return _topology((run.config.get("final") or {}).get("network") or {})


# Of networks of cells: what their size does not say, and the configs' values.
_TOPOLOGY = {
  "num_reductions": 2,
  "aux": True,
  "layout": "nasnet",
  "skip_reduction": False,
}


def _topology(fields) -> list[str]:
  return [
    f"--config.network.{name}={fields[name]}"
    for name, usual in _TOPOLOGY.items()
    if fields.get(name, usual) != usual
  ]


_NOT_DATA = ("note", "max_broken", "download")


def _data(run: runs.Run) -> list[str]:
  """The images of this run, as flags; the config has CIFAR-10."""
  data = run.config.get("data")
  if not isinstance(data, dict) or "source" not in data:
    return []
  options = data.get("options") or {}
  given = {f"options.{k}": v for k, v in options.items() if k not in _NOT_DATA}
  given |= {k: data.get(k) for k in ("data_dir", "num_valid", "valid_fraction")}
  augment = data.get("augmentation") or {}
  given |= {f"augmentation.{k}": augment.get(k) for k in ("pad", "flip")}
  if data["source"] == "cifar10":
    given = {"data_dir": data.get("data_dir")}
  return [f"--config.data.source={data['source']}"] * (
    data["source"] != "cifar10"
  ) + [f"--config.data.{k}={v}" for k, v in given.items() if v is not None]


def _photographs(run: runs.Run) -> list[str]:
  """The images of this run, if they are files, else those of one's own; a tenth
  validates, as the config's number is for ImageNet."""
  data = run.config.get("data") or {}
  options = data.get("options") or {}
  if data.get("source") == "tfds" and "stream" in data:
    given = {f"options.{k}": v for k, v in options.items() if k != "note"}
    given["data_dir"] = data.get("data_dir")
    return [f"--config.data.{k}={v}" for k, v in given.items() if v is not None]
  path = options.get("path") if data.get("source") == "folder" else None
  given = {"source": "folder", "options.path": path or "FOLDER"}
  if path:
    given |= {"data_dir": data.get("data_dir")}
    given |= {"options.labels": options.get("labels")}
  given |= {"num_valid": 0, "valid_fraction": 0.1}
  return [f"--config.data.{k}={v}" for k, v in given.items() if v is not None]
