"""What the device that is here does with our programs, in 8 minutes at most.

    python benchmarks/accelerator.py --out=accelerator.json

Measures, each part in a process of its own with its share of --seconds: both
children of `search_cifar` (`:small` and the paper's) in the any-cell program,
by width, fold and updates per call, beside static networks of the same cells;
training steps of NASNet-A mobile and EfficientNet-B0; the first rounds of
`search_cifar`. Images are made up, on one device. Every row is written as soon
as it is there; a part whose time is over is ended, and its rows stay. Prints a
table.

Nothing is downloaded. It takes this repository's folders nasnet_jax, configs,
launch and benchmarks and, beside JAX for the device: absl-py clu etils flax
matplotlib ml_collections optax orbax-checkpoint pillow tensorboardX and what
these ask for (`pip download`). --tiny takes tiny sizes, to see that it runs.
"""

import argparse
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

# Part: its share of the seconds; what one leaves goes to the next ones.
PARTS = {"machine": 1, "small": 5, "paper": 7, "networks": 4, "search": 4}
# Width, fold, updates per call (0: as many as suit the device). The first of a
# child is set beside static networks.
SETTINGS = {
  "small": ((1, 1, 0), (1, 1, 1), (1, 4, 0), (4, 1, 0), (16, 1, 0)),
  "paper": ((1, 1, 0), (1, 4, 0), (4, 1, 0)),
}
CONFIGS = {"small": "search_cifar:small", "paper": "search_cifar"}
SIDES = {"search_cifar:small": 16, "search_cifar": 32, "search_cifar:tiny": 8}
CELLS = 6  # random ones, whose median is told
MANY = 32  # updates per call on an accelerator


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--out", type=pathlib.Path, required=True)
  parser.add_argument("--seconds", type=float, default=480.0)
  parser.add_argument("--only", default=",".join(PARTS))
  parser.add_argument("--tiny", action="store_true")
  parser.add_argument("--part", choices=PARTS, help="(of a process of this)")
  args = parser.parse_args()
  if args.part:
    measure(args.part, args.tiny)
    return
  result = {
    "command": " ".join(["python", *sys.argv]),
    "load": os.getloadavg(),
    "tiny": args.tiny,
    "parts": {},
  }
  with tempfile.TemporaryDirectory() as folder:
    for part, limit in budgets(args.only.split(","), args.seconds):
      command = [sys.executable, __file__, f"--part={part}", "--out=-"]
      command += ["--tiny"] * args.tiny
      rows = result["parts"][part] = {"rows": []}
      for row in watched(command, limit, rows, pathlib.Path(folder)):
        rows["rows"] = merged(rows["rows"], row)
        args.out.write_text(json.dumps(result, indent=1) + "\n")
        print(json.dumps(row), flush=True)
      args.out.write_text(json.dumps(result, indent=1) + "\n")
  print(table(result))


def budgets(parts, seconds: float):
  """(part, seconds that it may take), asked for one after another."""
  end = time.monotonic() + seconds
  for i, part in enumerate(parts):
    left = end - time.monotonic()
    yield part, left * PARTS[part] / sum(PARTS[p] for p in parts[i:])


def watched(command, limit: float, about: dict, folder: pathlib.Path):
  """The rows that a process prints, as they come, for so many seconds.

  Args:
    about: gets "seconds", and "ended" with the reason if it did not end well.
    folder: for its output, and for the programs that it compiles: none was
      compiled before.
  """
  env = {
    **os.environ,
    "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
    # Or memory_stats would tell of what was put by.
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "PYTHONUNBUFFERED": "1",
  }
  start = time.monotonic()
  with (
    open(folder / "stdout", "w+b") as out,
    open(folder / "stderr", "w+b") as err,
  ):
    process = subprocess.Popen(
      command, stdout=out, stderr=err, env=env, start_new_session=True
    )
    read, done = 0, False
    try:
      while not done:
        done = process.poll() is not None
        lines = (folder / "stdout").read_bytes().split(b"\n")[:-1]
        yield from map(json.loads, lines[read:])
        read = len(lines)
        if not done and time.monotonic() - start > limit:
          about["ended"] = f"its {limit:.0f} seconds were over"
          break
        time.sleep(0.0 if done else 0.2)
    finally:
      if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
  about["seconds"] = round(time.monotonic() - start, 1)
  if done and process.returncode:
    text = (folder / "stderr").read_text(errors="replace")
    about["ended"] = text.strip()[-1500:] or f"code {process.returncode}"


def merged(rows: list[dict], row: dict) -> list[dict]:
  """With a row; a later one of the same name adds to the earlier."""
  for known in rows:
    if known["what"] == row["what"]:
      known.update(row)
      return rows
  return [*rows, row]


