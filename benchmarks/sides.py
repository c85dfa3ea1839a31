"""What the benchmarks of whole networks share: calls to time, and the turns.

Each side runs in a process of its own, which prints one JSON object with the
seconds of each call; the sides take turns for some rounds, and medians are over
all calls. Compiling is not in the times of the calls, and stands beside them.
"""

import argparse
import datetime
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import time

KINDS = ("inference", "train")


def parser(about: str) -> argparse.ArgumentParser:
  """With the options that all benchmarks of networks have."""
  found = argparse.ArgumentParser(description=about)
  found.add_argument("--out", type=pathlib.Path, required=True)
  found.add_argument("--torch-python", help="a Python with torch and timm")
  found.add_argument("--repeats", type=int, default=5)
  found.add_argument("--rounds", type=int, default=2)
  found.add_argument("--one", help="(of a process of this benchmark)")
  return found


def ours(network, batch: int, side: int, dtype: str = "float32"):
  """(inference, train, parameters) of a network of ours: two functions without
  arguments, and a number. Momentum SGD, random images; dtype: of activations in
  training."""
  import jax
  import numpy as np

  from nasnet_jax.data import augment
  from nasnet_jax.training import datasets, fit, recipes

  recipe = recipes.Recipe(batch_size=batch, drop_path_keep=1.0, dtype=dtype)
  aug = augment.Augmentation(mean=(0.5,), std=(0.5,))
  rng = np.random.default_rng(0)
  shape = (batch, side, side, 3)
  images = rng.integers(0, 256, shape).astype(np.uint8)
  data = datasets.on_device(
    datasets.Images(images, np.arange(batch) % network.config.num_classes)
  )
  state = fit.init_state(network, recipe, shape[1:], 1000, 0)
  variables = jax.tree.map(np.asarray, fit.variables_of(state))
  step = jax.jit(
    fit.make_step(network, recipe, aug, streamed=True), donate_argnums=0
  )
  answer = jax.jit(
    lambda v, x: network.apply(v, augment.normalise(x, aug), train=False)[0]
  )
  held = [state]

  def train():
    held[0], metrics = step(held[0], data)
    jax.block_until_ready(metrics)

  def inference():
    jax.block_until_ready(answer(variables, data.images))

  sizes = (x.size for x in jax.tree.leaves(variables["params"]))
  return inference, train, sum(sizes)


def keras(make, batch: int, side: int):
  """The same of a Keras model on its JAX backend.

  Args:
    make: () -> the model, called when Keras's backend is chosen.
  """
  os.environ["KERAS_BACKEND"] = "jax"
  import jax
  import keras
  import numpy as np

  model = make()
  model.compile(
    optimizer=keras.optimizers.SGD(0.01, momentum=0.9),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    jit_compile=True,
  )
  rng = np.random.default_rng(0)
  images = rng.uniform(-1, 1, (batch, side, side, 3)).astype(np.float32)
  labels = np.arange(batch)
  variables = [v.value for v in model.trainable_variables]
  others = [v.value for v in model.non_trainable_variables]
  # As fit() does, without its loop around it.
  optimizer = model.optimizer
  optimizer.build(model.trainable_variables)
  slots = [v.value for v in optimizer.variables]

  def loss_of(weights, rest):
    logits, rest = model.stateless_call(weights, rest, images, training=True)
    return model.loss(labels, logits), rest

  @jax.jit
  def step(weights, rest, slots):
    (_, rest), gradients = jax.value_and_grad(loss_of, has_aux=True)(
      weights, rest
    )
    weights, slots = optimizer.stateless_apply(slots, gradients, weights)
    return weights, rest, slots

  @jax.jit
  def answer(weights, rest, images):
    return model.stateless_call(weights, rest, images, training=False)[0]

  held = [(variables, others, slots)]

  def train():
    held[0] = jax.block_until_ready(step(*held[0]))

  def inference():
    jax.block_until_ready(answer(variables, others, images))

  return inference, train, sum(v.size for v in variables)


def time_calls(
  inference,
  train,
  parameters: int,
  repeats: int,
  kinds=KINDS,
  memory: bool = False,
):
  """Prints the seconds of the first call of each kind, and of the next ones.

  Args:
    memory: whether to print the process's peak memory in the next ones, too.
  """
  result = {"parameters": parameters}
  for name, call in zip(KINDS, (inference, train), strict=True):
    if name not in kinds:
      continue
    start = time.perf_counter()
    call()
    result[f"{name} first"] = time.perf_counter() - start
    if memory:  # Linux: the peak begins anew
      pathlib.Path("/proc/self/clear_refs").write_text("5")
    seconds = []
    for _ in range(repeats):
      start = time.perf_counter()
      call()
      seconds.append(time.perf_counter() - start)
    result[name] = seconds
    if memory:
      result[f"{name} peak MB"] = peak_megabytes()
  print(json.dumps(result))


def peak_megabytes() -> float:
  """The largest resident size of this process since its start, or since its
  peak was told to begin anew (Linux)."""
  status = pathlib.Path("/proc/self/status").read_text()
  found = re.search(r"VmHWM:\s+(\d+) kB", status)
  return int(found.group(1)) / 1024


def run(command: list[str], cores: int | None = None) -> dict:
  """What a process printed last, an object; on that many cores if given."""
  env = {**os.environ, "JAX_PLATFORMS": "cpu"}

  def limit():
    if cores:
      os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])

  done = subprocess.run(
    command, capture_output=True, text=True, env=env, preexec_fn=limit
  )
  if done.returncode:
    sys.exit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
  return json.loads(done.stdout.splitlines()[-1])


def about() -> dict:
  """When, how and where."""
  return {
    "date": datetime.date.today().isoformat(),
    "command": " ".join(["python", *sys.argv]),
    "cpus": os.cpu_count(),
    "load": os.getloadavg(),
  }


def in_turns(sides: dict[str, list[str]], rounds: int, row_of, cores=None):
  """Runs each side's command in turns.

  Args:
    row_of: (side) -> its dictionary, filled with the seconds of all rounds,
      their medians, and what else a process printed.

  Yields:
    the side, after each run.
  """
  for _ in range(rounds):
    for name, command in sides.items():
      found = run(command, cores)
      row = row_of(name)
      for kind in KINDS:
        seconds = found.pop(kind, None)
        if seconds:
          row.setdefault(kind, []).extend(seconds)
          row[f"{kind} median"] = statistics.median(row[kind])
      row.update(found)
      yield name
