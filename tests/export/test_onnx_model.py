"""The ONNX file: its padding, opset and shape."""

import os
import subprocess

import jax
import numpy as np
import pytest

from nasnet_jax.export import graph, onnx_model


@pytest.fixture
def made(small_networks, random_variables):
  """(name, side, options) -> (ModelProto, network, variables)."""
  pytest.importorskip("onnx", reason="onnx is not installed here")

  def make(name, side=(24, 24), **options):
    network = small_networks[name]
    variables = random_variables(network, 24)
    traced = graph.trace(network, variables, (*side, 3))
    return onnx_model.make_model(traced, {}, **options), network, variables

  return make


def _computed(model) -> list[str]:
  """Nodes whose padding the runtime has to find."""
  known = {x.name for x in model.graph.initializer}
  found = []
  for node in model.graph.node:
    fields = {field.name for field in node.attribute}
    if node.op_type == "Pad" and node.input[1] not in known:
      found.append(node.name)
    if "auto_pad" in fields:
      found.append(node.name)
  return found


def _strides(model, name: str) -> int:
  (node,) = (n for n in model.graph.node if n.name == name.removesuffix("/pad"))
  (field,) = (f for f in node.attribute if f.name == "strides")
  return max(field.ints)


@pytest.mark.parametrize("name", ["cells_0", "cells_1", "cells_2", "zeros"])
def test_padding_is_constant_wherever_the_stride_is_one(name, made):
  model, _, _ = made(name)
  computed = _computed(model)
  assert computed and {_strides(model, n) for n in computed} == {2}


@pytest.mark.parametrize("side", [(24, 24), (23, 26)])
def test_no_pad_cuts_off_which_opencv_refuses(side, made):
  model, _, _ = made("cells_0", side, batch=1)
  arrays = {
    x.name: np.frombuffer(x.raw_data, np.int64)
    for x in model.graph.initializer
    if x.name.endswith("/pads")
  }
  pads = [n.input[1] for n in model.graph.node if n.op_type == "Pad"]
  assert pads and all(arrays[name].min() >= 0 for name in pads)


@pytest.mark.parametrize("name", ["cells_0", "cells_1", "zeros"])
def test_a_model_of_one_side_has_nothing_left_to_compute(name, made):
  model, _, _ = made(name, (23, 26), batch=2)
  assert _computed(model) == []
  assert {"Shape", "Mod"}.isdisjoint(n.op_type for n in model.graph.node)
  shape = model.graph.input[0].type.tensor_type.shape
  assert [d.dim_value for d in shape.dim] == [2, 3, 23, 26]
  (logits,) = model.graph.output
  shape = logits.type.tensor_type.shape
  assert [d.dim_value for d in shape.dim] == [2, 3]


def test_files_are_of_an_old_version_of_the_format(made):
  model, _, _ = made("stages")
  assert (model.ir_version, model.opset_import[0].version) == (8, 18)


@pytest.mark.parametrize("opset", [12, 22])
def test_an_opset_that_is_not_written_is_refused(opset, small_networks):
  with pytest.raises(graph.GraphError, match="give one from 13 to 21"):
    onnx_model.make_model(None, {}, opset=opset)


def _answers(model, network, variables, shape):
  """(theirs, ours) to random images."""
  runtime = pytest.importorskip("onnxruntime")
  images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
  run = jax.jit(lambda x: network.apply(variables, x, train=False)[0])
  session = runtime.InferenceSession(model.SerializeToString())
  first = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
  return session.run(None, {"images": first})[0], np.asarray(run(images))


def _same(found, wanted):
  np.testing.assert_allclose(found, wanted, atol=1e-5 * abs(wanted).max())


# Every operation in either form, sides even and odd inside; and squeeze-excite.
@pytest.mark.parametrize(
  "name",
  [
    "zeros",
    *(
      pytest.param(name, marks=pytest.mark.slow)
      for name in ("cells_0", "cells_1", "cells_2", "imagenet", "zeros_avg")
    ),
    pytest.param("efficientnet_b0", marks=pytest.mark.slow),
  ],
)
def test_a_model_of_one_side_answers_as_the_network(name, made):
  model, *ours = made(name, (23, 26), batch=2)
  _same(*_answers(model, *ours, (2, 23, 26, 3)))


@pytest.mark.parametrize(
  "opset",
  [13, *(pytest.param(n, marks=pytest.mark.slow) for n in range(14, 22))],
)
def test_every_opset_answers_as_the_network(opset, made):
  for name in ("cells_2", "zeros"):
    model, *ours = made(name, opset=opset)
    assert model.opset_import[0].version == opset
    _same(*_answers(model, *ours, (2, 23, 26, 3)))


_LOAD = """
import sys
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
images = np.load(sys.argv[2])
np.save(sys.argv[3], session.run(None, {"images": images})[0])
"""


@pytest.mark.slow  # another onnxruntime
@pytest.mark.parametrize("opset", [13, 18])
def test_an_old_onnxruntime_loads_the_file_and_answers_as_we_do(
  opset, made, tmp_path
):
  python = os.environ.get("NASNET_JAX_ORT_PYTHON")
  if not python:
    pytest.skip(
      "needs an old onnxruntime: NASNET_JAX_ORT_PYTHON is an interpreter with"
      " 1.17"
    )
  model, network, variables = made("cells_1", opset=opset)
  (tmp_path / "network.onnx").write_bytes(model.SerializeToString())
  images = np.random.default_rng(0).normal(size=(2, 23, 26, 3))
  images = images.astype(np.float32)
  np.save(
    tmp_path / "images.npy", np.ascontiguousarray(images.transpose(0, 3, 1, 2))
  )
  names = ("network.onnx", "images.npy", "logits.npy")
  files = [str(tmp_path / name) for name in names]
  done = subprocess.run(
    [python, "-c", _LOAD, *files], capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stderr[-1000:]
  ours = jax.jit(lambda x: network.apply(variables, x, train=False)[0])(images)
  _same(np.load(files[-1]), np.asarray(ours))
