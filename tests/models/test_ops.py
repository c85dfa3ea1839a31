"""Each operation by name against its definition in NumPy, float64."""

import dataclasses
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasnet_jax import spaces
from nasnet_jax.models import folded, layers, ops

_spec = importlib.util.spec_from_file_location(
  "numpy_cells", pathlib.Path(__file__).with_name("numpy_cells.py")
)
numpy_cells = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(numpy_cells)

FEATURES, EPSILON = 8, 1e-2
SIDE = (7, 10)  # one odd side, one even
CASES = {
  (name, stride, channels): ops.OPERATIONS[name](
    layers.Numerics(bn_epsilon=EPSILON), FEATURES, stride
  )
  for name in ops.OPERATIONS
  for stride in (1, 2)
  for channels in (3, FEATURES)
}


def _image(channels):
  rng = np.random.default_rng(channels)
  return rng.standard_normal((2, *SIDE, channels)).astype(np.float32)


def _random_variables(module, channels, seed):
  """Kernels, scales, biases and statistics at random."""
  shapes = jax.eval_shape(
    lambda: module.init(jax.random.key(0), _image(channels), False)
  )
  rng = np.random.default_rng(seed)

  def fill(path, leaf):
    low, high = {"scale": (0.5, 1.5), "var": (0.5, 1.5)}.get(
      path[-1].key, (-0.5, 0.5)
    )
    return rng.uniform(low, high, leaf.shape).astype(np.float32)

  return jax.tree_util.tree_map_with_path(fill, shapes)


@pytest.fixture(
  scope="module", params=[1, pytest.param(2, marks=pytest.mark.slow)]
)
def found(request):
  """What all modules make of random images and variables: one program; the
  two images one after the other, and side by side."""
  fold = request.param
  variables = {
    case: _random_variables(module, case[2], seed)
    for seed, (case, module) in enumerate(CASES.items())
  }

  @jax.jit
  def run(variables):
    outputs = []
    for (case, module), given in zip(CASES.items(), variables, strict=True):
      numerics = dataclasses.replace(module.numerics, fold=fold)
      x = folded.fold(_image(case[2]), fold)
      y = module.clone(numerics=numerics).apply(given, x, False)
      # Rows last, so that they meet the channels.
      y = folded.unfold(jnp.moveaxis(y, 0, -2), fold)
      outputs.append(jnp.moveaxis(y, -2, 0))
    return outputs

  outputs = run(list(variables.values()))
  return dict(zip(CASES, zip(variables.values(), outputs), strict=True))


class _Reference(numpy_cells.Cells):
  """Operations by the paper's names, from the rules of its appendix A.4:
  ReLU, convolution, batch norm; separable ones twice."""

  def __init__(self, variables):
    super().__init__({"batch_stats": {}, **variables}, EPSILON)

  def _dense(self, x, number, stride, dilation=1):
    """ReLU, convolution `conv_<number>`, batch norm."""
    kernel = self.get("params", f"conv_{number}/kernel")
    if kernel.ndim == 2:
      kernel = kernel[None, None]
    kernel = _spread(kernel, dilation)
    w = numpy_cells.windows(numpy_cells.relu(x), kernel.shape[:2], stride, 0.0)
    y = np.einsum("nhwijc,ijcf->nhwf", w, kernel)
    return self.norm(y, f"norm_{number}")

  def _separable(self, x, stride, dilation):
    for layer, s in enumerate((stride, 1)):
      kernel = _spread(
        self.get("params", f"depthwise_{layer}/kernel"), dilation
      )
      x = numpy_cells.relu(x)
      w = numpy_cells.windows(x, kernel.shape[:2], (s, s), 0.0)
      x = np.einsum("nhwijc,ijc->nhwc", w, kernel)
      x = self.norm(
        x @ self.get("params", f"pointwise_{layer}/kernel"), f"norm_{layer}"
      )
    return x

  def __call__(self, name, x, stride):
    both = (stride, stride)
    kind = name.rpartition("_conv_")[0]
    if kind in ("sep", "dil_sep"):
      return self._separable(x, stride, 2 if kind == "dil_sep" else 1)
    if name == "dil_conv_3x3":
      return self._dense(x, 0, both, dilation=2)
    if name in ("conv_1x1", "conv_3x3"):
      return self._dense(x, 0, both)
    if name in ("conv_1x3_3x1", "conv_1x7_7x1"):
      x = self._dense(x, 0, (1, stride))
      return self._dense(x, 1, (stride, 1))
    short = {"identity": "id", "avg_pool_3x3": "avg3"}
    for size in (2, 3, 5, 7):
      short[f"max_pool_{size}x{size}"] = f"max{size}"
    if name in short:
      return self.operation(short[name], x, FEATURES, stride, ".")
    short = {"bottleneck_3x3": "3x3", "bottleneck_1x7_7x1": "1x7"}
    return self.operation(short[name], x, FEATURES, stride, ".")

  def get(self, collection, path):
    return super().get(collection, path.removeprefix("./"))


def _spread(kernel, dilation):
  """The same kernel with zeros between its taps."""
  k = [(s - 1) * dilation + 1 for s in kernel.shape[:2]]
  wide = np.zeros((*k, *kernel.shape[2:]))
  wide[::dilation, ::dilation] = kernel
  return wide


# Zoph et al. 2018, section 3.1.
KERNELS = {
  "conv_1x1": [(1, 1)],
  "conv_3x3": [(3, 3)],
  "conv_1x3_3x1": [(1, 3), (3, 1)],
  "conv_1x7_7x1": [(1, 7), (7, 1)],
  "dil_conv_3x3": [(3, 3)],
  "sep_conv_3x3": [(3, 3), (1, 1), (3, 3), (1, 1)],
  "sep_conv_5x5": [(5, 5), (1, 1), (5, 5), (1, 1)],
  "sep_conv_7x7": [(7, 7), (1, 1), (7, 7), (1, 1)],
}


def test_the_thirteen_operations_are_all_here():
  assert len(spaces.SPACES["nasnet"].operations) == 13
  assert set(spaces.SPACES["nasnet"].operations) <= set(ops.OPERATIONS)
  assert set(spaces.SPACES["pnas"].operations) <= set(ops.OPERATIONS)


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_are_as_large_as_their_names_say(name, found):
  params = found[name, 1, 3][0]["params"]
  shapes = sorted(
    kernel.shape[:2] if kernel.ndim > 2 else (1, 1)
    for layer in params.values()
    for key, kernel in layer.items()
    if key == "kernel"
  )
  assert shapes == sorted(KERNELS[name])


@pytest.mark.parametrize("name", ops.OPERATIONS)
def test_an_operation_is_what_its_name_says(name, found):
  for case, (variables, y) in found.items():
    if case[0] != name:
      continue
    _, stride, channels = case
    x = _image(channels)
    assert y.shape == (2, *(-(-s // stride) for s in SIDE), FEATURES), case
    wanted = _Reference(variables)(name, np.float64(x), stride)
    scale = 1 + np.abs(wanted).max()
    np.testing.assert_allclose(
      y / scale, wanted / scale, atol=1e-5, err_msg=str(case)
    )
