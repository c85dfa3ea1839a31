"""timm's NASNet-A in eager PyTorch: the peer of `networks.py`.

Run by it with a Python that has timm; prints JSON, a time per call. Nothing of
nasnet_jax is imported.
"""

import argparse
import json
import time

import timm
import torch
from timm.models.nasnet import NASNetALarge


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument("--batch", type=int, required=True)
  parser.add_argument("--side", type=int, required=True)
  parser.add_argument("--filters", type=int, required=True)
  parser.add_argument("--repeats", type=int, required=True)
  args = parser.parse_args()
  torch.set_num_threads(2)
  model = NASNetALarge(stem_size=32, num_features=args.filters)
  model = model.to(memory_format=torch.channels_last)
  images = torch.rand(args.batch, 3, args.side, args.side)
  images = images.to(memory_format=torch.channels_last)
  labels = torch.arange(args.batch) % 1000
  optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
  result = {"versions": {"torch": torch.__version__, "timm": timm.__version__}}

  def answer():
    with torch.inference_mode():
      return model(images)

  def train():
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(model(images), labels).backward()
    optimizer.step()

  for name, call in (("inference", answer), ("train", train)):
    model.train(name == "train")
    call()
    seconds = []
    for _ in range(args.repeats):
      start = time.perf_counter()
      call()
      seconds.append(time.perf_counter() - start)
    result[name] = seconds
  result["parameters"] = sum(p.numel() for p in model.parameters())
  print(json.dumps(result))


if __name__ == "__main__":
  main()
