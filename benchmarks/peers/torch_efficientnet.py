"""A network of timm's in eager PyTorch, or its ONNX file in ONNX Runtime.

Run by `efficientnet.py` with a Python that has them; prints JSON, a time per
call. Nothing of nasnet_jax is imported.
"""

import argparse
import json
import os
import pathlib
import tempfile
import time

import timm
import torch

CORES = len(os.sched_getaffinity(0))


def in_torch(model, images):
  """(inference, train): functions without arguments."""
  model = model.to(memory_format=torch.channels_last)
  images = images.to(memory_format=torch.channels_last)
  labels = torch.arange(len(images)) % 1000
  optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)

  def inference():
    model.eval()
    with torch.inference_mode():
      return model(images)

  def train():
    model.train()
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(model(images), labels).backward()
    optimizer.step()

  return inference, train


def in_onnx(model, images):
  """inference, and None."""
  import onnxruntime

  model.eval()
  with tempfile.TemporaryDirectory() as folder:
    path = str(pathlib.Path(folder) / "network.onnx")
    torch.onnx.export(model, (images,), path, input_names=["images"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = CORES
    session = onnxruntime.InferenceSession(path, options)
  found = {"images": images.numpy()}
  return lambda: session.run(None, found), None


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument("--network", required=True)
  parser.add_argument("--batch", type=int, required=True)
  parser.add_argument("--side", type=int, required=True)
  parser.add_argument("--repeats", type=int, required=True)
  parser.add_argument("--kinds", required=True)
  parser.add_argument("--onnx", action="store_true")
  args = parser.parse_args()
  torch.set_num_threads(CORES)
  model = timm.create_model(args.network)
  images = torch.rand(args.batch, 3, args.side, args.side)
  inference, train = (in_onnx if args.onnx else in_torch)(model, images)
  result = {
    "parameters": sum(p.numel() for p in model.parameters()),
    "versions": {"torch": torch.__version__, "timm": timm.__version__},
  }
  for name, call in (("inference", inference), ("train", train)):
    if name not in args.kinds.split(",") or call is None:
      continue
    call()
    seconds = []
    for _ in range(args.repeats):
      start = time.perf_counter()
      call()
      seconds.append(time.perf_counter() - start)
    result[name] = seconds
  print(json.dumps(result))


if __name__ == "__main__":
  main()
