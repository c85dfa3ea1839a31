"""Seconds per training step and per inference of NASNet-A at 224 pixels.

    python benchmarks/networks.py --out=networks.json
        [--torch-python=PYTHON]   also timm in eager PyTorch
        [--cells=6]  [--batch=8]  [--side=224]  [--repeats=5]

The same network on each side, random weights and images, momentum SGD, float32:
ours, `keras.applications` on Keras's JAX backend, and timm's, which has six
cells per stack and no other number. Each side runs in a process of its own, one
after another, twice in turns; medians over all calls. Compiling is not in the
times of the calls, and stands beside them.
"""

import argparse
import datetime
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
PEER = ROOT / "benchmarks" / "peers" / "torch_nasnet.py"
_FILTERS = 1056  # of the last stack's cells, 24 F


def _ours(args):
  """(inference, train, parameters): functions without arguments."""
  import dataclasses

  import jax
  import numpy as np

  from nasnet_jax import fit, zoo
  from nasnet_jax.data import augment
  from nasnet_jax.models import stacked
  from nasnet_jax.models.layers import IMAGENET

  space, _ = zoo.CELLS["nasnet_a"]
  config = stacked.NetworkConfig(
    num_cells=args.cells,
    features=_FILTERS // 24,
    num_classes=1000,
    stem="imagenet",
    stem_features=32,
    skip_reduction=True,
    numerics=dataclasses.replace(IMAGENET),
  )
  cells = stacked.as_cells(space, zoo.genotype("nasnet_a"))
  network = stacked.StackedNetwork(config, cells)
  recipe = fit.Recipe(batch_size=args.batch, drop_path_keep=1.0)
  aug = augment.Augmentation(mean=(0.5,), std=(0.5,))
  rng = np.random.default_rng(0)
  shape = (args.batch, args.side, args.side, 3)
  data = fit.on_device(
    fit.Images(
      rng.integers(0, 256, shape).astype(np.uint8), np.arange(args.batch)
    )
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


def _keras(args):
  """The same of Keras on its JAX backend."""
  os.environ["KERAS_BACKEND"] = "jax"
  import jax
  import keras
  import numpy as np
  from keras.src.applications.nasnet import NASNet

  model = NASNet(
    input_shape=(args.side, args.side, 3),
    penultimate_filters=_FILTERS,
    num_blocks=args.cells,
    stem_block_filters=32,
    skip_reduction=True,
    weights=None,
    classifier_activation=None,
  )
  model.compile(
    optimizer=keras.optimizers.SGD(0.01, momentum=0.9),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    jit_compile=True,
  )
  rng = np.random.default_rng(0)
  images = rng.uniform(-1, 1, (args.batch, args.side, args.side, 3))
  images = images.astype(np.float32)
  labels = np.arange(args.batch)
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


def _time_one(args):
  """Prints the times of one side."""
  inference, train, parameters = {"nasnet_jax": _ours, "keras": _keras}[
    args.one
  ](args)
  result = {"parameters": parameters}
  for name, call in (("inference", inference), ("train", train)):
    start = time.perf_counter()
    call()
    result[f"{name} first"] = time.perf_counter() - start
    seconds = []
    for _ in range(args.repeats):
      start = time.perf_counter()
      call()
      seconds.append(time.perf_counter() - start)
    result[name] = seconds
  print(json.dumps(result))


def _run(command) -> dict:
  env = {**os.environ, "JAX_PLATFORMS": "cpu"}
  done = subprocess.run(command, capture_output=True, text=True, env=env)
  if done.returncode:
    sys.exit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
  return json.loads(done.stdout.splitlines()[-1])


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument("--out", default="networks.json")
  parser.add_argument("--torch-python")
  parser.add_argument("--cells", type=int, default=6)
  parser.add_argument("--batch", type=int, default=8)
  parser.add_argument("--side", type=int, default=224)
  parser.add_argument("--repeats", type=int, default=5)
  parser.add_argument("--rounds", type=int, default=2)
  parser.add_argument("--one", help="(of a process of this benchmark)")
  args = parser.parse_args()
  if args.one:
    return _time_one(args)
  same = [
    f"--batch={args.batch}",
    f"--side={args.side}",
    f"--repeats={args.repeats}",
  ]
  ours = [sys.executable, __file__, f"--cells={args.cells}", *same]
  sides = {name: [*ours, f"--one={name}"] for name in ("nasnet_jax", "keras")}
  if args.torch_python and args.cells == 6:
    peer = [args.torch_python, str(PEER), f"--filters={_FILTERS}"]
    sides["timm"] = [*peer, *same]
  result = {
    "date": datetime.date.today().isoformat(),
    "command": " ".join(["python", *sys.argv]),
    "network": f"NASNet-A ({args.cells} @ {_FILTERS}), skip_reduction",
    "batch": args.batch,
    "side": args.side,
    "cpus": os.cpu_count(),
    "load": os.getloadavg(),
    "sides": {},
  }
  for _ in range(args.rounds):
    for name, command in sides.items():
      found = _run(command)
      row = result["sides"].setdefault(name, {"inference": [], "train": []})
      for what in ("inference", "train"):
        row[what] += found.pop(what)
        row[f"{what} median"] = statistics.median(row[what])
      row.update(found)
      print(name, {k: v for k, v in row.items() if "median" in k}, flush=True)
      pathlib.Path(args.out).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
  main()
