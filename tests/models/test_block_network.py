"""Networks of blocks: exact sizes, wiring, stochastic depth."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasnet_jax import zoo
from nasnet_jax.costs import counting
from nasnet_jax.models import block_network, families
from nasnet_jax.models import drop_path as dp
from nasnet_jax.models.layers import Numerics
from nasnet_jax.spaces.blocks import BLOCKS, Architecture, Group

# MACs in millions, of convolutions and dense layers: counted layer by layer
# from tensorflow/tpu's code for EfficientNet and MnasNet; torchvision's and
# imgclsmob's counts for ResNet, MobileNetV2 and MobileNetV1 to two digits.
MACS = {
  "efficientnet_b0": 385.8,
  "efficientnet_b1": 686.8,
  "efficientnet_b2": 993.6,
  "efficientnet_b3": 1_827.1,
  "efficientnet_b4": 4_393.8,
  "efficientnet_b5": 10_266.4,
  "efficientnet_b6": 19_067.6,
  "efficientnet_b7": 37_745.9,
  "efficientnet_b8": 62_597.5,
  "efficientnet_l2": 475_703.7,
  "efficientnet_lite0": 385.2,
  "efficientnet_lite1": 600.2,
  "efficientnet_lite2": 859.7,
  "efficientnet_lite3": 1_383.3,
  "efficientnet_lite4": 2_553.0,
  "mnasnet_a1": 311.6,
  "mnasnet_b1": 314.4,
  "mnasnet_small": 68.3,
  "mobilenet_v1": 568.7,
  "mobilenet_v2": 300.8,
  "resnet_18": 1_814.1,
  "resnet_34": 3_663.8,
  "resnet_50": 4_089.2,
  "resnet_101": 7_801.4,
  "resnet_152": 11_513.6,
  "resnet_200": 15_007.5,
  "se_resnet_50": 4_091.7,
  "se_resnet_101": 7_806.1,
  "se_resnet_152": 11_520.2,
}


def network_of(name: str, **fields) -> block_network.BlockNetwork:
  entry = zoo.blocks.network(name)
  config = block_network.BlockConfig(**{**entry.config, **fields})
  literal = zoo.blocks.architecture(entry.architecture)
  return block_network.BlockNetwork(config, literal)


# Traced in five to ten seconds each.
LARGE = {f"efficientnet_{n}" for n in ("b5", "b6", "b8", "l2")} | {
  "resnet_200",
  "se_resnet_152",
}


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=[pytest.mark.slow] * (name in LARGE))
    for name in zoo.blocks.NETWORKS
  ],
)
def test_every_network_has_exactly_its_size(name):
  entry = zoo.blocks.network(name)
  shape = (entry.side, entry.side, 3)
  params, macs = counting.count_module(network_of(name), shape)
  assert params == entry.params
  assert round(macs / 1e6, 1) == MACS[name]
  agree = True
  for ours, printed in ((params, entry.paper_params), (macs, entry.paper_macs)):
    agree &= printed is None or abs(ours / 1e6 / printed - 1) < 0.03
  assert agree == (name not in zoo.blocks.DISAGREEMENTS)


# Channels and layers after rounding, stage by stage: Tan & Le's code,
# efficientnet_builder.py.
STAGES = {
  "b1": "16x2 24x3 40x3 80x4 112x4 192x5 320x2",
  "b2": "16x2 24x3 48x3 88x4 120x4 208x5 352x2",
  "b3": "24x2 32x3 48x3 96x5 136x5 232x6 384x2",
  "b4": "24x2 32x4 56x4 112x6 160x6 272x8 448x2",
  "b5": "24x3 40x5 64x5 128x7 176x7 304x9 512x3",
  "b6": "32x3 40x6 72x6 144x8 200x8 344x11 576x3",
  "b7": "32x4 48x7 80x7 160x10 224x10 384x13 640x4",
}
# (stem, head, blocks) of B0 to L2, from the same.
ENDS = {
  "b0": (32, 1280, 16),
  "b1": (32, 1280, 23),
  "b2": (32, 1408, 23),
  "b3": (40, 1536, 26),
  "b4": (48, 1792, 32),
  "b5": (48, 2048, 39),
  "b6": (56, 2304, 45),
  "b7": (64, 2560, 55),
  "b8": (72, 2816, 61),
  "l2": (136, 5504, 88),
}


@pytest.mark.parametrize("name", ENDS)
def test_efficientnets_are_rounded_as_in_their_code(name):
  entry = zoo.blocks.network(f"efficientnet_{name}")
  arch = zoo.blocks.architecture(entry.architecture)
  planned = block_network.plan(arch, entry.width, entry.depth)
  ends = (
    block_network.stem_features(arch, entry.width),
    block_network.head_features(arch, entry.width),
    len(planned),
  )
  assert ends == ENDS[name]
  if name in STAGES:
    stages = [[b for b in planned if b.group is g] for g in arch.groups]
    text = " ".join(f"{s[0].features}x{len(s)}" for s in stages)
    assert text == STAGES[name]


def test_small_images_have_networks_of_their_own():
  # He et al. 2016, section 4.2: 0.27M; 1x1 shortcuts add 2,752.
  for name, params in (("resnet_20", 272_474), ("mobilenet_v2_cifar", None)):
    literal = zoo.blocks.architecture(name)
    network = block_network.BlockNetwork(
      block_network.BlockConfig(num_classes=10), literal
    )
    found, _ = counting.count_module(network, (32, 32, 3))
    assert params is None or found == params
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    out, _ = jax.eval_shape(network.init_with_output, jax.random.key(0), image)
    last = [x for key, x in out[2].items() if key.startswith("group")][-1]
    assert last.shape[1] == {"resnet_20": 8}.get(name, 4)


def test_lite_keeps_stem_head_and_the_depth_of_its_ends():
  arch = zoo.blocks.architecture("efficientnet_lite")
  assert block_network.stem_features(arch, 1.4) == 32
  assert block_network.head_features(arch, 1.4) == 1280
  planned = block_network.plan(arch, 1.4, 1.8)
  counts = [sum(b.group is g for b in planned) for g in arch.groups]
  assert counts == [1, 4, 4, 6, 6, 8, 1]


# A second implementation: NumPy, float64, loops over the kernel.


def _same(x, kernel, stride, value=0.0):
  """Windows [N, h, w, k, k, C] of a SAME convolution."""
  pads, outs = [], []
  for size in x.shape[1:3]:
    out = -(-size // stride)
    total = max((out - 1) * stride + kernel - size, 0)
    pads.append((total // 2, total - total // 2))
    outs.append(out)
  xp = np.pad(x, ((0, 0), *pads, (0, 0)), constant_values=value)
  view = np.lib.stride_tricks.sliding_window_view(xp, (kernel, kernel), (1, 2))
  view = view[:, ::stride, ::stride][:, : outs[0], : outs[1]]
  return view.transpose(0, 1, 2, 4, 5, 3)


ACTS = {
  "relu": lambda x: np.maximum(x, 0),
  "relu6": lambda x: np.clip(x, 0, 6),
  "swish": lambda x: x / (1 + np.exp(-x)),
}


class Reference:
  """A whole network from its variables. masks: of the branch of each block."""

  def __init__(self, network, variables, masks=None):
    self.params = variables["params"]
    self.stats = variables["batch_stats"]
    self.network, self.masks = network, masks
    self.act = ACTS[network.architecture.activation]

  def norm(self, x, *path):
    params, stats = self.params, self.stats
    for key in path:
      params, stats = params[key], stats[key]
    epsilon = self.network.config.numerics.bn_epsilon
    inverse = 1 / np.sqrt(np.float64(stats["var"]) + epsilon)
    return (x - stats["mean"]) * inverse * params["scale"] + params["bias"]

  def conv(self, x, kernel, stride=1):
    kernel = np.asarray(kernel, np.float64)
    if kernel.ndim == 2:
      return x[:, ::stride, ::stride] @ kernel
    windows = _same(x, kernel.shape[0], stride)
    if kernel.ndim == 3:
      return np.einsum("nhwijc,ijc->nhwc", windows, kernel)
    return np.einsum("nhwijc,ijcf->nhwf", windows, kernel)

  def squeeze(self, x, name):
    p = self.params[name]["squeeze_excite"]
    mean = x.mean((1, 2))
    hidden = mean @ p["reduce"]["kernel"] + p["reduce"]["bias"]
    logits = self.act(hidden) @ p["expand"]["kernel"] + p["expand"]["bias"]
    return x / (1 + np.exp(-logits))[:, None, None]

  def block(self, x, plan):
    p, group, entering = self.params[plan.name], plan.group, x
    strided = plan.stride > 1 or x.shape[-1] != plan.features
    mask = 1.0
    if self.masks is not None:
      mask = self.masks[plan.index][:, None, None, None]

    def layer(x, name, number, stride=1):
      y = self.conv(x, p[name]["kernel"], stride)
      return self.norm(y, plan.name, f"norm_{number}")

    if group.kind == "mbconv":
      if "expand" in p:
        x = self.act(layer(x, "expand", 0))
      x = self.act(layer(x, "depthwise", 1, plan.stride))
      if group.squeeze:
        x = self.squeeze(x, plan.name)
      x = layer(x, "project", 2)
      return entering + x * mask if group.skip and not strided else x
    if group.kind == "separable":
      x = self.act(layer(x, "depthwise", 0, plan.stride))
      return self.act(layer(x, "pointwise", 1))
    count = 2 if group.kind == "basic" else 3
    at = count - 2  # the layer that strides
    for i in range(count):
      x = layer(x, f"conv_{i}", i, plan.stride if i == at else 1)
      x = self.act(x) if i < count - 1 else x
    if group.squeeze:
      x = self.squeeze(x, plan.name)
    if strided:
      entering = layer(entering, "shortcut", count, plan.stride)
    return self.act(entering + x * mask)

  def __call__(self, images):
    arch, config = self.network.architecture, self.network.config
    x = images.astype(np.float64)
    x = self.conv(x, self.params["stem_conv"]["kernel"], arch.stem_stride)
    x = self.act(self.norm(x, "stem_norm"))
    if arch.stem_pool:
      x = _same(x, 3, 2, -np.inf).max((3, 4))
    for plan in block_network.plan(arch, config.width, config.depth):
      x = self.block(x, plan)
    if arch.head:
      x = self.conv(x, self.params["head_conv"]["kernel"])
      x = self.act(self.norm(x, "head_norm"))
    p = self.params["classifier"]
    return x.mean((1, 2)) @ p["kernel"] + p["bias"]


def small(kind="mbconv", **fields) -> block_network.BlockNetwork:
  """Three groups of each kind, few channels."""
  squeeze = fields.pop("squeeze", 0.25)
  expansion = 2 if kind in ("mbconv", "bottleneck") else 1
  first = 1 if kind == "mbconv" else expansion
  more = {name: fields.pop(name) for name in ("activation",) if name in fields}
  arch = Architecture(
    stem=8,
    groups=(
      Group(kind, 2, 8, 3, 1, first, squeeze),
      Group(kind, 2, 12, 5, 2, expansion, squeeze),
      Group(kind, 1, 16, 3, 2, expansion, 0.0, skip=False),
    ),
    head=0 if kind in ("basic", "bottleneck") else 24,
    stem_kernel=7 if kind == "basic" else 3,
    stem_pool=kind == "basic",
    **more,
  )
  config = block_network.BlockConfig(num_classes=5, **fields)
  return block_network.BlockNetwork(config, arch)


IMAGES = np.random.default_rng(1).normal(size=(3, 27, 22, 3))
IMAGES = IMAGES.astype(np.float32)
CASES = [
  ("mbconv", "swish", 0.25),
  ("mbconv", "relu6", 0.0),
  ("separable", "relu6", 0.0),
  ("basic", "relu", 0.0),
  ("bottleneck", "relu", 0.5),
]


@pytest.mark.parametrize(("kind", "activation", "squeeze"), CASES)
def test_logits_are_those_of_a_second_implementation(
  kind, activation, squeeze, random_variables
):
  network = small(kind, activation=activation, squeeze=squeeze)
  variables = random_variables(network, 16)
  logits, auxiliary, endpoints = jax.jit(network.apply)(variables, IMAGES)
  wanted = Reference(network, variables)(IMAGES)
  np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-4)
  assert auxiliary is None
  names = {"stem", "group_0_block_1", "group_2_block_0", "pooled"}
  assert names <= set(endpoints)
  assert endpoints["pooled"].shape == (3, 24 if "head" in endpoints else 16)


@pytest.mark.parametrize("side", [1, 2, 33])
def test_images_may_have_any_side(side, random_variables):
  network = small()
  variables = random_variables(network, 16)
  images = IMAGES[:, :1, :1].repeat(side, 1).repeat(side, 2)
  assert jax.jit(network.apply)(variables, images)[0].shape == (3, 5)


@pytest.mark.parametrize("kind", ["mbconv", "basic"])
def test_a_dropped_block_is_its_shortcut(kind, random_variables):
  network = small(kind, numerics=Numerics(bn_decay=0.0, bn_epsilon=1e-3))
  variables = random_variables(network, 16)
  keep = jnp.array([1.0, 0.5, 0.5, 0.5, 1.0])
  drop = dp.DropPath(jax.random.key(3), keep)
  masks = [np.ravel(dp.edge_mask(drop, i, 0, 3)) for i in range(5)]
  assert len({*masks[1].tolist(), *masks[3].tolist()}) == 2  # some of each
  run = jax.jit(
    lambda v: network.apply(v, IMAGES, True, drop, mutable=["batch_stats"])
  )
  (logits, _, _), update = run(variables)
  # With a decay of 0 the statistics are those that this batch was given.
  variables = {**variables, **jax.device_get(update)}
  wanted = Reference(network, variables, masks)(IMAGES)
  np.testing.assert_allclose(logits, wanted, rtol=1e-3, atol=1e-3)


def test_survival_falls_with_depth_as_in_efficientnets_code():
  # tensorflow/tpu, efficientnet_model.py: 1 - (1 - 0.8) * i / n.
  keep = dp.keep_probs(0.8, jnp.float32(0.1), 16, "depth")
  np.testing.assert_allclose(keep, 1 - 0.2 * np.arange(16) / 16, rtol=1e-6)


def test_blocks_computed_again_give_the_same_gradients(random_variables):
  drop = dp.DropPath(jax.random.key(0), jnp.full(5, 0.7))

  @functools.partial(jax.jit, static_argnums=0)
  def gradients(network, params, rest):
    def loss(params):
      out, _ = network.apply(
        {"params": params, **rest}, IMAGES, True, drop, mutable=["batch_stats"]
      )
      return (out[0] ** 2).sum()

    return jax.grad(loss)(params)

  variables = random_variables(small(), 16)
  params = variables.pop("params")
  plain = gradients(small(), params, variables)
  again = gradients(small(remat=True), params, variables)
  for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(again), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(a).max())


def test_blocks_run_from_any_to_any(random_variables):
  network = small()
  variables = random_variables(network, 16)
  names = [b.name for b in block_network.plan(network.architecture)]

  @jax.jit
  def run(variables):
    _, _, whole = network.apply(variables, IMAGES)
    none, _, first = network.apply(variables, IMAGES, stop=names[0])
    assert none is None and list(first) == ["stem", names[0]]
    rest = network.apply(
      variables, first[names[0]], start=names[1], stop="last"
    )
    return whole, rest[2]

  whole, rest = run(variables)
  np.testing.assert_allclose(rest["last"], whole["last"], rtol=1e-5, atol=1e-5)
  assert "pooled" not in rest
  with pytest.raises(ValueError, match="is no block of"):
    network.apply(variables, IMAGES, start="last")
  with pytest.raises(ValueError, match="comes before"):
    network.apply(variables, IMAGES, start=names[1], stop=names[0])


def test_dropout_goes_by_places_in_the_whole_batch(random_variables):
  network = small(dropout=0.5)
  variables = random_variables(network, 16)

  @jax.jit
  def run(images, positions):
    rngs = {"dropout": jax.random.key(0)}
    options = {"positions": positions, "mutable": ["batch_stats"], "rngs": rngs}
    return network.apply(variables, images, train=True, **options)[0][0]

  images = np.repeat(IMAGES[:1], 4, 0)  # alike, so statistics are too
  whole = run(images, jnp.arange(4))
  part = run(images[:2], jnp.array([2, 3]))
  np.testing.assert_allclose(part, whole[2:], rtol=1e-4, atol=1e-5)
  assert np.abs(whole[0] - whole[1]).max() > 1e-3


def test_bfloat16_reaches_every_endpoint_but_the_pooled(random_variables):
  numerics = dataclasses.replace(block_network.EFFICIENTNET, dtype=jnp.bfloat16)
  network = small(numerics=numerics)
  variables = random_variables(network, 16)
  logits, _, endpoints = jax.eval_shape(network.apply, variables, IMAGES)
  assert logits.dtype == endpoints.pop("pooled").dtype == jnp.float32
  assert {x.dtype for x in endpoints.values()} == {jnp.dtype(jnp.bfloat16)}


def test_the_family_of_blocks_builds_an_architecture():
  arch = zoo.blocks.architecture("mnasnet_b1")
  config = block_network.BlockConfig(depth=1.5)
  network = families.network(BLOCKS, arch, config)
  assert network.num_layers == len(block_network.plan(arch, 1.0, 1.5)) == 28


@pytest.mark.parametrize(
  ("fields", "words"),
  [
    ({"width": 0}, "network.width is 0: give a number above 0"),
    ({"depth": -1.0}, "network.depth is -1"),
    ({"dropout": 1.0}, "network.dropout is 1.0: give 0 or more, below 1"),
    ({"num_classes": 0}, "network.num_classes is 0: give 1 or more"),
  ],
)
def test_a_bad_size_gets_one_clear_line(fields, words):
  with pytest.raises(ValueError, match=words):
    block_network.BlockConfig(**fields)
