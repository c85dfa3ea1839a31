"""The TPU's own compiler on a slice that is not here, and what is made of it.

Compilations of programs with more than a few operations take minutes, so all
but one are slow tests.
"""

import importlib.util
import json
import math
import pathlib
import re
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

from nasnet_jax.costs import counting
from nasnet_jax.detection import detector
from nasnet_jax.jobs import detect
from nasnet_jax.models import layers, ops
from nasnet_jax.population import population
from nasnet_jax.preflight import (
  chips,
  costs,
  figures,
  hlo,
  job,
  known_data,
  plans,
  program,
  words,
)
from nasnet_jax.training import fit, loop

ROOT = pathlib.Path(__file__).parents[2]
needs_libtpu = pytest.mark.skipif(
  importlib.util.find_spec("libtpu") is None,
  reason="needs the TPU compiler: pip install 'nasnet_jax[tpu]'",
)


def load_config(name, variant=""):
  path = ROOT / "configs" / f"{name}.py"
  spec = importlib.util.spec_from_file_location(name, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(variant)


def tiny_search(**fields):
  """Three operations, one normal and one reduction cell, F=4; an update of
  unfolded examples per call."""
  config = load_config("search_digits", "tiny")
  config.child.fold = config.child.width = config.child.steps_per_call = 1
  config.update_from_flattened_dict(fields)
  return config


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
  """(what the program printed, its JSON) for a slice of four chips."""
  file = tmp_path_factory.mktemp("preflight") / "tiny.json"
  done = subprocess.run(
    [
      sys.executable,
      "launch/preflight.py",
      "--config=configs/search_digits.py:tiny",
      "--topology=v5e:2x2",
      "--config.child.fold=1",
      "--config.child.steps_per_call=1",
      f"--json={file}",
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=500,
  )
  assert done.returncode == 0, done.stderr
  assert done.stderr == ""
  return done.stdout, json.loads(file.read_text())


@needs_libtpu
def test_a_tiny_search_is_planned_for_a_slice_that_is_not_here(tiny):
  text, found = tiny
  assert found["fits"] and found["mesh"] == {"arch": 4, "data": 1}
  assert found["collectives"] == []  # children share nothing
  assert 0 < found["hbm"]["needed"] < found["hbm"]["chip"] == 16 * 2**30
  # Forward once, the gradients twice, and operations of edges once more.
  assert 3 < found["flops"] / (2 * 64 * found["macs_per_image"]) < 4
  assert found["children_that_fit"] > 100
  assert "ESTIMATE, roofline" in text and "4 of 4 chips" in text
  # What is given is not chosen.
  assert "chosen for 4 x TPU v5 lite: child.width=1 final." in text


@needs_libtpu
def test_a_tpu_program_has_plain_convolutions():
  """On CPU they are shifted products; the lowering must be the TPU's."""
  config = tiny_search(**{"space.operations": ("sep_conv_3x3", "conv_1x1")})
  plan = plans.make_plan(config, program.get_devices("v5e:2x2"))
  text = program.lower(plan.step)[0].as_text()
  assert "feature_group_count = 4" in text  # depthwise, F=4
  assert "inlineable" not in text  # of `memory.materialise`, on CPU alone
  # One reduction of two maps keeps the compiler from joining it to a product.
  several = r"stablehlo\.reduce\(\S+ init: \S+\), \(.*tensor<(\d+x){4}f32>"
  assert not re.search(several, text)


@needs_libtpu
@pytest.mark.parametrize("fold", [1, 2, 4])
def test_the_tpus_compiler_takes_kernels_of_our_own_at_every_fold(fold):
  """Interpreting them does not show what Mosaic refuses."""
  (device, *_) = program.get_devices("v5e:2x2")
  channels, sharding = 128 // fold, SingleDeviceSharding(device)
  numerics = layers.Numerics(fold=fold, kernels="pallas")
  module = ops.OPERATIONS["sep_conv_3x3"](numerics, channels, 1)
  variables = jax.eval_shape(
    lambda: module.init(jax.random.key(0), jnp.zeros((8, 8, 8, 128)), False)
  )

  def loss(params, x):
    found, kept = {**stats, "params": params}, ["batch_stats", "moments"]
    return module.apply(found, x, True, mutable=kept)[0].sum()

  stats = {
    name: jax.tree.map(lambda v: np.zeros(v.shape, v.dtype), tree)
    for name, tree in variables.items()
    if name != "params"
  }
  params, x = jax.tree.map(
    lambda v: jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=sharding),
    (variables["params"], jax.ShapeDtypeStruct((8, 8, 8, 128), jnp.float32)),
  )
  text = jax.jit(jax.grad(loss)).lower(params, x).compile().as_text()
  assert "tpu_custom_call" in text


@needs_libtpu
def test_a_plan_has_what_its_chip_would_choose():
  config = load_config("search_digits", "tiny")
  devices = program.get_devices("v5e:2x2")
  plan = plans.make_plan(config, devices, 16 * 2**30)
  child = plan.config.child
  assert (child.fold, child.steps_per_call) == (1, 18)
  assert plan.step.updates == 18
  assert "child.fold=1 child.width=1" in plan.chosen[0]


@needs_libtpu
def test_a_topology_that_is_none_is_refused_in_a_line():
  with pytest.raises(program.PreflightError, match="no topology 'v5e:3x1'"):
    program.get_devices("v5e:3x1")


def test_without_the_compiler_one_line_says_what_to_install(monkeypatch):
  monkeypatch.setitem(sys.modules, "libtpu", None)
  with pytest.raises(program.PreflightError, match=r"nasnet_jax\[tpu\]"):
    program.get_devices("v5e:2x2")


@pytest.mark.parametrize("topology", ["v9:2x2", "v5e", "v5e:4", "4x4"])
def test_an_unknown_chip_is_refused_with_those_that_are_known(topology):
  with pytest.raises(ValueError, match="v5e, v5p, v6e"):
    chips.of(topology)


# Updates: 312 epochs of 800; 20 of 1,406; 1,200 images in 18 of 64, once.
@pytest.mark.parametrize(
  ("name", "variant", "updates", "switches"),
  [
    pytest.param(
      "transfer_imagenet", "", 249_600, set(), marks=pytest.mark.slow
    ),
    ("search_cifar", "", 28_120, {14, 27}),  # 13 operations, one or two kinds
    ("search_digits", "tiny", 18, {4, 7}),
  ],
)
def test_a_job_is_planned_without_its_data(name, variant, updates, switches):
  plan = plans.make_plan(load_config(name, variant), jax.devices()[:4])
  assert plan.total_updates == updates
  assert set(plan.step.shares) == switches
  for rows in plan.step.shares.values():
    assert rows.sum(1) == pytest.approx(1)
  for leaf in jax.tree.leaves(plan.step.arguments):
    assert leaf.sharding is not None


def _tiny_detector():
  """MobileNet of an eighth of its width, on COCO."""
  config = load_config("detect_voc", "tiny")
  config.data.sizes.buckets = ((96, 128),)
  config.data.source = "coco"
  return config


class _Called(Exception):
  """Holds what a job's step was called with."""


def _arguments_of_the_job(config, folder, monkeypatch):
  """Shapes of what the job calls its step with, which is not compiled."""

  def compile_steps(step_fn):
    del step_fn

    def once(*arguments):
      raise _Called(jax.tree.map(jnp.shape, arguments))

    return loop.Advance(once, once)

  monkeypatch.setattr(fit.loop, "compile_steps", compile_steps)
  with pytest.raises(_Called) as called:
    detect.run(config, folder)
  return called.value.args[0]


def test_a_detector_is_planned_on_what_its_job_really_reads(
  tmp_path, monkeypatch, coco_files
):
  """COCO's sizes from nowhere, against a set that is there."""
  known = _tiny_detector()
  known.train.batch_size = 2
  plan = plans.make_plan(known, jax.devices()[:1])
  assert plan.job == "detect" and plan.total_updates == 2 * (118_287 // 2)
  picture = (
    coco_files.painted(90, 120, []),
    (90, 120),
    [{"bbox": [1, 2, 9, 9]}],
  )
  made = coco_files.coco(
    tmp_path / "coco",
    {"train2017": [picture] * 2, "val2017": [picture]},
    [(i, f"class {i}") for i in range(1, 81)],
  )
  config = known.copy_and_resolve_references()
  config.data.data_dir = str(made)
  called = _arguments_of_the_job(config, tmp_path / "run", monkeypatch)
  planned = jax.tree.map(lambda x: x.shape, plan.step.arguments)
  assert planned == called[:3]


def test_only_coco_itself_is_known_without_its_files():
  config = _tiny_detector()
  assert known_data.pictures_of(config).train.num_images == 118_287
  assert len(known_data.pictures_of(config).splits.class_names) == 80
  for change in (
    {"data.data_dir": "elsewhere"},
    {"data.options.train_split": "train2017[:100]"},
    {"data.source": "tfds", "data.options.name": "voc/2012"},
  ):
    other = config.copy_and_resolve_references()
    other.update_from_flattened_dict(change)
    assert known_data.pictures_of(other) is None
  voc = load_config("detect_voc")
  voc.model.genotype = "nasnet_a"
  with pytest.raises(ValueError, match="set data_dir or path"):
    plans.make_plan(voc, jax.devices()[:1])


def test_multiply_adds_of_a_detector_are_those_of_its_parts():
  """Its backbone as a classifier, and the rest by hand."""
  config = _tiny_detector()
  config.data.sizes.buckets = ((112, 112),)  # a map of 7x7, as large as a crop
  config.detector.box_batch = 3
  plan = plans.make_plan(config, jax.devices()[:1])
  network = detect.prepare(config, known_data.pictures_of(config)).network
  shape = (112, 112, 3)
  _, whole = counting.count_module(network.body.alone(), shape)
  features, last = 512 // 8, 1024 // 8  # Howard et al. 2017, table 1
  classifier = last * 80
  proposals = 7 * 7 * (9 * features * 16 + 16 * 12 * (4 + 2))
  heads = last * (81 + 4 * 80)
  one, two = (
    counting.count_module(network, shape, detector.LAYERS, crops=n)[1]
    for n in (1, 2)
  )
  assert one == whole - classifier + proposals + heads
  assert plan.macs == one + 2 * (two - one)


@needs_libtpu
@pytest.mark.slow
def test_the_large_detector_is_lowered_for_a_slice():
  """One image of 1200x1200 on each of 16 chips, bfloat16."""
  config = load_config("detect_coco", "large_1200")
  config.update_from_flattened_dict(
    {
      "model.genotype": "nasnet_a",
      "train.dtype": "bfloat16",
      "train.batch_size": 16,
      "train.eval_batch_size": 16,
      "mesh.data": 16,
    }
  )
  plan = plans.make_plan(config, program.get_devices("v5e:4x4"))
  params = jax.tree.leaves(plan.step.arguments[0].params)
  # The released graph knows 90 classes and the background, COCO 80: for each
  # class a score and four numbers of its box, of 4,032 features and a bias.
  less = (90 - 80) * 5 * (4032 + 1)
  assert sum(math.prod(leaf.shape) for leaf in params) == 105_155_937 - less
  text = program.lower(plan.step)[0].as_text()
  assert "1x1200x1200x3" in text and "bf16" in text


# --- what does not fit -------------------------------------------------------

REFUSED = program.OutOfMemory(20e9, 16e9, "Ran out of memory")


def _fake(monkeypatch, fits):
  """job.run without a compiler: `fits(config)` decides."""
  seen = []

  def make_plan(config, devices, memory):
    del devices, memory
    seen.append(config)
    mesh = types.SimpleNamespace(size=4, shape={"arch": 1, "data": 4})
    step = types.SimpleNamespace(mesh=mesh, children=1)
    return plans.Plan("train", step, 1, 1, 1, 1.0, config, ())

  def made(plan, compiled, chip, top):
    del plan, compiled, chip, top
    return {"fits": fits(seen[-1]), "hbm": {"needed": 1.0, "chip": 2.0}}

  monkeypatch.setattr(program, "get_devices", lambda _: [None] * 4)
  monkeypatch.setattr(plans, "make_plan", make_plan)
  monkeypatch.setattr(figures, "figures", made)


def test_fit_stops_at_the_first_change_that_helps(monkeypatch):
  _fake(monkeypatch, lambda config: config.network.remat)
  config = load_config("transfer_imagenet")
  found = job.run(config, "v5e:2x2", fit=True, compile_step=lambda step: step)
  assert found["fits"]
  assert [row["changes"] for row in found["tried"]] == [
    ["--config.mesh.data=4"],
    ["--config.mesh.data=4", "--config.network.remat=True"],
  ]
  assert not config.network.remat  # the config given stays as it was


def test_a_search_that_does_not_fit_halves_its_width():
  config = tiny_search(**{"child.width": 8})
  found = list(job.changes(config, 4))
  assert found == [{"child.width": n} for n in (4, 2, 1)]


def test_micro_batches_keep_the_groups_of_batch_norm():
  config = load_config("transfer_imagenet")  # 1,600 images, groups of 32
  config.mesh.data = 4
  parts = [
    change["train.micro_batches"]
    for change in job.changes(config, 4)
    if "train.micro_batches" in change
  ]
  assert parts == [2, 5, 10, 25, 50]


@pytest.mark.parametrize(
  "text",
  [
    "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in"
    " memory space hbm. Used 31.50G of 15.75G hbm. Exceeded hbm capacity\n1.",
    "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required"
    " for HLO temporaries (31.50G) exceeds available HBM (15.75G).",
  ],
)
def test_what_the_compiler_says_of_memory_is_read(text):
  found = program._out_of_memory(text)
  assert (found.needed, found.limit) == (31.5 * 2**30, 15.75 * 2**30)
  assert program._out_of_memory("INTERNAL: something else") is None


def test_the_page_of_a_step_that_does_not_fit_says_what_was_tried():
  found = {
    "config": "c.py",
    "topology": "v5e:2x2",
    "slice_chips": 4,
    "chips": 1,
    "job": "train",
    "mesh": {"arch": 1, "data": 1},
    "lower_seconds": 30,
    "compile_seconds": 30,
    "jax": "0",
    "fits": False,
    "hbm": {"needed": 2**35, "chip": 2**34},
    "tried": [
      {
        "changes": ["--config.network.remat=True"],
        "fits": False,
        "hbm": {"needed": 2**35},
      }
    ],
  }
  text = words.page(found)
  assert "32.00 GiB of 16.00 GiB (200%): DOES NOT FIT" in text
  assert "Tried --config.network.remat=True: 32.00 GiB, does not fit" in text
  assert "3 chips stay idle" in text


# --- how figures move --------------------------------------------------------


def _figures(config, topology="v5e:2x2"):
  plan = plans.make_plan(config, program.get_devices(topology))
  compiled = program.compile_step(plan.step)
  return figures.figures(plan, compiled, chips.of(topology))


@needs_libtpu
@pytest.mark.slow
def test_figures_move_as_they_should_when_batch_features_and_width_double():
  one = _figures(tiny_search(**{"child.batch_size": 128}))
  # A batch of 64 would take the same bytes: its lanes are padded to 128.
  batch = _figures(tiny_search(**{"child.batch_size": 256}))
  assert batch["flops"] == pytest.approx(2 * one["flops"], rel=0.02)
  # More than twice: less of it finds room on the chip.
  assert 1.5 < batch["bytes"] / one["bytes"] < 3
  wide = {"child.batch_size": 128, "network.features": 8}
  features = _figures(tiny_search(**wide))
  assert 2 < features["flops"] / one["flops"] < 4
  assert features["bytes"] > one["bytes"]
  two = {"child.batch_size": 128, "child.width": 2}
  width = _figures(tiny_search(**two))
  # Of a child; `cond` of two branches runs both where it is batched.
  assert width["flops"] == pytest.approx(one["flops"], rel=0.1)
  state = width["hbm"]["arguments"] / one["hbm"]["arguments"]
  assert 1.1 < state < 2
  assert width["hbm"]["temporary"] > one["hbm"]["temporary"]


@needs_libtpu
@pytest.mark.slow
def test_flops_of_the_forward_pass_are_those_of_the_mac_counter():
  config = tiny_search()
  devices = program.get_devices("v5e:2x2")
  plan = plans.make_plan(config, devices)
  found = plans.open_search(config, devices)
  state, genotypes, _ = plan.step.arguments
  valid = found.population.slots, found.images.valid
  which = jax.ShapeDtypeStruct((valid[0],), bool)
  data = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), valid[1]
  )
  count = found.population.count_correct
  with program.quiet():
    lowered = count.lower(state, which, genotypes, population.Data(*data))
    text = lowered.compile().as_text()
  mean = {n: rows.mean(0) for n, rows in plan.step.shares.items()}
  walk = costs.Walk(
    hlo.parse(text), costs.Limits(1, 1, 1), mean, plan.step.trips
  )
  per_image = walk.total().flops / config.data.num_valid
  assert per_image == pytest.approx(2 * plan.macs, rel=0.1)


def test_a_brief_compilation_lets_the_compiler_try_less():
  seen = []

  class Lowered:
    def lower(self):
      return self

    def compile(self):
      seen.append(jax.config.jax_exec_time_optimization_effort)

  step = plans.Step(Lowered(), (), None, 1, 1, {}, 1.0)
  program.compile_step(step, brief=True)
  program.compile_step(step)
  assert seen == [-1.0, 0.0]
