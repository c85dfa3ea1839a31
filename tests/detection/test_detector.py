"""The detector: its size, its shapes, padding, chunks, losses."""

import dataclasses
import functools
import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasnet_jax import zoo
from nasnet_jax.data.augment import Augmentation
from nasnet_jax.detection import backbone as bb
from nasnet_jax.detection import detector as det
from nasnet_jax.detection import picture_stream
from nasnet_jax.detection.anchors import Anchors
from nasnet_jax.detection.inference import make_detect
from nasnet_jax.detection.loss import make_loss
from nasnet_jax.detection.targets import Truth
from nasnet_jax.models import (
  block_network,
  stacked,
  stacked_plan,
  stage_network,
)
from nasnet_jax.models.layers import Numerics
from nasnet_jax.spaces.blocks import Architecture, Group

AUG = Augmentation(mean=(0.5,), std=(0.5,))
RECIPE = SimpleNamespace(drop_path_keep=0.9, drop_path_version="constant")
# Everything that padding could leak through: strides, pools, squeeze-excite.
ROW = Architecture(
  8,
  (
    Group("mbconv", 2, 8, 5, 2, 2, 0.25),
    Group("basic", 1, 8, 3, 2),
    Group("mbconv", 1, 8, 3, 2),
  ),
  head=12,
  activation="swish",
  stem_pool=True,
)
SMALL = det.DetectorConfig(
  num_classes=3,
  anchors=Anchors((0.5, 1.0), (0.5, 1.0, 2.0), 32.0),
  rpn_features=16,
  proposals=12,
  crop_size=5,
  box_batch=8,
  rpn_batch=32,
  per_class=5,
  total=6,
)


def _row_body():
  return det.Body(block_network.BlockNetwork, block_network.BlockConfig(), ROW)


def _cells_body(name="nasnet_a", **config):
  sizes = {"num_cells": 1, "features": 4, "stem": "imagenet"} | config
  if "stem_features" not in sizes:
    sizes["stem_features"] = 8
  cells = stacked.as_cells(zoo.cells.CELLS[name][0], zoo.cells.genotype(name))
  return det.Body(
    stacked.StackedNetwork, stacked_plan.NetworkConfig(**sizes), cells
  )


def _published(name):
  if name in zoo.blocks.NETWORKS:
    arch = zoo.blocks.architecture(zoo.blocks.network(name).architecture)
    return det.Body(
      block_network.BlockNetwork, block_network.BlockConfig(), arch
    )
  entry = zoo.cells.network(name)
  return _cells_body(entry.cells, **entry.config)


def _shapes(body, config, side):
  network = det.Detector(config, body)
  images = jax.ShapeDtypeStruct((1, *side, 3), jnp.float32)
  init = functools.partial(network.init, train=True)
  return network, jax.eval_shape(init, jax.random.key(0), images)


def _size(tree) -> int:
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _truth(rows):
  """Truth of a batch: [(y1, x1, y2, x2, class), ...] for each image."""
  found = [
    picture_stream.rows_of_truth(
      np.array(one, float).reshape(-1, 5)[:, :4],
      np.array(one, float).reshape(-1, 5)[:, 4],
      np.zeros(len(one), bool),
      4,
    )
    for one in rows
  ]
  return Truth(*(np.stack(leaves) for leaves in zip(*found)))


