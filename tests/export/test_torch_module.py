"""The generated PyTorch module goes where PyTorch's modules go: into other
dtypes, into a script, a trace, an exported program, a compiled one."""

import copy
import importlib.util
import re
import sys

import numpy as np
import pytest

from nasnet_jax.export import torch_module

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
# Among them every kind of layer; whole programs are made of them, in seconds.
KINDS = (
  "cells_0",
  "cells_2",
  "zeros",
  "imagenet",
  "separate",
  "stages",
  "efficientnet_b0",
  "se_resnet_50",
)
SIDES = ((2, 48, 48), (1, 47, 66), (3, 71, 50))


def _source(network, whitened=True) -> str:
  return torch_module.source(
    network, (24, 24, 3), MEAN, STD, about="A test.", whitened=whitened
  )


@pytest.mark.parametrize("whitened", [False, True])
@pytest.mark.parametrize("name", ["cells_0", "imagenet", "se_resnet_50"])
def test_the_module_has_nothing_that_a_script_or_a_dtype_stumbles_over(
  name, whitened, small_networks
):
  text = _source(small_networks[name], whitened)
  for word in ("getattr(", "super().forward", ".float()", "torch.inf"):
    assert word not in text, word
  assert ("self.whiten = Whiten()" in text) == (not whitened)
  # What is no tensor has its type.
  for line in re.findall(r"def forward\(.*\)", text):
    assert line.count("states") == line.count("states: list[torch.Tensor]")
    assert line.count("with_aux") == line.count("with_aux: bool")


@pytest.fixture
def made(tmp_path, request):
  """(network, whitened) -> its module with random weights, of a file, which a
  script reads."""
  torch = pytest.importorskip("torch", reason="PyTorch is not installed here")

  def make(network, whitened=True):
    name = f"network_{tmp_path.name}_{whitened}"
    path = tmp_path / f"{name}.py"
    path.write_text(_source(network, whitened))
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    request.addfinalizer(lambda: sys.modules.pop(name, None))
    spec.loader.exec_module(module)
    torch.manual_seed(0)
    return module.Network().eval()

  return make


def _images(shape, whitened=True):
  import torch

  generator = torch.Generator().manual_seed(1)
  n, h, w = shape
  if whitened:
    return torch.randn(n, 3, h, w, generator=generator)
  found = torch.randint(0, 256, (n, 3, h, w), generator=generator)
  return found.to(torch.uint8)


def _same(found, model, whitened=True):
  """At every batch and side, to 1e-5 of the largest logit."""
  import torch

  with torch.no_grad():
    for shape in SIDES:
      images = _images(shape, whitened)
      wanted = model(images).numpy()
      difference = abs(found(images).numpy() - wanted).max()
      assert difference <= 1e-5 * abs(wanted).max(), shape


@pytest.mark.slow  # PyTorch
def test_scripts_and_traces_answer_alike_at_other_batches_and_sides(
  small_name, small_networks, made
):
  import torch

  model = made(small_networks[small_name], whitened=False)
  _same(torch.jit.script(model), model, whitened=False)
  first = _images(SIDES[0], whitened=False)
  _same(torch.jit.trace(model, first), model, whitened=False)


@pytest.mark.slow  # PyTorch
def test_a_script_with_an_auxiliary_head_answers_with_logits_alone(
  small_networks, made
):
  import torch

  model = made(small_networks["imagenet"])
  script = torch.jit.script(model)
  with pytest.raises(torch.jit.Error, match="logits alone"):
    script(_images((2, 24, 24)), with_aux=True)


@pytest.mark.slow  # PyTorch
@pytest.mark.parametrize("name", KINDS)
def test_an_exported_program_has_a_free_batch_and_side(
  name, small_networks, made
):
  import torch

  dim = torch.export.Dim
  free = {0: dim("n"), 2: dim("h", min=40), 3: dim("w", min=40)}
  model = made(small_networks[name], whitened=False)
  images = _images(SIDES[0], whitened=False)
  program = torch.export.export(model, (images,), dynamic_shapes=(free,))
  _same(program.module(), model, whitened=False)


@pytest.mark.slow  # PyTorch
@pytest.mark.parametrize("name", KINDS)
def test_a_compiled_module_answers_alike(name, small_networks, made):
  import torch

  torch.compiler.reset()
  model = made(small_networks[name], whitened=False)
  # Without a C++ compiler, and with one graph: a break would be an error.
  found = torch.compile(
    model, backend="aot_eager", fullgraph=True, dynamic=True
  )
  _same(found, model, whitened=False)


@pytest.mark.slow  # PyTorch
@pytest.mark.parametrize("whitened", [True, False])
def test_other_dtypes_answer_in_theirs_and_nearly_alike(
  small_name, small_networks, made, whitened
):
  import torch

  model = made(small_networks[small_name], whitened)
  images = _images(SIDES[0], whitened)
  allowed = {torch.float64: 1e-5, torch.float16: 1e-2, torch.bfloat16: 8e-2}
  with torch.no_grad():
    wanted = model(images)
    for dtype, limit in allowed.items():
      other = copy.deepcopy(model).to(dtype)
      found = other(images.to(dtype) if whitened else images)
      assert found.dtype == dtype
      difference = float((found.float() - wanted).abs().max())
      assert difference <= limit * float(wanted.abs().max()), dtype


@pytest.mark.slow  # PyTorch
def test_whitening_is_no_part_of_the_weights(small_networks, made):
  model = made(small_networks["stages"], whitened=False)
  assert not [name for name in model.state_dict() if "whiten" in name]
  pixels = _images((1, 8, 8), whitened=False)
  wanted = (pixels.numpy() / 255 - np.reshape(MEAN, (3, 1, 1))) / np.reshape(
    STD, (3, 1, 1)
  )
  np.testing.assert_allclose(model.whiten(pixels).numpy(), wanted, atol=1e-6)
