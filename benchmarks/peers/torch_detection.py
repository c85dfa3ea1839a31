"""torchvision's Faster R-CNN on ResNet-18: the peer of `detection.py`.

Run by it with a Python that has torch and torchvision; prints JSON, a time per
call. Nothing of nasnet_jax is imported.
"""

import argparse
import os
import pathlib
import sys

import torch
import torchvision
from torch import nn
from torchvision.models import detection
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.ops.misc import FrozenBatchNorm2d

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import sides

BOXES, CLASSES = 8, 90


def make(side: int) -> nn.Module:
  """The detector that `detection.py` describes."""
  body = torchvision.models.resnet18(norm_layer=FrozenBatchNorm2d)
  features = IntermediateLayerGetter(body, {"layer3": "0"})
  features.out_channels = 256
  return detection.FasterRCNN(
    features,
    min_size=side,
    max_size=side,
    image_mean=[0.5] * 3,
    image_std=[0.5] * 3,
    rpn_anchor_generator=detection.rpn.AnchorGenerator(
      ((64, 128, 256, 512),), ((0.5, 1.0, 2.0),)
    ),
    rpn_post_nms_top_n_train=300,
    rpn_post_nms_top_n_test=300,
    rpn_batch_size_per_image=256,
    box_roi_pool=torchvision.ops.MultiScaleRoIAlign(["0"], 7, 2),
    box_head=nn.Sequential(body.layer4, nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    box_predictor=FastRCNNPredictor(512, CLASSES + 1),
    box_batch_size_per_image=64,
    box_score_thresh=0.0,
    box_nms_thresh=0.6,
  )


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument("--batch", type=int, required=True)
  parser.add_argument("--side", type=int, required=True)
  parser.add_argument("--repeats", type=int, required=True)
  args = parser.parse_args()
  torch.set_num_threads(os.cpu_count())
  torch.manual_seed(0)
  model = make(args.side).to(memory_format=torch.channels_last)
  images = list(torch.rand(args.batch, 3, args.side, args.side))
  targets = []
  for _ in images:
    corner = torch.rand(BOXES, 2) * args.side * 0.6
    boxes = torch.cat([corner, corner + args.side * 0.3], 1)
    labels = torch.randint(1, CLASSES + 1, (BOXES,))
    targets.append({"boxes": boxes, "labels": labels})
  optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)

  def inference():
    model.eval()
    with torch.inference_mode():
      return model(images)

  def train():
    model.train()
    optimizer.zero_grad()
    sum(model(images, targets).values()).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    optimizer.step()

  parameters = sum(p.numel() for p in model.parameters())
  sides.time_calls(inference, train, parameters, args.repeats, memory=True)


if __name__ == "__main__":
  main()
