"""Children's scores are those of the static networks that they are."""

import dataclasses
import functools
import importlib.util
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from nasnet_jax import spaces
from nasnet_jax.data import batches
from nasnet_jax.data.augment import DEFAULTS, normalise
from nasnet_jax.models import families
from nasnet_jax.models.layers import Numerics
from nasnet_jax.models.stacked_plan import NetworkConfig
from nasnet_jax.population import child_scores, networks
from nasnet_jax.population import population as pop
from nasnet_jax.population.evaluator import PopulationEvaluator
from nasnet_jax.population.extract import extract
from nasnet_jax.scores import formulas
from nasnet_jax.training.mesh import make_mesh
from nasnet_jax.training.state import TrainState


class Case(NamedTuple):
  """A space, and the network that its children are."""

  space: Any
  network: NetworkConfig


def _case(num_blocks, operations, **sizes) -> Case:
  space = spaces.get(
    "nasnet_concat", num_blocks=num_blocks, operations=operations
  )
  # Groups of three images, which a score must not see: it is of one batch.
  numerics = Numerics(init="fan_in", bn_parts=2, bn_epsilon=1e-3)
  return Case(
    space, NetworkConfig(num_classes=5, numerics=numerics, features=4, **sizes)
  )


# The programs are long, and only slow tests compile that of the second.
SMALL = _case(1, ("identity", "sep_conv_3x3"), num_cells=1, num_reductions=0)
LARGE = _case(
  2,
  ("identity", "sep_conv_3x3", "avg_pool_3x3", "conv_1x1"),
  num_cells=1,
  num_reductions=1,
)
SETTINGS = child_scores.ScoreSettings(formulas.NAMES, 6)
SEEDS = np.array([7, 8, 9], np.uint32)
SHAPE = (8, 8, 1)


def _children(case):
  return case.space.sample(np.random.default_rng(3), len(SEEDS))


def _images():
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (10, *SHAPE)).astype(np.uint8)
  return images, np.arange(10, dtype=np.int32) % 5


@functools.cache
def _scores(case, arch=1):
  """Of all children."""
  made = child_scores.ChildScores(
    *case, DEFAULTS["digits"], _images(), make_mesh(arch, 1), SETTINGS
  )
  return made.of(_children(case), SEEDS)


@functools.cache
def _init(case):
  build, _ = networks.open_network(*case, SHAPE)
  return build, jax.jit(build.init)


def variables_of(case, child):
  """(genotype, variables of the static network) as training begins."""
  build, init = _init(case)
  genotype = jax.tree.map(
    lambda g: g[child], case.space.decode(_children(case))
  )
  params, stats = init(jax.random.key(SEEDS[child]), genotype)
  state = TrainState(params, stats, (), 0, 0, 0)
  return genotype, extract(build, genotype, state)


def test_fewer_images_than_asked_for_are_told(caplog):
  settings = SETTINGS._replace(images=11)
  arguments = DEFAULTS["digits"], _images(), make_mesh(1, 1)
  child_scores.ChildScores(*SMALL, *arguments, SETTINGS)
  assert not caplog.records
  child_scores.ChildScores(*SMALL, *arguments, settings)
  (line,) = caplog.records
  assert "search.score_images is 11, and there are 10" in line.getMessage()


def batch():
  """(images, labels) that all children are scored by."""
  images, labels = _images()
  chosen = np.asarray(batches.batch_indices(0, 0, 10, SETTINGS.images))
  return normalise(images[chosen], DEFAULTS["digits"]), labels[chosen]


def _static_scores(case, child):
  genotype, variables = variables_of(case, child)

  def applied(numerics):
    config = dataclasses.replace(case.network, numerics=numerics)
    network = families.network(case.space, genotype, config)

    def apply(params, images):
      found = {**variables, "params": params}
      (logits, *_), _ = network.apply(found, images, True, mutable=True)
      return logits

    return apply

  def measure(params, images, labels):
    model = formulas.Model(
      params,
      applied(child_scores.in_batch(case.network.numerics)),
      applied(child_scores.without_norms(case.network.numerics)),
    )
    return formulas.measure(formulas.NAMES, model, images, labels)

  return formulas.finish(jax.jit(measure)(variables["params"], *batch()))


def test_a_childs_scores_are_those_of_its_static_network():
  found, wanted = _scores(SMALL), _static_scores(SMALL, 0)
  assert None not in wanted.values()
  assert found[0] == pytest.approx(wanted, rel=1e-4)
  for name in formulas.NAMES:
    assert len({row[name] for row in found}) == len(SEEDS), name


@pytest.mark.slow  # the program once more
def test_scores_have_the_same_bits_on_any_number_of_devices():
  assert _scores(SMALL, 2) == _scores(SMALL)


