"""Speed and memory of the population, both sides of each comparison in a run.

    python benchmarks/population.py --out=population.json
        [--torch-python=PYTHON]   also eager PyTorch, with a Python that has it
        [--sections=step,compile] only these

Each section runs in a process of its own, so that flags and caches are its
own. Every figure is a time on this machine's CPU, nothing is a TPU
measurement. Load at the start is part of the output: on a busy machine only
the ratios mean anything, and those little.
"""

import argparse
import datetime
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


# The children of `search_cifar`, the paper's and that of `:small`.
CHILDREN = {
  "paper": {"num_cells": 2, "features": 32, "side": 32, "batch": 32},
  "small": {"num_cells": 1, "features": 8, "side": 16, "batch": 64},
}


def _setup(
  num_cells=2, features=32, side=32, batch=32, width=1, arch=1, train=4096
):
  """An evaluator of a search child, the paper's by default, on random
  images."""
  import jax
  import numpy as np

  from nasnet_jax import spaces
  from nasnet_jax.data.augment import DEFAULTS
  from nasnet_jax.models.layers import Numerics
  from nasnet_jax.models.stacked_plan import NetworkConfig
  from nasnet_jax.population import population
  from nasnet_jax.population.evaluator import PopulationEvaluator

  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (train, side, side, 3)).astype(np.uint8)
  labels = rng.integers(0, 10, train).astype(np.int32)
  mesh = jax.make_mesh(
    (arch, 1),
    ("arch", "data"),
    axis_types=(jax.sharding.AxisType.Auto,) * 2,
    devices=jax.devices()[:arch],
  )
  return PopulationEvaluator(
    spaces.get("nasnet"),
    NetworkConfig(
      num_cells=num_cells,
      features=features,
      numerics=Numerics(init="fan_in"),
    ),
    population.ChildRecipe(batch_size=batch, width=width, eval_batch_size=100),
    DEFAULTS["cifar10"],
    (images, labels),
    (images[:100], labels[:100]),
    mesh,
  )


def _slots(evaluator, decisions):
  """(state, genotypes in slots) of children that just took their slots."""
  import numpy as np

  from nasnet_jax.spaces import genotype as gt

  pop = evaluator.population
  rows = np.resize(np.arange(len(decisions)), pop.slots)
  genotypes = evaluator.space.decode(np.asarray(decisions)[rows])
  state = pop.refill(
    pop.empty(),
    np.ones(pop.slots, bool),
    np.arange(pop.slots, dtype=np.uint32),
    np.full(pop.slots, 10_000, np.int32),
    gt.Genotype(*genotypes),
  )
  return state, genotypes


def _time(step, repeats):
  """Seconds of each call; `step` must wait for its result."""
  seconds = []
  for _ in range(repeats):
    start = time.perf_counter()
    step()
    seconds.append(time.perf_counter() - start)
  return seconds


def _any_cell_stepper(evaluator, decisions):
  import jax

  state, genotypes = _slots(evaluator, decisions)
  held = [state]

  def step():
    held[0], metrics = evaluator.population.train(
      held[0], genotypes, evaluator.train_data
    )
    jax.block_until_ready(metrics)

  return step


def _static_stepper(evaluator, decisions, batch, plain):
  """The same step of an ordinary static network, no map and no switch.

  plain: with `lax` convolutions and pools instead of the CPU kernels.
  """
  import functools

  import jax
  import jax.numpy as jnp
  from jax import lax

  from nasnet_jax.data import augment, batches
  from nasnet_jax.models import stacked, stacked_plan
  from nasnet_jax.models.layers import Numerics
  from nasnet_jax.training import losses, optimizers, schedules
  from nasnet_jax.training.state import TrainState
  from nasnet_jax.training.step import train_step

  config = stacked_plan.NetworkConfig(numerics=Numerics(init="fan_in"))
  genotype = evaluator.space.decode(decisions[0])
  net = stacked.StackedNetwork(
    config, stacked.as_cells(evaluator.space, genotype)
  )
  tx = optimizers.momentum_sgd()
  aug = augment.DEFAULTS["cifar10"]
  data = evaluator.train_data

  def loss_fn(params, stats, batch, rng, progress):
    x = augment.augment(rng, batch[0], aug)
    (logits, _, _), new = net.apply(
      {"params": params, "batch_stats": stats},
      x,
      train=True,
      mutable=["batch_stats"],
    )
    loss = losses.cross_entropy(logits, batch[1])
    return loss, (new["batch_stats"], {})

  def step(state):
    index = batches.batch_indices(
      state.seed, state.step, len(data.labels), batch
    )
    return train_step(
      state,
      (data.images[index], data.labels[index]),
      loss_fn=loss_fn,
      tx=tx,
      schedule=schedules.cosine(0.025),
    )

  image = jnp.zeros((2, 32, 32, 3))
  variables = jax.jit(functools.partial(net.init, train=False))(
    jax.random.key(0), image
  )
  params = variables["params"]
  scalar = functools.partial(jnp.asarray, dtype=jnp.int32)
  held = [
    TrainState(
      params,
      variables["batch_stats"],
      tx.init(params),
      scalar(0),
      scalar(10_000),
      jnp.uint32(0),
    )
  ]
  dependent = lax.platform_dependent
  if plain:
    # The kernels choose by this function; "default" is the plain form.
    lax.platform_dependent = lambda *args, default, **_: default(*args)
  try:
    compiled = jax.jit(step, donate_argnums=0).lower(held[0]).compile()
  finally:
    lax.platform_dependent = dependent

  def run():
    held[0], metrics = compiled(held[0])
    jax.block_until_ready(metrics)

  return run