# --- in the process of a part ------------------------------------------------


def tell(what: str, **figures):
  print(json.dumps({"what": what, **figures}), flush=True)


def measure(part: str, tiny: bool):
  from nasnet_jax.training import mesh

  mesh.prepare_host()
  if part == "machine":
    _machine()
  elif part == "networks":
    _networks(tiny)
  elif part == "search":
    _search("search_cifar:tiny" if tiny else CONFIGS["paper"])
  else:
    _children(part, tiny)


def _machine():
  import datetime

  import jax

  from nasnet_jax.jobs import by_machine, run_log

  machine = by_machine.machine_of()
  tell(
    str(machine),
    date=datetime.date.today().isoformat(),
    platform=machine.platform,
    memory_bytes=machine.memory,
    driver=jax.devices()[0].client.platform_version,
    cpus=os.cpu_count(),
    **run_log.environment(),
  )


def _made_up(side: int, count: int):
  """Images of ten classes, each a colour under noise."""
  import numpy as np

  from nasnet_jax.training import datasets

  rng = np.random.default_rng(0)
  labels = rng.integers(0, 10, count).astype(np.int32)
  colours = rng.integers(64, 192, (10, 1, 1, 3))
  noise = rng.integers(-64, 64, (count, side, side, 3))
  return datasets.Images((colours[labels] + noise).astype(np.uint8), labels)


def _opened(name: str, train: int, **fields):
  """(config, space, evaluator, lines on what was chosen) on one device."""
  from nasnet_jax.cli import shipped
  from nasnet_jax.data import augment
  from nasnet_jax.jobs import by_machine, job_config
  from nasnet_jax.search import search_config

  config = shipped.config(name)
  config.mesh.arch = 1
  config.update_from_flattened_dict(fields)
  side = SIDES[name]
  sets = [_made_up(side, count) for count in (train, 500, 500)]
  classes = tuple(map(str, range(10)))
  images = job_config.Splits("made up", "", classes, "", *sets, {})
  space = search_config.get_space(config)
  found = search_config.resolve(config, space, images, by_machine.machine_of())
  aug = augment.DEFAULTS["cifar10"]
  evaluator = search_config.get_evaluator(found.config, space, images, aug)
  return found.config, space, evaluator, found.words


def _children(part: str, tiny: bool):
  name = "search_cifar:tiny" if tiny else CONFIGS[part]
  settings = ((1, 1, 0), (2, 2, 2)) if tiny else SETTINGS[part]
  for place, setting in enumerate(settings):
    _any_cell(name, *setting, 2 if tiny else CELLS)
    if not place:
      _static(name, 1 if tiny else 2)


def _many() -> int:
  import jax

  return 1 if jax.default_backend() == "cpu" else MANY


def _any_cell(name, width: int, fold: int, updates: int, cells: int):
  import jax
  import numpy as np

  updates = updates or _many()
  fields = {"width": width, "fold": fold, "steps_per_call": updates}
  fields = {f"child.{key}": value for key, value in fields.items()}
  config, space, evaluator, _ = _opened(name, 2048, **fields)
  pop, data = evaluator.population, evaluator.train_data
  what = f"any cell, width {width}, fold {fold}, {updates} updates per call"
  drawn = space.sample(np.random.default_rng(0), cells * width)
  children = [drawn[i * width : (i + 1) * width] for i in range(cells)]

  def slots(decisions, state):
    genotypes = pop.put(space.decode(decisions))
    fresh, seeds = np.ones(width, bool), np.arange(width, dtype=np.uint32)
    horizons = np.full(width, 10**6, np.int32)
    return pop.refill(state, fresh, seeds, horizons, genotypes), genotypes

  state, genotypes = slots(children[0], pop.empty())
  start = time.perf_counter()
  program = pop.train.lower(state, genotypes, data).compile()
  tell(
    what,
    compile_seconds=time.perf_counter() - start,
    program_bytes=_bytes(program),
  )
  seconds = []
  for decisions in children:
    state, genotypes = slots(decisions, state)
    calls = []
    for _ in range(3):
      start = time.perf_counter()
      state, metrics = program(state, genotypes, data)
      jax.block_until_ready(metrics)
      calls.append(time.perf_counter() - start)
    seconds.append(min(calls[1:]) / updates)
  update = statistics.median(seconds)  # of all children of a call
  epoch = 45_000 // config.child.batch_size
  epoch = 5_000 // config.child.batch_size if "small" in name else epoch
  tell(
    what,
    update_seconds=update / width,
    of_cells=[s / width for s in seconds],
    children_per_hour=3600 * width / (update * config.child.epochs * epoch),
    images_per_second=config.child.batch_size * width / update,
    peak_bytes=_peak(),
  )


