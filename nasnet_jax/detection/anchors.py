"""Anchors: the boxes that a region proposal network starts from."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Anchors:
  """Boxes around each cell of a feature map. Defaults: the config of Faster
  R-CNN on NASNet in the TF Object Detection API.

  Attributes:
    scales: of the base side.
    ratios: width over height, at equal area.
    base: side in pixels at scale 1 and ratio 1.
  """

  scales: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0)
  ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
  base: float = 256.0

  def __post_init__(self):
    numbers = (*self.scales, *self.ratios, self.base)
    if not self.scales or not self.ratios or not min(numbers) > 0:
      raise ValueError(
        f"anchors have scales {self.scales}, ratios {self.ratios} and base"
        f" {self.base}: give numbers above 0"
      )

  @property
  def per_cell(self) -> int:
    return len(self.scales) * len(self.ratios)

  def grid(self, side: tuple[int, int], stride: int) -> np.ndarray:
    """f32[h * w * per_cell, 4]: the anchors of a feature map of side (h, w).

    Cell (i, j) has its centre at (i, j) * stride, as in the original (offset
    0). The order is by rows, then columns, ratios and, fastest, scales.

    Args:
      stride: pixels of the image between cells.
    """
    ratio, scale = np.meshgrid(self.ratios, self.scales, indexing="ij")
    heights = (scale / np.sqrt(ratio) * self.base).ravel()
    widths = (scale * np.sqrt(ratio) * self.base).ravel()
    half = np.stack([heights, widths], -1) / 2
    rows, columns = np.meshgrid(*map(np.arange, side), indexing="ij")
    centres = np.stack([rows, columns], -1).reshape(-1, 1, 2) * stride
    boxes = np.concatenate([centres - half, centres + half], -1)
    return boxes.reshape(-1, 4).astype(np.float32)
