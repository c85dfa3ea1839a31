"""Drawings of networks of blocks, before scaling: a row per group."""

from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from nasnet_jax.report import style

ROW, GAP = 0.34, 0.1  # lengths are inches
WIDTH = 3.6
MARGIN = 0.15

_NAMES = {
  "mbconv": "MBConv",
  "separable": "separable",
  "basic": "residual",
  "bottleneck": "bottleneck",
  "conv": "conv",
}
_COLORS = {
  "mbconv": "separable",
  "separable": "separable",
  "basic": "conv",
  "bottleneck": "conv",
  "conv": "conv",
}


def block_rows(genotype: dict[str, Any]) -> list[tuple[str, str]]:
  """(words, family of its colour) of each row of a `BlockSpace.to_json` dict
  (or of a `MnasSpace.to_json` one), from the stem to the head."""
  arch = genotype["architecture"]
  size = f"{arch['stem_kernel']}x{arch['stem_kernel']}"
  stem = f"conv {size}{_stride(arch['stem_stride'])}, {arch['stem']}"
  rows = [(stem, "conv")]
  if arch["stem_pool"]:
    rows.append(("max 3x3 / 2", "pool"))
  rows += [
    (group_text(group), _COLORS[group["kind"]]) for group in arch["groups"]
  ]
  if arch["head"]:
    rows.append((f"conv 1x1, {arch['head']}", "conv"))
  return rows


def group_text(group: dict[str, Any]) -> str:
  """ "2 x MBConv6 5x5 SE / 2, 40": blocks, kind and expansion, kernel,
  squeeze-excite, stride of the first, channels; then what is unusual about
  its skips."""
  name = _NAMES[group["kind"]]
  if group["kind"] == "mbconv":
    name += str(group["expansion"])
  squeeze = " SE" if group["squeeze"] else ""
  kernel = f"{group['kernel']}x{group['kernel']}"
  return (
    f"{group['repeats']} x {name} {kernel}{squeeze}"
    f"{_stride(group['stride'])}, {group['features']}{_skip(group)}"
  )


def _skip(group: dict[str, Any]) -> str:
  if group.get("skip_pool"):  # results of older versions do without
    return ", skip pooled"
  # A single block has nothing to skip, or next to nothing.
  return "" if group["skip"] or group["repeats"] == 1 else ", no skip"


def _stride(stride: int) -> str:
  return f" / {stride}" if stride > 1 else ""


def draw_blocks(genotype: dict[str, Any], path=None) -> Figure:
  """Draws a `BlockSpace.to_json` dict from top to bottom. With a path also
  writes it as .svg and .png."""
  rows = block_rows(genotype)
  height = len(rows) * (ROW + GAP) - GAP + 2 * MARGIN
  width = WIDTH + 2 * MARGIN
  figure = style.new_figure(width, height, None)
  with style.style():
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    for number, (words, family) in enumerate(rows):
      bottom = height - MARGIN - ROW - number * (ROW + GAP)
      box = FancyBboxPatch(
        (MARGIN, bottom),
        WIDTH,
        ROW,
        boxstyle="round,pad=0,rounding_size=0.08",
        facecolor=style.LIGHT[family],
        edgecolor=style.LIGHT[f"{family}_edge"],
      )
      axes.add_patch(box)
      axes.text(
        width / 2, bottom + ROW / 2, words, fontsize=9, ha="center", va="center"
      )
  if path is not None:
    style.save(figure, path)
  return figure
