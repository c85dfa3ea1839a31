"""The search child of NASNet-A in eager PyTorch: the peer of the benchmarks.

Run by `population.py` with a Python that has torch; prints JSON. Nothing of
nasnet_jax is imported.
"""

import argparse
import json
import statistics
import time

import torch
from torch import nn
from torch.nn import functional as F

NORMAL = (
  (
    (0, 1, "sep5", "sep3"),
    (1, 1, "sep5", "sep3"),
    (0, 1, "avg", "id"),
    (1, 1, "avg", "avg"),
    (0, 0, "sep3", "id"),
  ),
  (1, 2, 3, 4, 5, 6),
)
REDUCTION = (
  (
    (0, 1, "sep5", "sep7"),
    (0, 1, "max", "sep7"),
    (0, 1, "avg", "sep5"),
    (3, 2, "id", "avg"),
    (2, 0, "sep3", "max"),
  ),
  (3, 4, 5, 6),
)


def norm(channels):
  return nn.BatchNorm2d(channels, eps=1e-5, momentum=0.1)


class Separable(nn.Module):
  def __init__(self, cin, cout, k, stride):
    super().__init__()
    layers = []
    for c, s in ((cin, stride), (cout, 1)):
      layers += [
        nn.ReLU(),
        nn.Conv2d(c, c, k, s, k // 2, groups=c, bias=False),
        nn.Conv2d(c, cout, 1, bias=False),
        norm(cout),
      ]
    self.body = nn.Sequential(*layers)

  def forward(self, x):
    return self.body(x)


def project(cin, cout, stride=1, relu=True):
  layers = [nn.ReLU()] if relu else []
  conv = nn.Conv2d(cin, cout, 1, stride, bias=False)
  return nn.Sequential(*layers, conv, norm(cout))


def operation(name, cin, cout, stride):
  if name.startswith("sep"):
    return Separable(cin, cout, int(name[3:]), stride)
  if name == "id":
    same = stride == 1 and cin == cout
    return nn.Identity() if same else project(cin, cout, stride)
  if name == "avg":
    pool = nn.AvgPool2d(3, stride, 1, count_include_pad=False)
  else:
    pool = nn.MaxPool2d(3, stride, 1)
  if cin == cout:
    return pool
  return nn.Sequential(pool, project(cin, cout, relu=False))


class Reduce(nn.Module):
  def __init__(self, cin, cout):
    super().__init__()
    self.a = nn.Conv2d(cin, cout // 2, 1, 2, bias=False)
    self.b = nn.Conv2d(cin, cout - cout // 2, 1, 2, bias=False)
    self.norm = norm(cout)

  def forward(self, x):
    shifted = F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
    return self.norm(torch.cat([self.a(x), self.b(shifted)], 1))


class Cell(nn.Module):
  def __init__(self, spec, cin, cprev, features, stride, reduce_previous):
    super().__init__()
    self.blocks, self.concat = spec
    self.project = project(cin, features)
    self.fit = None
    widths = [features, cprev]
    if cprev and reduce_previous:
      self.fit = nn.Sequential(nn.ReLU(), Reduce(cprev, features))
      widths[1] = features
    elif cprev and cprev != features:
      self.fit = project(cprev, features)
      widths[1] = features
    elif not cprev:
      widths[1] = cin
    ops = []
    for left, right, a, b in self.blocks:
      for state, name in ((left, a), (right, b)):
        width = widths[state] if state < 2 else features
        s = stride if state < 2 else 1
        ops.append(operation(name, width, features, s))
    self.ops = nn.ModuleList(ops)
    fits = {}
    for s in self.concat:
      if s < 2 and stride == 2:
        fits[str(s)] = Reduce(widths[s], features)
      elif s < 2 and widths[s] != features:
        fits[str(s)] = project(widths[s], features, relu=False)
    self.fits = nn.ModuleDict(fits)
    self.width = len(self.concat) * features

  def forward(self, x, previous):
    if previous is None:
      previous = x
    elif self.fit is not None:
      previous = self.fit(previous)
    states = [self.project(x), previous]
    for b, (left, right, _, _) in enumerate(self.blocks):
      y = self.ops[2 * b](states[left]) + self.ops[2 * b + 1](states[right])
      states.append(y)
    out = [
      self.fits[str(s)](states[s]) if str(s) in self.fits else states[s]
      for s in self.concat
    ]
    return torch.cat(out, 1)


class Child(nn.Module):
  def __init__(self, n=2, features=32, classes=10):
    super().__init__()
    self.stem = nn.Sequential(
      nn.Conv2d(3, 3 * features, 3, 1, 1, bias=False), norm(3 * features)
    )
    outputs = [(3 * features, 0)]
    cells, f = [], features
    for stack in range(3):
      kinds = [0] * n
      if stack:
        f *= 2
        kinds = [1, *kinds]
      for kind in kinds:
        cin, level = outputs[-1]
        cprev, plevel = outputs[-2] if len(outputs) > 1 else (0, level)
        spec = REDUCTION if kind else NORMAL
        cell = Cell(spec, cin, cprev, f, 1 + kind, plevel != level)
        cells.append(cell)
        outputs.append((cell.width, level + kind))
    self.cells = nn.ModuleList(cells)
    self.head = nn.Linear(outputs[-1][0], classes)

  def forward(self, x):
    previous, current = None, self.stem(x)
    for cell in self.cells:
      previous, current = current, cell(current, previous)
    return self.head(F.relu(current).mean((2, 3)))


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument("--batch", type=int, default=32)
  parser.add_argument("--steps", type=int, default=5)
  parser.add_argument("--threads", type=int, default=2)
  args = parser.parse_args()
  torch.set_num_threads(args.threads)
  torch.manual_seed(0)
  model = Child().to(memory_format=torch.channels_last)
  params = sum(p.numel() for p in model.parameters())
  images = torch.randn(args.batch, 3, 32, 32)
  images = images.contiguous(memory_format=torch.channels_last)
  labels = torch.randint(0, 10, (args.batch,))
  optimizer = torch.optim.SGD(
    model.parameters(), 0.01, momentum=0.9, weight_decay=5e-4
  )

  def step():
    optimizer.zero_grad(set_to_none=True)
    loss = F.cross_entropy(model(images), labels)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    optimizer.step()
    return loss.item()

  step()
  seconds = []
  for _ in range(args.steps):
    start = time.perf_counter()
    step()
    seconds.append(time.perf_counter() - start)
  print(
    json.dumps(
      {
        "version": torch.__version__,
        "params": params,
        "seconds": seconds,
        "median": statistics.median(seconds),
      }
    )
  )


if __name__ == "__main__":
  main()