def _torch_scores(module, images, labels):
  """All scores in PyTorch, float64, as mohsaied/zero-cost-nas and
  BayesWatch/nas-without-training have them; module: a new network."""
  import torch
  from torch.nn import functional

  images = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).double()
  labels, module = torch.from_numpy(labels).long(), module.double().train()
  layers = [
    layer
    for layer in module.modules()
    if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear)
  ]
  codes, relu = [], functional.relu

  def counted(x, *arguments, **options):
    codes.append((x.detach().flatten(1) > 0).double())
    return relu(x, *arguments, **options)

  images.requires_grad_(True)
  functional.relu = counted
  try:
    logits = module(images)
  finally:
    functional.relu = relu
  (rows,) = torch.autograd.grad(logits.sum(), images, retain_graph=True)
  values = np.linalg.eigvalsh(np.corrcoef(rows.flatten(1).numpy())) + 1e-5
  functional.cross_entropy(logits, labels).backward()
  # What nothing reads has no gradient here, and one of 0 with us.
  layers = [layer for layer in layers if layer.weight.grad is not None]
  on = torch.cat(codes, 1)
  agreement = on @ on.T + (1 - on) @ (1 - on).T
  found = {
    "grad_norm": sum(layer.weight.grad.norm().item() for layer in layers),
    "snip": sum(
      (layer.weight * layer.weight.grad).abs().sum().item() for layer in layers
    ),
    "jacob_cov": -(np.log(values) + 1 / values).sum(),
    "naswot": np.linalg.slogdet(agreement.numpy())[1],
  }
  for parent in list(module.modules()):
    for name, part in list(parent.named_children()):
      if isinstance(part, torch.nn.BatchNorm2d):
        setattr(parent, name, torch.nn.Identity())
  module.zero_grad()
  with torch.no_grad():
    for weights in module.parameters():
      weights.abs_()
  module(torch.ones_like(images[:1])).sum().backward()
  flow = sum((layer.weight * layer.weight.grad).sum() for layer in layers)
  return {**found, "synflow": flow.log().item()}


@pytest.mark.slow  # PyTorch
@pytest.mark.parametrize("child", [0, 1, 2])
def test_a_childs_scores_are_pytorchs_in_double_precision(child, tmp_path):
  torch = pytest.importorskip("torch", reason="PyTorch is not installed here")
  from nasnet_jax.export import torch_module

  genotype, variables = variables_of(LARGE, child)
  network = families.network(LARGE.space, genotype, LARGE.network)
  path = tmp_path / f"network_{child}.py"
  path.write_text(
    torch_module.source(network, SHAPE, (0.5,), (0.5,), about="A test.")
  )
  spec = importlib.util.spec_from_file_location(path.stem, path)
  source = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(source)
  module = source.Network()
  weights = torch_module.weights(variables)
  module.load_state_dict(
    {name: torch.from_numpy(np.array(w)) for name, w in weights.items()},
    strict=False,  # numbers of batches
  )
  wanted = _torch_scores(module, *batch())
  assert _scores(LARGE)[child] == pytest.approx(wanted, rel=1e-4)


@pytest.mark.slow  # a whole population
def test_an_evaluators_outcomes_have_the_scores_and_are_otherwise_the_same():
  images, labels = _images()
  recipe = pop.ChildRecipe(epochs=1, batch_size=6, eval_batch_size=5)

  def outcomes(**options):
    evaluator = PopulationEvaluator(
      *SMALL,
      recipe,
      DEFAULTS["digits"],
      (images, labels),
      (images[:5], labels[:5]),
      make_mesh(1, 1),
      **options,
    )
    budgets = np.ones(len(SEEDS), np.float32)
    return evaluator.evaluate(_children(SMALL), SEEDS, budgets)

  scored, plain = outcomes(scores=SETTINGS), outcomes()
  assert [o.scores for o in scored] == _scores(SMALL)
  assert [o.scores for o in plain] == [None] * 3
  for one, other in zip(scored, plain, strict=True):
    assert one._replace(seconds=0, scores=None) == other._replace(seconds=0)


def test_only_spaces_of_cells_have_scores():
  stages = spaces.get("genetic_cnn")
  with pytest.raises(ValueError, match=r"no cells.*take a space of cells"):
    child_scores.check_space(("snip",), stages)
  child_scores.check_space((), stages)


def test_synflow_is_refused_where_blocks_are_normalised():
  space = spaces.get("nasnet_c")
  with pytest.raises(ValueError, match=r"not defined.*add_layer_norm"):
    child_scores.check_space(("synflow",), space)
  child_scores.check_space(("snip",), space)
