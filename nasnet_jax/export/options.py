"""How a network is exported, and which options do not go together."""

import dataclasses
import sys

from nasnet_jax.data import paths
from nasnet_jax.export import onnx_model
from nasnet_jax.export.check import ExportError

STATIC = ("onnx", "tflite")  # formats that can be of one shape


@dataclasses.dataclass(frozen=True)
class Options:
  """How a network is exported.

  Attributes:
    preprocess: whether the exported network takes pixels, uint8, and whitens
      them; else whitened images, float32.
    sides: (H, W) to compare at, beside the one that the network was trained
      with; (): one that is a little larger.
    tolerance: of the largest difference of a logit.
    python: that has the format's packages; "": this one.
    verify: whether to load the files again and compare.
    calibration: folder of images; of format tflite only: int8 beside float32.
    calibration_images: at most so many of them are read, evenly picked.
    int8_io: whether the int8 file takes and gives int8, too, not float32.
    static: (N, C, H, W) of the only images that the network takes, of formats
      onnx and tflite; (): any batch and side.
    opset: of format onnx; None: `onnx_model.OPSET`.
    data_dir: where the run's data lies now; None: where it lay.
    images: files or folders to compare on; (): the run's test images.
    features: whether the network ends with the map that a detector proposes
      regions on (`detection.backbone`), in place of logits. Of a detector's
      run it always does.
  """

  preprocess: bool = False
  sides: tuple[tuple[int, int], ...] = ()
  tolerance: float = 1e-4
  python: str = ""
  verify: bool = True
  calibration: str = ""
  calibration_images: int = 300
  int8_io: bool = False
  static: tuple[int, ...] = ()
  opset: int | None = None
  data_dir: str | None = None
  images: tuple[str, ...] = ()
  features: bool = False

  @property
  def interpreter(self) -> str:
    return paths.expanded(self.python or sys.executable)

  def check(self, names):
    """Raises ExportError, one line, for what none of these formats, or not all
    of them, could do."""
    found = next((line for line in self._problems(names)), None)
    if found:
      raise ExportError(found)

  def _problems(self, names):
    twice = [name for name in names if names.count(name) > 1]
    if twice:
      yield f"--format names {twice[0]} twice: leave one out"
    if not self.tolerance > 0:  # also if it is not a number
      yield f"--tolerance={self.tolerance:g} is not above 0: give such as 1e-4"
    free = [name for name in names if name not in STATIC]
    if self.static and free:
      yield (
        f"{free[0]} takes any batch and side: --static is of"
        f" {' and '.join(STATIC)}"
      )
    if self.static and self.sides:
      yield "--static is one side: leave out --sides"
    if self.opset is not None and "onnx" not in names:
      yield "--opset is of onnx: give --format=onnx"
    if self.opset is not None and self.opset not in onnx_model.OPSETS:
      first, *_, last = onnx_model.OPSETS
      yield f"--opset={self.opset} is not written: give {first} to {last}"
    if self.calibration and "tflite" not in names:
      yield "--calibration is for int8: give --format=tflite"
    if self.calibration_images != 300 and not self.calibration:
      yield "--calibration_images is of --calibration=FOLDER: give that, too"
    if self.images and self.data_dir is not None:
      yield (
        "--data_dir is for comparing on the run's test images, and --images"
        " takes others: leave one out"
      )
    if self.int8_io and not self.calibration:
      yield "--int8_io is of the int8 file: give --calibration=FOLDER"
    if self.int8_io and self.preprocess:
      yield (
        "--int8_io takes whitened images in int8, --preprocess takes pixels:"
        " leave out one of them"
      )
