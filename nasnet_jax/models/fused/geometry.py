"""Which pixels of a map a depthwise convolution brings together."""

import dataclasses
import functools

from nasnet_jax.models.kernels import windows

LANES, SUBLANES = 128, 8  # of a vector register of 32-bit numbers
_REGISTERS = 8  # that hold sums at a time
_ROWS = 8  # of pixels that a step of a kernel reads


@dataclasses.dataclass(frozen=True)
class Geometry:
  """What is static about one layer.

  Attributes:
    height, width: of the map that is read, in pixels.
    examples: N, of a folded map: rows of it.
    channels, features: of the map that is read, and of the one that is made.
    fold: examples side by side in the channels; `channels` and `features` are
      those of all of them.
    size, stride, dilation: of the window, which is square.
  """

  height: int
  width: int
  examples: int
  channels: int
  features: int
  fold: int
  size: int
  stride: int = 1
  dilation: int = 1

  @property
  def out_side(self) -> tuple[int, int]:
    return self.height // self.stride, self.width // self.stride

  @property
  def pixels(self) -> int:
    """Of the map that is made, of all examples."""
    height, width = self.out_side
    return height * width * self.examples * self.fold

  @property
  def pads(self) -> tuple[tuple[int, int], tuple[int, int]]:
    """(before, after) of rows and of columns: TensorFlow's SAME."""
    reach = (self.size - 1) * self.dilation + 1
    return tuple(
      windows.same_padding(side, reach, self.stride)
      for side in (self.height, self.width)
    )

  @property
  def padded(self) -> tuple[int, int]:
    rows, columns = self.pads
    return self.height + sum(rows), self.width + sum(columns)

  @property
  def rows(self) -> int:
    """Rows of the map that a step reads: at least as many as a window reaches
    beyond its middle, since a step finishes what the step before has read."""
    reach = (self.size - 1) * self.dilation
    least = min(max(_ROWS, reach), self.height)
    return next(
      n
      for n in range(least, self.height + 1)
      if self.height % n == 0 and n % self.stride == 0
    )

  @property
  def steps(self) -> int:
    """That read; one more finishes the last rows."""
    return self.height // self.rows

  @property
  def taps(self) -> list[tuple[int, int]]:
    return [(i, j) for i in range(self.size) for j in range(self.size)]

  def chunks(self, width: int) -> list[tuple[int, int]]:
    """(first pixel, how many) of a row whose sums fill the registers."""
    most = max(1, _REGISTERS * SUBLANES // self.examples)
    return [(w, min(most, width - w)) for w in range(0, width, most)]

  @functools.cached_property
  def phases(self) -> list[tuple[int, int, list[tuple[int, int, int, int]]]]:
    """For the gradient of the map that is read: (a, b, taps) for its pixels
    (stride * y + a, stride * x + b), with taps (i, j, dy, dx): tap (i, j) of
    the output's pixel (y + dy, x + dx) has read it."""
    (low_y, _), (low_x, _) = self.pads
    found = []
    for a in range(self.stride):
      for b in range(self.stride):
        taps = []
        for i, j in self.taps:
          y, x = a + low_y - i * self.dilation, b + low_x - j * self.dilation
          if y % self.stride == 0 and x % self.stride == 0:
            taps.append((i, j, y // self.stride, x // self.stride))
        found.append((a, b, taps))
    return found

  @property
  def margin(self) -> int:
    """Pixels around the output's gradient that its taps reach into."""
    reach = [abs(d) for *_, taps in self.phases for t in taps for d in t[2:]]
    return max(reach, default=0)


def lane_tiles(channels: int) -> list[slice]:
  return [slice(c, c + LANES) for c in range(0, channels, LANES)]