def section_step(batch):
  """Per child: any cell in the search's loop, static, static plain `lax`."""
  import numpy as np

  evaluator = _setup(batch=batch)
  decisions = evaluator.space.sample(np.random.default_rng(0), 2)
  rows = []
  for cell in decisions:
    steppers = {
      "any_cell": _any_cell_stepper(evaluator, cell[None]),
      "static": _static_stepper(evaluator, cell[None], batch, plain=False),
      "static_plain_lax": _static_stepper(
        evaluator, cell[None], batch, plain=True
      ),
    }
    for step in steppers.values():
      step()
    seconds = {name: [] for name in steppers}
    for turn in range(3):  # in turns, so that drift hits all alike
      for name, step in steppers.items():
        if name != "static_plain_lax":
          step()  # the first call after another program is slower
        elif turn:  # it is several times slower
          continue
        seconds[name] += _time(step, 2)
    median = {k: statistics.median(v) for k, v in seconds.items()}
    rows.append(
      {
        "decisions": cell.tolist(),
        "seconds": seconds,
        "any_cell_to_static": median["any_cell"] / median["static"],
        "any_cell_to_fastest_static": median["any_cell"]
        / min(median["static"], median["static_plain_lax"]),
      }
    )
  ratio = statistics.median(r["any_cell_to_static"] for r in rows)
  return {
    "batch": batch,
    "cells": rows,
    "any_cell_to_static": ratio,
    "any_cell_to_fastest_static": statistics.median(
      r["any_cell_to_fastest_static"] for r in rows
    ),
    "bytes_per_child": _bytes_per_child(evaluator),
  }


def _bytes_per_child(evaluator):
  import jax

  state = jax.eval_shape(evaluator.population.empty)
  held = sum(s.size * s.dtype.itemsize for s in jax.tree.leaves(state))
  return held // evaluator.population.slots


def section_torch(python):
  """Static NASNet-A child here against eager PyTorch, in turns."""
  import numpy as np

  from nasnet_jax import zoo
  from nasnet_jax.spaces import nasnet

  evaluator = _setup()

  class Cell:  # a "space" whose one decision is NASNet-A
    to_json = staticmethod(nasnet.NASNET.to_json)
    cells = nasnet.NASNET.cells

    @staticmethod
    def decode(_):
      return zoo.cells.genotype("nasnet_a")

  evaluator.space = Cell
  step = _static_stepper(evaluator, np.zeros((1, 1), int), 32, plain=False)
  cells = nasnet.NASNET.to_json(Cell.decode(None))["cells"]
  step()
  ours, theirs = [], []
  with _TorchChildren(python) as peer:
    for _ in range(3):
      ours += _time(step, 3)
      answer = peer.measure(cells=cells, steps=3, **CHILDREN["paper"])
      theirs += answer["seconds"]
  medians = statistics.median(ours), statistics.median(theirs)
  return {
    "static_nasnet_a": ours,
    "torch": theirs,
    "torch_version": answer["version"],
    "ours_to_torch": medians[0] / medians[1],
  }


class _TorchChildren:
  """Eager PyTorch in a process of its own, which waits between turns."""

  def __init__(self, python):
    self._command = [python, str(ROOT / "benchmarks/peers/torch_child.py")]

  def __enter__(self):
    self._process = subprocess.Popen(
      self._command,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
      bufsize=1,
    )
    return self

  def measure(self, **child):
    """See the program: {"seconds", "params", "version"}."""
    self._process.stdin.write(json.dumps(child) + "\n")
    self._process.stdin.flush()
    return json.loads(self._process.stdout.readline())

  def __exit__(self, *_):
    self._process.stdin.close()
    self._process.wait()


