"""EfficientNets beside their peers, and the paper's claim about CPU latency.

    python benchmarks/efficientnet.py --out=efficientnet.json
        --torch-python=PYTHON     has torch, torchvision, timm, onnx, onnxscript
                                  and onnxruntime; ours needs Keras beside it
        [--only=LABEL,...]  [--batch=8]  [--repeats=5]  [--rounds=2]

Inference and one training step (momentum SGD, float32) of B0 and Lite0 at 224
pixels, with random weights: ours, Keras on its JAX backend (it has no Lite0),
timm in eager PyTorch, and, inference only, ONNX Runtime on what PyTorch exports
of timm's. On all cores.

Then "claim": latency at batch 1 on one core, of B1 at 240 pixels and ResNet-152
at 224, which the paper measured on an Intel Xeon E5-2690 (Tan and Le 2019,
table 4: 5.7 times); ours and timm's. "large claim" is the same of B7 at 600 and
AmoebaNet-B (18, 512) at 480 (theirs: 6.1 times), the second ours alone: 7 GB
and minutes to compile. How it is timed: `sides.py`.
"""

import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import sides  # noqa: E402

PEER = ROOT / "benchmarks" / "peers" / "torch_efficientnet.py"
# label: our network, Keras's, timm's, its side in pixels.
NETWORKS = {
  "B0": ("efficientnet_b0", "EfficientNetB0", "tf_efficientnet_b0", 224),
  "Lite0": ("efficientnet_lite0", None, "tf_efficientnet_lite0", 224),
}
CLAIM = {
  "B1": ("efficientnet_b1", None, "tf_efficientnet_b1", 240),
  "ResNet-152": ("resnet_152", None, "resnet152", 224),
}
LARGE_CLAIM = {
  "B7": ("efficientnet_b7", None, "tf_efficientnet_b7", 600),
  "AmoebaNet-B (18, 512)": ("amoebanet_b_gpipe", None, None, 480),
}


def _ours(network: str, batch: int, side: int):
  from nasnet_jax import zoo
  from nasnet_jax.export import tables

  if network in zoo.cells.NETWORKS:
    return sides.ours(tables.published(network, aux=False), batch, side)
  return sides.ours(tables.published_blocks(network), batch, side)


def _keras(network: str, batch: int, side: int):
  def make():
    import keras

    return getattr(keras.applications, network)(
      input_shape=(side, side, 3), weights=None, classifier_activation=None
    )

  return sides.keras(make, batch, side)


def commands_of(row, args, batch: int, kinds: str) -> dict[str, list[str]]:
  """side -> the command that times it."""
  ours, keras, timm, side = row
  same = [f"--batch={batch}", f"--side={side}", f"--repeats={args.repeats}"]
  same.append(f"--kinds={kinds}")
  me = [sys.executable, __file__, "--out=-", *same]
  found = {"nasnet_jax": [*me, "--one=ours", f"--network={ours}"]}
  if keras:
    found["Keras on JAX"] = [*me, "--one=keras", f"--network={keras}"]
  if timm and args.torch_python:
    peer = [args.torch_python, str(PEER), f"--network={timm}", *same]
    found["eager PyTorch"] = peer
    if "train" in kinds:
      found["ONNX Runtime"] = [*peer, "--onnx"]
  return found


def main():
  parser = sides.parser(__doc__.splitlines()[0])
  parser.add_argument(
    "--only", default=",".join([*NETWORKS, "claim", "large claim"])
  )
  parser.add_argument("--batch", type=int, default=8)
  parser.add_argument("--network", help="(of a process of this benchmark)")
  parser.add_argument("--side", type=int, help="(the same)")
  parser.add_argument("--kinds", help="(the same)")
  args = parser.parse_args()
  if args.one:
    make = {"ours": _ours, "keras": _keras}[args.one]
    calls = make(args.network, args.batch, args.side)
    return sides.time_calls(*calls, args.repeats, args.kinds.split(","))
  only = args.only.split(",")
  jobs = [
    (label, row, args.batch, "inference,train", None)
    for label, row in NETWORKS.items()
    if label in only
  ]
  for name, claim in (("claim", CLAIM), ("large claim", LARGE_CLAIM)):
    if name in only:
      jobs += [(label, row, 1, "inference", 1) for label, row in claim.items()]
  result = {**sides.about(), "networks": {}}
  # Rounds outside, so that all networks of the claim share the weather.
  for _ in range(args.rounds):
    for label, row, batch, kinds, cores in jobs:
      entry = result["networks"].setdefault(
        label, {"side": row[-1], "batch": batch, "cores": cores, "sides": {}}
      )
      rows = entry["sides"]
      turns = sides.in_turns(
        commands_of(row, args, batch, kinds),
        1,
        lambda name, rows=rows: rows.setdefault(name, {}),
        cores,
      )
      for name in turns:
        medians = {k: v for k, v in rows[name].items() if "median" in k}
        print(label, name, medians, flush=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
  main()
