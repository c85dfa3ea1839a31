"""A search child in eager PyTorch, for any cells: the peer of the benchmarks.

Run by `population.py` with a Python that has torch. Each line of standard input
is a child as JSON: `cells` as `CellSpace.to_json` writes them, `num_cells`,
`features`, `side`, `batch`, `steps`; each is answered by a line of JSON.
Nothing of nasnet_jax is imported.
"""

import argparse
import json
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F


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


def dense(cin, cout, stride, *shapes, dilation=1):
  layers = []
  for height, width in shapes:
    # A 1x7 convolution strides over columns, the 7x1 after it over rows.
    strides = [
      stride if k > 1 or (height, width) == (1, 1) else 1
      for k in (height, width)
    ]
    padding = [dilation * (k // 2) for k in (height, width)]
    conv = nn.Conv2d(
      cin, cout, (height, width), strides, padding, dilation, bias=False
    )
    layers += [nn.ReLU(), conv, norm(cout)]
    cin = cout
  return nn.Sequential(*layers)


DENSE = {
  "conv_1x1": [(1, 1)],
  "conv_3x3": [(3, 3)],
  "conv_1x3_3x1": [(1, 3), (3, 1)],
  "conv_1x7_7x1": [(1, 7), (7, 1)],
}


def operation(name, cin, cout, stride):
  if name in DENSE:
    return dense(cin, cout, stride, *DENSE[name])
  if name == "dil_conv_3x3":
    return dense(cin, cout, stride, (3, 3), dilation=2)
  if name == "identity":
    same = stride == 1 and cin == cout
    return nn.Identity() if same else project(cin, cout, stride)
  kind, _, size = name.rpartition("_")
  k = int(size[0])
  if kind == "sep_conv":
    return Separable(cin, cout, k, stride)
  if kind == "avg_pool":
    pool = nn.AvgPool2d(k, stride, k // 2, count_include_pad=False)
  elif kind == "max_pool":
    pool = nn.MaxPool2d(k, stride, k // 2)
  else:
    raise ValueError(f"no operation {name!r} here")
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
    self.blocks = [
      (*block["inputs"], *block["operations"]) for block in spec["blocks"]
    ]
    self.concat = spec["concat"]
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
  def __init__(self, kinds, n, features, classes=10):
    """kinds: the normal and the reduction cell; n: normal cells in a row."""
    super().__init__()
    self.stem = nn.Sequential(
      nn.Conv2d(3, 3 * features, 3, 1, 1, bias=False), norm(3 * features)
    )
    outputs = [(3 * features, 0)]
    cells, f = [], features
    for stack in range(3):
      row = [0] * n
      if stack:
        f *= 2
        row = [1, *row]
      for kind in row:
        cin, level = outputs[-1]
        cprev, plevel = outputs[-2] if len(outputs) > 1 else (0, level)
        cell = Cell(kinds[kind], cin, cprev, f, 1 + kind, plevel != level)
        cells.append(cell)
        outputs.append((cell.width, level + kind))
    self.cells = nn.ModuleList(cells)
    self.head = nn.Linear(outputs[-1][0], classes)

  def forward(self, x):
    previous, current = None, self.stem(x)
    for cell in self.cells:
      previous, current = current, cell(current, previous)
    return self.head(F.relu(current).mean((2, 3)))


def measure(cells, num_cells, features, side, batch, steps):
  """Seconds of each step after the first, and the number of parameters."""
  torch.manual_seed(0)
  model = Child([cells["normal"], cells["reduction"]], num_cells, features)
  model = model.to(memory_format=torch.channels_last)
  images = torch.randn(batch, 3, side, side)
  images = images.contiguous(memory_format=torch.channels_last)
  labels = torch.randint(0, 10, (batch,))
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
  for _ in range(steps):
    start = time.perf_counter()
    step()
    seconds.append(time.perf_counter() - start)
  return {
    "version": torch.__version__,
    "params": sum(p.numel() for p in model.parameters()),
    "seconds": seconds,
  }


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument("--threads", type=int, default=2)
  torch.set_num_threads(parser.parse_args().threads)
  for line in sys.stdin:
    print(json.dumps(measure(**json.loads(line))), flush=True)


if __name__ == "__main__":
  main()