def section_cells(python, child, cells=6, turns=3):
  """Random cells of all operations in the search's loop against the same in
  eager PyTorch, in turns."""
  import numpy as np

  from nasnet_jax.costs import counting
  from nasnet_jax.models.stacked_plan import NetworkConfig

  sizes = CHILDREN[child]
  evaluator = _setup(**sizes)
  space, side = evaluator.space, sizes["side"]
  network = NetworkConfig(
    num_cells=sizes["num_cells"], features=sizes["features"]
  )
  count = counting.make_counter(
    network, space.operations, space.num_blocks, (side, side, 3)
  )
  rows = []
  with _TorchChildren(python) as peer:
    for decisions in space.sample(np.random.default_rng(0), cells):
      genotype = space.decode(decisions)
      ours, theirs = [], []
      step = _any_cell_stepper(evaluator, decisions[None])
      step()
      for _ in range(turns):
        step()  # the first call after another program is slower
        ours += _time(step, 3)
        answer = peer.measure(
          cells=space.to_json(genotype)["cells"], steps=3, **sizes
        )
        theirs += answer["seconds"]
      params, macs = count(genotype)
      if params != answer["params"]:
        sys.exit(
          f"PyTorch's child has {answer['params']} weights, not {params}"
        )
      medians = statistics.median(ours), statistics.median(theirs)
      rows.append(
        {
          "decisions": decisions.tolist(),
          "macs": int(macs),
          "ours": ours,
          "torch": theirs,
          "ours_to_torch": medians[0] / medians[1],
        }
      )
  ratios = sorted(row["ours_to_torch"] for row in rows)
  return {
    "child": child,
    "torch_version": answer["version"],
    "ours_to_torch": statistics.median(ratios),
    "spread": [ratios[0], ratios[-1]],
    "cells": rows,
  }


def section_compile_once(cells):
  """Compile seconds of this process, and what so many more cells compile."""
  import jax
  import numpy as np

  evaluator = _setup(train=64)
  start = time.perf_counter()
  evaluator.compile()
  seconds = time.perf_counter() - start
  compiled = []
  jax.monitoring.register_event_duration_secs_listener(
    lambda name, *_, **__: (
      compiled.append(name)
      if name.endswith("backend_compile_duration")
      else None
    )
  )
  decisions = evaluator.space.sample(np.random.default_rng(1), cells)
  pop = evaluator.population
  state = pop.empty()
  for i, cell in enumerate(decisions):
    genotypes = evaluator.space.decode(cell[None])
    seeds = np.array([i], np.uint32)
    horizon = np.array([0], np.int32)  # initialised, nothing to do
    state = pop.refill(state, np.ones(1, bool), seeds, horizon, genotypes)
    state, _ = pop.train(state, genotypes, evaluator.train_data)
  jax.block_until_ready(state)
  return {"seconds": seconds, "cells": cells, "compiled": len(compiled)}


