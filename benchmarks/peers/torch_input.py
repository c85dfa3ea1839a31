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
  # One epoch lets the workers start and the files come into memory.
  done = sum(len(labels) for _, labels in loader)
  start = time.perf_counter()
  done = 0
  while done < args.batches * args.batch:
    for _, labels in loader:
      done += len(labels)
      if done >= args.batches * args.batch:
        break
  seconds = time.perf_counter() - start
  print(
    json.dumps(
      {
        "images_per_second": done / seconds,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
      }
    )
  )


if __name__ == "__main__":
  main()
