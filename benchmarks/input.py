"""Photographs per second, from JPEG files to batches, ours and PyTorch's.

    python benchmarks/input.py --out=input.json
        [--folder=FOLDER]         class folders of photographs; else made up
        [--torch-python=PYTHON]   a Python that has torch and torchvision
        [--workers=0,1,2]  [--repeats=3]  [--side=224]

Both sides read the same files, cut random crops (area 0.08 to 1, aspect 3/4 to
4/3), scale them bicubically to bytes, and run in turns, each in a process of
its own. PyTorch mirrors on the host; ours on the device, with colours, which
is not in these figures. Ours decodes a JPEG at a fraction of its size where
the crop stays large enough; --side=... larger than the photographs leaves that
out. With 0 workers PyTorch decodes in one thread and ours in four.
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
PEER = ROOT / "benchmarks" / "peers" / "torch_input.py"


def _ours(args):
  """Prints the speed, the first batches apart: they wait for the workers."""
  from nasnet_jax.data import photo_stream, photographs

  found = photographs.load("folder", path=args.folder, test_fraction=0.01)
  crops = photo_stream.Crops(args.side)
  batches = photo_stream.Stream(
    found.train, crops, len(found.class_names), workers=int(args.one)
  )
  total = args.warm + args.batches
  for i, _ in enumerate(batches.training_batches(args.batch, 0, 0, total)):
    if i == args.warm - 1:
      start = time.perf_counter()
  seconds = time.perf_counter() - start
  print(json.dumps({"images_per_second": args.batches * args.batch / seconds}))


def _make_folder(top: pathlib.Path, n: int):
  from nasnet_jax.data import photographs

  records = photographs.load("fake", num_images=n, num_classes=2).train
  for i in range(n):
    content, label = records.read(i)
    path = top / str(label) / f"{i}.jpeg"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


def _run(command) -> dict:
  env = {**os.environ, "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
  done = subprocess.run(command, capture_output=True, text=True, env=env)
  if done.returncode:
    sys.exit(f"{' '.join(command)}\n{done.stderr}")
  return json.loads(done.stdout.splitlines()[-1])


def _compare(args, folder: str) -> dict:
  sides = {"nasnet_jax": [sys.executable, __file__]}
  if args.torch_python:
    sides["torch"] = [args.torch_python, str(PEER)]
  results = {}
  for workers in args.workers.split(","):
    speeds = {name: [] for name in sides}
    for _ in range(args.repeats):
      for name, command in sides.items():  # in turns
        mine = f"--one={workers}" if name == "nasnet_jax" else ""
        found = _run(
          [
            *command,
            mine or f"--workers={workers}",
            f"--folder={folder}",
            f"--batch={args.batch}",
            f"--batches={args.batches}",
            f"--warm={args.warm}",
            f"--side={args.side}",
          ]
        )
        speeds[name].append(found.pop("images_per_second"))
        results.setdefault("versions", {}).update(found)
    row = {name: statistics.median(s) for name, s in speeds.items()}
    if "torch" in row:
      row["ratio"] = row["nasnet_jax"] / row["torch"]
    results[f"{workers} workers"] = {**row, "all": speeds}
    print(workers, "workers:", {k: round(v, 2) for k, v in row.items()})
  return results


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument("--out", default="input.json")
  parser.add_argument("--folder")
  parser.add_argument("--torch-python")
  parser.add_argument("--workers", default="0,1,2")
  parser.add_argument("--repeats", type=int, default=3)
  parser.add_argument("--side", type=int, default=224)
  parser.add_argument("--batch", type=int, default=32)
  parser.add_argument("--batches", type=int, default=90)
  parser.add_argument("--warm", type=int, default=30)
  parser.add_argument("--one", help="(of a process of this benchmark)")
  args = parser.parse_args()
  if args.one is not None:
    return _ours(args)
  result = {
    "date": datetime.date.today().isoformat(),
    "command": " ".join(["python", *sys.argv]),
    "cpus": os.cpu_count(),
    "load": os.getloadavg(),
    "files": args.folder or "made up, 500x375, quality 90",
    "side": args.side,
    "unit": "images per second, medians",
  }
  with tempfile.TemporaryDirectory() as folder:
    if not args.folder:
      _make_folder(pathlib.Path(folder), 320)
    result["results"] = _compare(args, args.folder or folder)
  pathlib.Path(args.out).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
  main()