def _images(n, side, seed=0):
  rng = np.random.default_rng(seed)
  coarse = rng.integers(0, 256, (n, side[0] // 8, side[1] // 8, 3), np.uint8)
  return coarse.repeat(8, 1).repeat(8, 2)


def test_the_large_configuration_has_the_published_parameters():
  # Sizes of the released graph: first half, proposal network, second half.
  network, variables = _shapes(
    _published("nasnet_a_large"), det.DetectorConfig(), (1200, 1200)
  )
  params = variables["params"]
  assert _size(params) == 105_155_937
  assert _size(params["rpn"]["conv"]) == 18_579_968
  assert _size(params["rpn"]) == 18_579_968 + 36_936
  assert _size(params["box_head"]["classes"]) == 367_003
  assert _size(params["box_head"]["boxes"]) == 1_451_880
  second = [k for k in params["backbone"] if k == network.cut.start]
  second += [f"cell_{i}" for i in range(12, 18)]
  assert _size([params["backbone"][k] for k in second]) == 64_618_176
  features = jax.eval_shape(
    lambda v: network.apply(
      v, jnp.zeros((1, 1200, 1200, 3)), None, method="features"
    ),
    variables,
  )
  assert features.shape == (1, 75, 75, 4032)


@pytest.mark.parametrize(
  ("name", "maps", "start"),
  [
    ("nasnet_a_mobile", ("cell_6", "cell_7"), "reduction_1"),
    ("pnasnet_5_large", ("cell_6", "cell_7"), "cell_8"),
    ("amoebanet_a_mobile", ("cell_6", "cell_7"), "reduction_1"),
    ("efficientnet_b0", ("group_4_block_2",), "group_5_block_0"),
    ("mobilenet_v1", ("group_3_block_5",), "group_4_block_0"),
  ],
)
def test_backbones_are_cut_at_stride_16(name, maps, start):
  cut = bb.halves(_published(name).alone())
  assert (cut.maps, cut.start, cut.stride) == (maps, start, 16)
  assert bb.sides(cut, (800, 1200))[-1] == (50, 75)


def test_cells_read_the_crops_of_their_own_inputs():
  """One cell per stack: what the last reduction reads has two widths."""
  body = _cells_body()
  network, variables = _shapes(body, SMALL, (64, 64))
  assert network.cut.maps == ("reduction_0", "cell_1")
  assert network.cut.width == 4 * 8
  whole = jax.eval_shape(
    body.alone().init, jax.random.key(0), jnp.zeros((1, 64, 64, 3))
  )["params"]
  del whole["classifier"]
  shapes = jax.tree.map(jnp.shape, (whole, variables["params"]["backbone"]))
  assert shapes[0] == shapes[1]


def test_the_backbone_has_the_weights_of_a_classifier():
  body = _published("efficientnet_b0")
  _, variables = _shapes(body, SMALL, (224, 160))
  whole = jax.eval_shape(
    body.alone().init, jax.random.key(0), jnp.zeros((1, 224, 224, 3))
  )["params"]
  assert whole.pop("classifier")
  shapes = jax.tree.map(jnp.shape, (whole, variables["params"]["backbone"]))
  assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
  ("body", "words"),
  [
    (_cells_body(num_reductions=0), "raise network.num_reductions"),
    (_cells_body("pnasnet_5", layout="pnas"), "raise network.num_cells"),
  ],
)
def test_networks_that_cannot_be_cut_are_told(body, words):
  with pytest.raises(ValueError, match=words):
    bb.halves(body.alone())


def test_a_network_of_stages_is_no_backbone():
  with pytest.raises(ValueError, match="StageNetwork is no backbone"):
    bb.halves(stage_network.StageNetwork(stage_network.StageConfig(), ()))


def _small(body, random_variables, config=SMALL):
  network = det.Detector(config, body)
  variables = random_variables(network, 64)
  # Proposals should differ from anchors, scores from each other.
  return network, variables


@pytest.mark.parametrize("crop", ["align", "resize"])
def test_padding_changes_no_detection(crop, random_variables):
  """Pictures of two sizes alone, and together in a larger, padded batch."""
  config = dataclasses.replace(SMALL, crop=crop)
  network, variables = _small(_row_body(), random_variables, config)
  stride = network.cut.stride
  detect = jax.jit(make_detect(network, AUG))
  sides = [(3 * stride, 5 * stride - 3), (4 * stride - 7, 3 * stride)]
  pictures = [
    _images(1, (200, 200), i)[0, :h, :w] for i, (h, w) in enumerate(sides)
  ]
  together = np.full((2, 6 * stride, 6 * stride, 3), 200, np.uint8)
  for i, picture in enumerate(pictures):
    together[i, : picture.shape[0], : picture.shape[1]] = picture
  found = detect(variables, together, jnp.array(sides))
  for i, (picture, side) in enumerate(zip(pictures, sides)):
    room = [-(-s // stride) * stride for s in side]
    alone = np.zeros((1, *room, 3), np.uint8)
    alone[0, : side[0], : side[1]] = picture
    single = detect(variables, alone, jnp.array([side]))
    assert single.valid.any()
    np.testing.assert_array_equal(single.valid[0], found.valid[i])
    np.testing.assert_array_equal(single.classes[0], found.classes[i])
    np.testing.assert_allclose(
      single.scores[0], found.scores[i], rtol=2e-3, atol=1e-5
    )
    np.testing.assert_allclose(
      single.boxes[0], found.boxes[i], rtol=2e-3, atol=0.05
    )


@pytest.mark.parametrize("cells", ["nasnet_a", "amoebanet_a"])
def test_padding_does_not_leak_through_cells(cells, random_variables):
  """Pools and factorised reductions, and convolutions that have a stride over
  the columns first and then over the rows."""
  # The stem's two reductions and one more; bottlenecks need some width.
  body = _cells_body(cells, num_reductions=1, features=16)
  network, variables = _small(body, random_variables)
  assert network.cut.stride == 8
  features_of = jax.jit(
    lambda x: network.apply(
      variables, x, jnp.array([[41, 70]]), method="features"
    )
  )
  picture = _images(1, (200, 200))[:, :41, :70] / 255 - 0.5
  maps = []
  for room in ((48, 80), (80, 96)):
    images = np.full((1, *room, 3), 0.7, np.float32)
    images[:, :41, :70] = picture
    features = features_of(images)
    assert not features[:, 6:].any() and not features[:, :, 9:].any()
    maps.append(features[:, :6, :9])
  assert maps[0].any()
  np.testing.assert_allclose(maps[0], maps[1], rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def row(random_variables):
  return _small(_row_body(), random_variables)


def test_a_full_image_needs_no_mask(row):
  network, variables = row
  full = det.Detector(dataclasses.replace(SMALL, padded=False), network.body)
  images, side = _images(2, (96, 96)), jnp.array([[96, 96]] * 2)
  masked, plain = (
    jax.jit(make_detect(n, AUG))(variables, images, side)
    for n in (network, full)
  )
  for one, other in zip(masked, plain):
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_chunks_change_nothing_but_memory(row):
  network, variables = row
  images, side = _images(2, (96, 128)), jnp.array([[96, 128], [80, 100]])
  truth = _truth([[(10, 10, 50, 60, 1)], [(5, 8, 40, 30, 2)]])
  batch = images, picture_stream.Labels(truth, side), jnp.arange(2)
  results = []
  for chunk in (0, 5):
    config = dataclasses.replace(SMALL, chunk=chunk)
    part = det.Detector(config, network.body)

    def both(variables, part=part):
      def value(params):
        stats, key = variables["batch_stats"], jax.random.key(3)
        return make_loss(part, RECIPE, AUG)(params, stats, batch, key, 0.5)

      found = make_detect(part, AUG)(variables, images, side)
      learnt = jax.value_and_grad(value, has_aux=True)(variables["params"])
      return found, learnt

    results.append(jax.jit(both)(variables))
  for one, other in zip(*map(jax.tree.leaves, results)):
    scale = 1e-6 + np.abs(one).max()
    np.testing.assert_allclose(one / scale, other / scale, atol=2e-4)


@pytest.mark.slow
def test_computing_cells_again_changes_nothing(random_variables):
  """`remat`, as the large configuration has it, with chunks and padding."""
  truth = _truth([[(5, 8, 40, 30, 2)]])
  cell = ((0, 1, "sep_conv_3x3", "max_pool_3x3", "add"),), (2,)
  results = []
  for remat in (False, True):
    body = _cells_body(num_reductions=1, remat=remat)._replace(literals=(cell,))
    config = dataclasses.replace(SMALL, chunk=5)
    network, variables = _small(body, random_variables, config)
    results.append(_step(network, variables, truth, (48, 64), inside=(41, 60)))
    text = str(
      jax.make_jaxpr(network.apply)(variables, jnp.zeros((1, 48, 64, 3)))
    )
    assert ("checkpoint" in text or "remat" in text) == remat
  for one, other in zip(*map(jax.tree.leaves, results)):
    scale = 1e-6 + np.abs(one).max()
    np.testing.assert_allclose(one / scale, other / scale, atol=2e-4)


def _step(network, variables, truth, side=(96, 128), rng=0, inside=None):
  images = _images(len(truth.valid), side)
  sides = jnp.array([inside or side] * len(images))
  batch = images, picture_stream.Labels(truth, sides), jnp.arange(len(images))
  loss_fn = make_loss(network, RECIPE, AUG)

  def value(params):
    return loss_fn(
      params, variables["batch_stats"], batch, jax.random.key(rng), 0.5
    )

  return jax.jit(jax.value_and_grad(value, has_aux=True))(variables["params"])


def test_an_image_without_boxes_trains(row):
  network, variables = row
  (loss, (stats, metrics)), grads = _step(network, variables, _truth([[]]))
  assert np.isfinite(loss) and loss > 0
  assert 0 <= metrics["accuracy"] <= 1
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
  # It teaches what is background, and no box.
  assert np.abs(grads["rpn"]["objectness"]["kernel"]).max() > 0
  assert np.abs(grads["rpn"]["boxes"]["kernel"]).max() == 0
  assert np.abs(grads["box_head"]["boxes"]["kernel"]).max() == 0
  before = variables["batch_stats"]  # frozen
  assert all(jax.tree.leaves(jax.tree.map(np.array_equal, stats, before)))


def test_every_weight_learns_where_there_is_a_box(random_variables):
  config = dataclasses.replace(
    SMALL, truth_as_proposals=True, numerics=Numerics()
  )
  network, variables = _small(_row_body(), random_variables, config)
  # Two images, or drop path might leave a block out.
  truth = _truth([[(10, 10, 50, 60, 1)], [(30, 70, 90, 120, 0)]])
  (_, (stats, _)), grads = _step(network, variables, truth)
  for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
    name = jax.tree_util.keystr(path)
    assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0, name
  moved = jax.tree.map(
    lambda a, b: bool((a != b).any()), stats, variables["batch_stats"]
  )
  assert all(jax.tree.leaves(moved))


def test_proposals_carry_no_gradient(row):
  """What is cropped moves no offset of the proposal network."""
  network, variables = row
  config = dataclasses.replace(
    SMALL, rpn_box_weight=0.0, rpn_class_weight=0.0, truth_as_proposals=True
  )
  network = det.Detector(config, network.body)
  _, grads = _step(network, variables, _truth([[(10, 10, 50, 60, 1)]]))
  assert all((leaf == 0).all() for leaf in jax.tree.leaves(grads["rpn"]))


def test_detections_lie_in_the_picture(row):
  network, variables = row
  side = jnp.array([[70, 100]])
  found = jax.jit(make_detect(network, AUG))(
    variables, _images(1, (96, 128)), side
  )
  valid = np.asarray(found.valid[0])
  boxes = np.asarray(found.boxes[0])[valid]
  assert valid.any() and (boxes >= 0).all()
  assert (boxes[:, 2:] <= [70, 100]).all()
  scores = np.asarray(found.scores[0])
  assert (np.diff(scores) <= 0).all() and (scores[valid] > 0).all()
  assert found.boxes.shape == (1, 6, 4)


@pytest.mark.parametrize(
  ("options", "words"),
  [
    ({"proposals": 0}, "detector.proposals is 0"),
    ({"final_iou": 1.5}, "detector.final_iou is 1.5"),
    ({"crop": "warp"}, "neither resize nor align"),
    ({"chunk": 4, "numerics": Numerics()}, "freeze batch norm"),
    ({"crop_pool": 9, "crop_size": 7}, "larger than crop_size"),
  ],
)
def test_numbers_that_make_no_detector_are_told(options, words):
  with pytest.raises(ValueError, match=words):
    det.DetectorConfig(**options)
