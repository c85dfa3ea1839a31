"""Seconds and memory of Faster R-CNN on ResNet-18, ours and torchvision's.

    python benchmarks/detection.py --out=detection.json
        --torch-python=PYTHON     has torch and torchvision
        [--batch=2]  [--side=320]  [--repeats=5]  [--rounds=2]

The same detector on each side: ResNet-18 up to stride 16, 12 anchors per place,
300 proposals, crops of 7x7 (RoIAlign), the last group of ResNet-18 on 64 of
them in training and on all in inference, 91 classes, frozen batch norm; random
weights, images and eight boxes each, momentum SGD, float32. They differ in
what goes into the first suppression: all anchors in ours, the best 2,000 (1,000
in inference) in torchvision's. How it is timed: `sides.py`. Memory is the peak
of the process in the timed calls, libraries and all.
"""

import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import sides  # noqa: E402

PEER = ROOT / "benchmarks" / "peers" / "torch_detection.py"
BOXES = 8  # per image
_CLASSES = 90


def _ours(batch: int, side: int):
  """(inference, train, parameters), see `sides.ours`."""
  import jax
  import numpy as np

  from nasnet_jax import zoo
  from nasnet_jax.data import augment
  from nasnet_jax.detection import detector, picture_stream
  from nasnet_jax.detection.inference import make_detect
  from nasnet_jax.detection.loss import make_loss
  from nasnet_jax.models import block_network
  from nasnet_jax.training import datasets, fit, recipes

  body = detector.Body(
    block_network.BlockNetwork,
    block_network.BlockConfig(),
    zoo.blocks.architecture("resnet_18"),
  )
  config = detector.DetectorConfig(
    num_classes=_CLASSES,
    rpn_features=256,
    crop="align",
    crop_size=7,
    padded=False,
  )
  network = detector.Detector(config, body)
  recipe = recipes.Recipe(
    batch_size=batch, learning_rate=0.01, drop_path_keep=1.0
  )
  aug = augment.Augmentation(mean=(0.5,), std=(0.5,))
  rng = np.random.default_rng(0)
  shape = (batch, side, side, 3)
  images = rng.integers(0, 256, shape).astype(np.uint8)
  rows = []
  for _ in range(batch):
    corner = rng.uniform(0, side * 0.6, (BOXES, 2))
    boxes = np.concatenate([corner, corner + side * 0.3], 1)
    classes = rng.integers(0, _CLASSES, BOXES)
    crowd = np.zeros(BOXES, bool)
    rows.append(picture_stream.rows_of_truth(boxes, classes, crowd, BOXES))
  truth = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
  inside = np.full((batch, 2), side, np.int32)
  data = jax.device_put(
    datasets.Images(images, picture_stream.Labels(truth, inside))
  )
  state = fit.init_state(network, recipe, shape[1:], 1000, 0)
  variables = jax.tree.map(np.asarray, fit.variables_of(state))
  step = jax.jit(
    fit.make_step(network, recipe, aug, streamed=True, make_loss=make_loss),
    donate_argnums=0,
  )
  detect = jax.jit(make_detect(network, aug))
  held = [state]

  def train():
    held[0], metrics = step(held[0], data)
    jax.block_until_ready(metrics)

  def inference():
    jax.block_until_ready(detect(variables, data.images, data.labels.side))

  sizes = (x.size for x in jax.tree.leaves(variables["params"]))
  return inference, train, sum(sizes)


def main():
  parser = sides.parser(__doc__.splitlines()[0])
  parser.add_argument("--batch", type=int, default=2)
  parser.add_argument("--side", type=int, default=320)
  args = parser.parse_args()
  if args.one:
    return sides.time_calls(
      *_ours(args.batch, args.side), args.repeats, memory=True
    )
  same = [f"--{k}={getattr(args, k)}" for k in ("batch", "side", "repeats")]
  commands = {
    "nasnet_jax": [sys.executable, __file__, "--out=-", "--one=ours", *same]
  }
  if args.torch_python:
    commands["torchvision"] = [args.torch_python, str(PEER), *same]
  result = {
    **sides.about(),
    "network": "Faster R-CNN on ResNet-18, stride 16",
    "batch": args.batch,
    "side": args.side,
    "sides": {},
  }
  rows = result["sides"]
  for name in sides.in_turns(
    commands, args.rounds, lambda name: rows.setdefault(name, {})
  ):
    print(name, {k: v for k, v in rows[name].items() if "median" in k})
    if len(rows) == 2:
      result["ratio"] = {
        kind: rows["nasnet_jax"][f"{kind} median"]
        / rows["torchvision"][f"{kind} median"]
        for kind in sides.KINDS
      }
    args.out.write_text(json.dumps(result, indent=1) + "\n")
  print("ours / torchvision's:", result.get("ratio"))


if __name__ == "__main__":
  main()
