"""Seconds per training step and per inference of NASNet-A at 224 pixels.

    python benchmarks/networks.py --out=networks.json
        [--torch-python=PYTHON]   also timm in eager PyTorch
        [--cells=6]  [--batch=8]  [--side=224]  [--repeats=5]

The same network on each side, random weights and images, momentum SGD, float32:
ours, `keras.applications` on Keras's JAX backend, and timm's, which has six
cells per stack and no other number. How it is timed: `sides.py`.
"""

import dataclasses
import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import sides  # noqa: E402

PEER = ROOT / "benchmarks" / "peers" / "torch_nasnet.py"
_FILTERS = 1056  # of the last stack's cells, 24 F


def _ours(args):
  from nasnet_jax import zoo
  from nasnet_jax.models import stacked, stacked_plan
  from nasnet_jax.models.layers import IMAGENET

  space, _ = zoo.cells.CELLS["nasnet_a"]
  config = stacked_plan.NetworkConfig(
    num_cells=args.cells,
    features=_FILTERS // 24,
    num_classes=1000,
    stem="imagenet",
    stem_features=32,
    skip_reduction=True,
    numerics=dataclasses.replace(IMAGENET),
  )
  cells = stacked.as_cells(space, zoo.cells.genotype("nasnet_a"))
  network = stacked.StackedNetwork(config, cells)
  return sides.ours(network, args.batch, args.side)


def _keras(args):
  def make():
    from keras.src.applications.nasnet import NASNet

    return NASNet(
      input_shape=(args.side, args.side, 3),
      penultimate_filters=_FILTERS,
      num_blocks=args.cells,
      stem_block_filters=32,
      skip_reduction=True,
      weights=None,
      classifier_activation=None,
    )

  return sides.keras(make, args.batch, args.side)


def main():
  parser = sides.parser(__doc__.splitlines()[0])
  parser.add_argument("--cells", type=int, default=6)
  parser.add_argument("--batch", type=int, default=8)
  parser.add_argument("--side", type=int, default=224)
  args = parser.parse_args()
  if args.one:
    calls = {"nasnet_jax": _ours, "keras": _keras}[args.one](args)
    return sides.time_calls(*calls, args.repeats)
  same = [f"--{k}={getattr(args, k)}" for k in ("batch", "side", "repeats")]
  ours = [sys.executable, __file__, f"--cells={args.cells}", "--out=-", *same]
  commands = {n: [*ours, f"--one={n}"] for n in ("nasnet_jax", "keras")}
  if args.torch_python and args.cells == 6:
    peer = [args.torch_python, str(PEER), f"--filters={_FILTERS}"]
    commands["timm"] = [*peer, *same]
  result = {
    **sides.about(),
    "network": f"NASNet-A ({args.cells} @ {_FILTERS}), skip_reduction",
    "batch": args.batch,
    "side": args.side,
    "sides": {},
  }
  rows = result["sides"]

  def row_of(name):
    return rows.setdefault(name, {})

  for name in sides.in_turns(commands, args.rounds, row_of):
    medians = {k: v for k, v in rows[name].items() if "median" in k}
    print(name, medians, flush=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
  main()