def section_devices(count):
  """Seconds in which `count` devices train 8 children one step each."""
  from nasnet_jax.training import mesh

  mesh.prepare_host(count)
  import numpy as np

  evaluator = _setup(1, 8, arch=count, width=8 // count, train=512)
  decisions = evaluator.space.sample(np.random.default_rng(0), 8)
  step = _any_cell_stepper(evaluator, decisions)
  step()
  seconds = _time(step, 10)
  return {"devices": count, "median": statistics.median(seconds)}


def section_cores(child, groups=2, turns=3):
  """Children one after another on one CPU device, which has all cores, against
  as many side by side on a device per core, in turns."""
  from nasnet_jax.training import mesh

  count = mesh.devices_for_children()
  mesh.prepare_host(count)
  import numpy as np

  alone, together = (_setup(**CHILDREN[child], arch=a) for a in (1, count))
  decisions = alone.space.sample(np.random.default_rng(0), groups * count)
  rows = []
  for group in decisions.reshape(groups, count, -1):
    each = [_any_cell_stepper(alone, one[None]) for one in group]
    all_ = _any_cell_stepper(together, group)
    one_by_one, side_by_side = [], []
    for _ in range(turns):
      for step in each:
        step()  # the first call after another program is slower
      one_by_one.append(sum(statistics.median(_time(step, 3)) for step in each))
      all_()
      side_by_side.append(statistics.median(_time(all_, 3)))
    rows.append({"one_by_one": one_by_one, "side_by_side": side_by_side})
  ratios = [
    statistics.median(row["side_by_side"])
    / statistics.median(row["one_by_one"])
    for row in rows
  ]
  return {"child": child, "devices": count, "ratios": ratios, "groups": rows}


def section_overhead():
  """Seconds per child of a search whose training takes no time: asking,
  counting, telling, history, journal and checkpoint, in rounds of 20."""
  import numpy as np

  from nasnet_jax import controllers, spaces
  from nasnet_jax.costs import counting
  from nasnet_jax.models.stacked_plan import NetworkConfig
  from nasnet_jax.population import evaluation
  from nasnet_jax.search import rounds

  space = spaces.get("nasnet")
  rng = np.random.default_rng(0)
  count = counting.make_counter(
    NetworkConfig(), space.operations, 5, (32, 32, 3)
  )

  class Instant:
    def evaluate(self, decisions, seeds, budgets, progress=None):
      del seeds, budgets, progress
      genotypes = space.decode(decisions)
      return [
        evaluation.Outcome(
          float(rng.uniform()),
          evaluation.OK,
          1,
          0.0,
          *count(type(genotypes)(*(leaf[i] for leaf in genotypes))),
        )
        for i in range(len(decisions))
      ]

  controller = controllers.make("ppo", space.num_choices)
  seconds = []
  with tempfile.TemporaryDirectory() as folder:
    rounds.run(
      pathlib.Path(folder),
      controller,
      Instant(),
      rounds.RoundSettings(400, 20, 0),
      finished=lambda _, fresh, spent: seconds.append(spent / fresh),
    )
  return {"seconds_per_child": statistics.median(seconds[2:])}


def _run(section, cache, **arguments):
  """A section in a process of its own."""
  environment = {
    **os.environ,
    "JAX_PLATFORMS": "cpu",
    "JAX_COMPILATION_CACHE_DIR": cache,
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1",
    "XLA_FLAGS": "",
  }
  command = [sys.executable, __file__, "--section", section]
  command += ["--arguments", json.dumps(arguments)]
  start = time.perf_counter()
  out = subprocess.run(
    command, env=environment, capture_output=True, text=True, check=False
  )
  if out.returncode:
    sys.exit(f"section {section} failed:\n{out.stderr[-2000:]}")
  result = json.loads(out.stdout.splitlines()[-1])
  result["process_seconds"] = time.perf_counter() - start
  print(section, arguments, json.dumps(result)[:300], file=sys.stderr)
  return result


def _sections(wanted, torch_python):
  """(name, result) of each section, as soon as it is there."""
  with tempfile.TemporaryDirectory() as cache:
    if "compile" in wanted:
      yield "compile_cold", _run("compile_once", cache, cells=1000)
      yield "compile_cached", _run("compile_once", cache, cells=0)
    if "overhead" in wanted:
      yield "overhead", _run("overhead", cache)
    if "step" in wanted:
      for batch in (32, 128):
        yield f"step_{batch}", _run("step", cache, batch=batch)
    if "torch" in wanted and torch_python:
      yield "torch", _run("torch", cache, python=torch_python)
    if "cells" in wanted and torch_python:
      for child in CHILDREN:
        found = _run("cells", cache, python=torch_python, child=child)
        yield f"cells_{child}", found
    if "cores" in wanted:
      for child in CHILDREN:
        yield f"cores_{child}", _run("cores", cache, child=child)
    if "devices" in wanted:
      seconds = {}
      for count in (1, 8):
        result = _run("devices", cache, count=count)
        seconds[count] = result["median"]
        yield f"devices_{count}", result
      yield "8_devices_to_1", seconds[8] / seconds[1]


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--out")
  parser.add_argument("--torch-python")
  parser.add_argument(
    "--sections", default="compile,step,torch,cells,cores,devices,overhead"
  )
  parser.add_argument("--section", help=argparse.SUPPRESS)
  parser.add_argument("--arguments", help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.section:
    function = globals()[f"section_{args.section}"]
    print(json.dumps(function(**json.loads(args.arguments))))
    return
  import jax

  report = {
    "date": datetime.date.today().isoformat(),
    "platform": "cpu",
    "cores": os.cpu_count(),
    "load_at_start": os.getloadavg(),
    "jax": jax.__version__,
  }
  for name, result in _sections(args.sections.split(","), args.torch_python):
    report[name] = result
    if args.out:  # after each section: the whole takes half an hour
      text = json.dumps(report, indent=1)
      pathlib.Path(args.out).write_text(text + "\n")
  print(json.dumps(report, indent=1))


if __name__ == "__main__":
  main()