def _bytes(program) -> int:
  """Of a compiled program and what it works on."""
  memory = program.memory_analysis()
  if memory is None:
    return 0
  return (
    memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    - memory.alias_size_in_bytes
    + memory.temp_size_in_bytes
  )


def _peak() -> int | None:
  import jax

  stats = jax.local_devices()[0].memory_stats() or {}
  return stats.get("peak_bytes_in_use")


def _static(name: str, cells: int):
  """The first of the random cells as ordinary networks."""
  import numpy as np

  from nasnet_jax.models import families
  from nasnet_jax.search import search_config

  config, space, _, _ = _opened(name, 512)
  sizes = search_config.child_network(config, 10, space)
  drawn = space.sample(np.random.default_rng(0), cells)
  for i in range(cells):
    network = families.network(space, space.decode(drawn[i]), sizes)
    _steps(
      f"static, random cell {i}", network, config.child.batch_size, SIDES[name]
    )


def _networks(tiny: bool):
  import jax

  from nasnet_jax.export import tables

  small = tables.published_blocks("efficientnet_b0", width=0.25, depth=0.1)
  if tiny:
    _steps("EfficientNet-B0, a quarter as wide", small, 2, 32)
    return
  batch = 8 if jax.default_backend() == "cpu" else 128
  networks = {
    "NASNet-A mobile": tables.published("nasnet_a_mobile", aux=False),
    "EfficientNet-B0": tables.published_blocks("efficientnet_b0"),
  }
  for dtype in ("float32", "bfloat16"):
    for name, network in networks.items():
      _steps(f"{name}, {dtype}", network, batch, 224, dtype)


def _steps(what: str, network, batch: int, side: int, dtype="float32"):
  """Training steps of one network."""
  import sides

  _, train, _ = sides.ours(network, batch, side, dtype)
  start = time.perf_counter()
  train()
  tell(what, batch=batch, compile_seconds=time.perf_counter() - start)
  seconds = []
  for _ in range(6):
    start = time.perf_counter()
    train()
    seconds.append(time.perf_counter() - start)
  update = statistics.median(seconds[1:])
  tell(
    what,
    update_seconds=update,
    images_per_second=batch / update,
    peak_bytes=_peak(),
  )


def _search(name: str):
  """Rounds of children that train for an epoch of made-up images."""
  from nasnet_jax.search import rounds, search_config

  fields = {"child.epochs": 1, "search.children": 1000}
  config, space, evaluator, words = _opened(name, 2048, **fields)
  if "tiny" in name:
    config.search.children = config.search.children_per_round
  what = f"rounds of {name}, an epoch of 2,048 images"
  tell(what, chosen=list(words), compile_seconds=evaluator.compile())

  def finished(rows, fresh, seconds):
    # A child that failed has none.
    rewards = [row["reward"] or 0.0 for row in rows[-fresh:]]
    tell(
      what,
      rounds=1 + max(row["round"] for row in rows),
      children=len(rows),
      round_seconds=seconds,
      children_per_hour=3600 * fresh / seconds,
      update_seconds=seconds / sum(row["steps"] for row in rows[-fresh:]),
      mean_reward=statistics.fmean(rewards),
      peak_bytes=_peak(),
    )

  with tempfile.TemporaryDirectory() as folder:
    rounds.run(
      pathlib.Path(folder),
      search_config.get_controller(config, space),
      evaluator,
      search_config.round_settings(config),
      finished=finished,
    )


# --- the table ---------------------------------------------------------------


def table(result: dict) -> str:
  """Markdown of all rows that are there."""
  lines = [
    "| part | what | compiled in, s | an update, ms | children per hour |"
    " images per second | memory, GiB |",
    "|---|---|---|---|---|---|---|",
  ]
  for part, found in result["parts"].items():
    for row in found["rows"]:
      if part == "machine":
        lines.insert(0, f"{row['what']}, JAX {row['jax']}, {row['date']}\n")
      else:
        lines.append(f"| {part} | {' | '.join(_cells(row))} |")
    if "ended" in found:
      why = found["ended"].splitlines()[-1].replace("|", "/")
      lines.append(f"| {part} | ended early: {why} | | | | | |")
  return "\n".join(lines)


def _cells(row: dict) -> list[str]:
  def said(name, form, times=1.0):
    value = row.get(name)
    return "" if value is None else format(value * times, form)

  memory = "peak_bytes" if row.get("peak_bytes") else "program_bytes"
  return [
    row["what"],
    said("compile_seconds", ".1f"),
    said("update_seconds", ".2f", 1e3),
    said("children_per_hour", ",.1f"),
    said("images_per_second", ",.0f"),
    said(memory, ".2f", 2**-30),
  ]


if __name__ == "__main__":
  main()
