"""Data of TPU chips, with their sources; nothing here is measured."""

import re
from typing import NamedTuple

# Google's pages on each generation (docs.cloud.google.com/tpu/docs/v5e, v5p,
# v6e, read 2026-11): peak bfloat16 compute, HBM and its bandwidth, ICI.
GIB = 2**30


class Chip(NamedTuple):
  """One chip, which JAX sees as one device.

  Attributes:
    name: of the generation, as topologies have it.
    hbm: bytes.
    flops: per second at most, bfloat16 inputs. Float32 ones count the same:
      at JAX's default precision the TPU rounds them to bfloat16.
    bandwidth: of HBM, bytes per second.
    link_bandwidth: bytes per second that leave the chip: half of what the
      pages give as bidirectional.
    clock: cycles per second, to turn the compiler's cycles into time. It is
      the peak over what the matrix units do in a cycle (v5e: 4 units of 128 x
      128, v5p: 2 x 4 of them, 2 FLOPs per cell); None where that gives no
      sensible number.
  """

  name: str
  hbm: int
  flops: float
  bandwidth: float
  link_bandwidth: float
  clock: float | None


CHIPS = {
  "v5e": Chip("v5e", 16 * GIB, 197e12, 819e9, 200e9, 1.5e9),
  "v5p": Chip("v5p", 95 * GIB, 459e12, 2765e9, 600e9, 1.75e9),
  "v6e": Chip("v6e", 32 * GIB, 918e12, 1638e9, 400e9, None),
}


def of(topology: str) -> Chip:
  """The chip of a topology such as "v5e:16x16".

  Raises:
    ValueError: for another form, or a generation that is not in `CHIPS`.
  """
  name, _, sides = topology.partition(":")
  if name not in CHIPS or not re.fullmatch(r"\d+(x\d+)+", sides):
    raise ValueError(
      f"topology {topology!r} is not of the form v5e:4x4; generations:"
      f" {', '.join(CHIPS)}"
    )
  return CHIPS[name]
