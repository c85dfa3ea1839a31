"""The geometry of detection in plain loops and float64, to compare with."""

import math

import numpy as np


def area(box):
  return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def intersection(a, b):
  height = min(a[2], b[2]) - max(a[0], b[0])
  width = min(a[3], b[3]) - max(a[1], b[1])
  return max(height, 0.0) * max(width, 0.0)


def iou(a, b):
  shared = intersection(a, b)
  union = area(a) + area(b) - shared
  return shared / union if union > 0 else 0.0


def nms(boxes, scores, valid, count, limit):
  """Indices that stay, the best first."""
  order = sorted(
    (i for i in range(len(boxes)) if valid[i]), key=lambda i: (-scores[i], i)
  )
  kept = []
  for i in order:
    if all(iou(boxes[i], boxes[j]) <= limit for j in kept):
      kept.append(i)
  return kept[:count]


def encode(box, anchor):
  height, width = anchor[2] - anchor[0], anchor[3] - anchor[1]
  y, x = (anchor[0] + anchor[2]) / 2, (anchor[1] + anchor[3]) / 2
  return [
    10 * ((box[0] + box[2]) / 2 - y) / height,
    10 * ((box[1] + box[3]) / 2 - x) / width,
    5 * math.log((box[2] - box[0]) / height),
    5 * math.log((box[3] - box[1]) / width),
  ]


def _bilinear(features, y, x):
  """A sample at (y, x), which lies within the map."""
  top, left = math.floor(y), math.floor(x)
  bottom = min(top + 1, features.shape[0] - 1)
  right = min(left + 1, features.shape[1] - 1)
  b, r = y - top, x - left
  upper = (1 - r) * features[top, left] + r * features[top, right]
  lower = (1 - r) * features[bottom, left] + r * features[bottom, right]
  return (1 - b) * upper + b * lower


def roi_align(features, boxes, stride, size, samples):
  h, w, channels = features.shape
  result = np.zeros((len(boxes), size, size, channels))
  for n, box in enumerate(boxes):
    y0, x0, y1, x1 = (side / stride - 0.5 for side in box)
    for i in range(size):
      for j in range(size):
        for p in range(samples):
          for q in range(samples):
            y = y0 + (y1 - y0) * (i + (p + 0.5) / samples) / size
            x = x0 + (x1 - x0) * (j + (q + 0.5) / samples) / size
            if y < -1 or y > h or x < -1 or x > w:
              continue
            y, x = min(max(y, 0), h - 1), min(max(x, 0), w - 1)
            result[n, i, j] += _bilinear(features, y, x) / samples**2
  return result


def crop_and_resize(features, boxes, side, size):
  h, w, channels = features.shape
  result = np.zeros((len(boxes), size, size, channels))
  for n, (y0, x0, y1, x1) in enumerate(boxes):
    for i in range(size):
      for j in range(size):
        down = i / (size - 1) if size > 1 else 0.5
        along = j / (size - 1) if size > 1 else 0.5
        y = (y0 + down * (y1 - y0)) / side[0] * (h - 1)
        x = (x0 + along * (x1 - x0)) / side[1] * (w - 1)
        if 0 <= y <= h - 1 and 0 <= x <= w - 1:
          result[n, i, j] = _bilinear(features, y, x)
  return result


def assign(boxes, truth, positive, negative, force):
  """(positive, negative, match) of each box; truth: boxes without crowds."""
  table = [[iou(box, true) for true in truth] for box in boxes]
  owner = {}
  if force:
    for g in range(len(truth)):
      column = [row[g] for row in table]
      if max(column) > 0:
        owner[column.index(max(column))] = g
  found = []
  for n, row in enumerate(table):
    best = max(row, default=0.0)
    match = owner.get(n, row.index(best) if row else 0)
    is_positive = best >= positive or n in owner
    found.append((is_positive, best < negative and not is_positive, match))
  return found
