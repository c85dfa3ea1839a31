"""PyTorch's DataLoader over a folder: the peer of `input.py`.

Run by it with a Python that has torch and torchvision; prints JSON. Nothing of
nasnet_jax is imported.
"""

import argparse
import json
import time

import torch
import torchvision
from torchvision import transforms


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument("--folder", required=True)
  parser.add_argument("--workers", type=int, required=True)
  parser.add_argument("--batch", type=int, required=True)
  parser.add_argument("--warm", type=int, required=True)
  parser.add_argument("--batches", type=int, required=True)
  parser.add_argument("--side", type=int, required=True)
  args = parser.parse_args()
  crop = transforms.RandomResizedCrop(
    args.side,
    interpolation=transforms.InterpolationMode.BICUBIC,
  )
  images = torchvision.datasets.ImageFolder(
    args.folder,
    transforms.Compose(
      [crop, transforms.RandomHorizontalFlip(), transforms.PILToTensor()]
    ),
  )
  loader = torch.utils.data.DataLoader(
    images,
    batch_size=args.batch,
    shuffle=True,
    drop_last=True,
    num_workers=args.workers,
    prefetch_factor=2 if args.workers else None,
    persistent_workers=args.workers > 0,
  )
  # The first ones let the workers start and the files come into memory.
  done, start = 0, None
  while done < args.warm + args.batches:
    for _ in loader:
      done += 1
      if done == args.warm:
        start = time.perf_counter()
      if done == args.warm + args.batches:
        break
  seconds = time.perf_counter() - start
  print(
    json.dumps(
      {
        "images_per_second": args.batches * args.batch / seconds,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
      }
    )
  )


if __name__ == "__main__":
  main()
