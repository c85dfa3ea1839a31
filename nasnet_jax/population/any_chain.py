"""A chain of modules whose choices are data: the traced twin of
`ChainNetwork`. Each layer is one switch (`mixed.of_modules`)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasnet_jax.models import chain_network
from nasnet_jax.models.kernels import memory
from nasnet_jax.models.stacked import Classifier
from nasnet_jax.population import mixed
from nasnet_jax.spaces.module_chain import ChainGenotype

Array = jax.Array


class AnyChain:
  """A `ChainNetwork` of a space, for any genotype."""

  def __init__(
    self,
    config: chain_network.ChainConfig,
    space,
    image_shape: tuple[int, int, int],
  ):
    """Raises ValueError, one line, for modules of a layer that differ in their
    outputs' shapes, or that a search cannot train."""
    if config.dropout:
      raise ValueError("a child has no dropout")
    if config.numerics.bn_axis or config.numerics.bn_parts > 1:
      raise ValueError(
        "a chain's modules know nothing of other devices of a batch: set"
        " mesh.data to 1 and child.bn_group to 0"
      )
    if config.numerics.dtype != jnp.float32:
      raise ValueError(
        "a chain's modules have types of their own: set child.dtype to"
        " 'float32'"
      )
    self._config, self._layers, shape = config, [], image_shape
    for i, modules in enumerate(space.modules):
      layer = _Layer(f"layer {i} of the chain", modules, shape, config.numerics)
      self._layers.append(layer)
      shape = layer.out
    self._width = shape[-1]
    self._head = Classifier(config.numerics, config.num_classes)

  @property
  def genotype_shapes(self) -> ChainGenotype:
    """Shapes and types of one child's genotype."""
    shape = (len(self._layers),)
    return ChainGenotype(jax.ShapeDtypeStruct(shape, jnp.int32))

  def switches(self, genotype: ChainGenotype) -> dict[int, Array]:
    """{branches of a switch: int32[layers], those that the layers take}."""
    found: dict[int, list] = {}
    for i, layer in enumerate(self._layers):
      size = layer.mix.inactive + 1
      found.setdefault(size, []).append(jnp.asarray(genotype.choice)[i])
    return {size: jnp.stack(taken) for size, taken in found.items()}

  def init(self, rng: Array, genotype: ChainGenotype) -> tuple[dict, dict]:
    """(params, batch_stats) of a child."""
    head_key, *keys = jax.random.split(rng, len(self._layers) + 1)
    choice, params, stats = jnp.asarray(genotype.choice), {}, {}
    for i, (layer, key) in enumerate(zip(self._layers, keys, strict=True)):
      name = chain_network.layer_name(i)
      params[name] = mixed.init_params(
        layer.mix, self._config.numerics, choice[i], key
      )
      stats[name] = mixed.init_stats(layer.mix)
    pooled = jnp.zeros((1, self._width))
    params["classifier"] = self._head.init(head_key, pooled)["params"]
    return params, stats

  def apply(
    self,
    params: dict,
    stats: dict,
    genotype: ChainGenotype,
    images: Array,
    train: bool,
  ) -> tuple[Array, dict]:
    """(logits f32[N, classes], batch_stats) of images f32[N, H, W, C]."""
    choice, new = jnp.asarray(genotype.choice), {}
    x = images.astype(self._config.numerics.dtype)
    for i, layer in enumerate(self._layers):
      name = chain_network.layer_name(i)
      p, s = params[name], stats[name]
      if train:
        x, new[name] = layer.train(choice[i], p, s, x)
      else:
        x, new[name] = layer.evaluate(choice[i], p, s, x), s
    pooled = x.astype(jnp.float32).mean((1, 2))
    return self._head.apply({"params": params["classifier"]}, pooled), new

  def extract(self, params, stats, genotype: ChainGenotype) -> dict[str, Any]:
    """The variables of the `ChainNetwork` of this genotype."""
    found = {"params": {"classifier": params["classifier"]}, "batch_stats": {}}
    for i, layer in enumerate(self._layers):
      name = chain_network.layer_name(i)
      branch = layer.mix.branches[int(np.asarray(genotype.choice)[i])]
      for collection, layout, banks in (
        ("params", branch.params, params),
        ("batch_stats", branch.stats, stats),
      ):
        if layout:  # what is empty leaves no trace, as in Linen
          found[collection][name] = mixed.read_view(layout, banks[name])
    return found


def layer_shapes(space, image_shape) -> list[tuple[int, int, int]]:
  """(H, W, C) of what enters each layer, and of what leaves the last."""
  shapes = [tuple(image_shape)]
  for i, modules in enumerate(space.modules):
    shapes.append(_out_shape(f"layer {i} of the chain", modules, shapes[-1]))
  return shapes


class _Layer:
  """One layer, for any of its modules.

  Attributes:
    out: (H, W, C) of what leaves.
    mix: its mixed operation.
  """

  def __init__(self, where: str, modules, shape, numerics):
    """shape: (H, W, C) of what enters."""
    self.out = _out_shape(where, modules, shape)
    stride = -(-shape[0] // self.out[0])
    if tuple(-(-side // stride) for side in shape[:2]) != self.out[:2]:
      raise ValueError(
        f"{where} makes {list(self.out)} of {list(shape)}: a side stays, or is"
        " divided by a whole number and rounded up (SAME padding)"
      )
    for module in modules:
      x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
      variables = jax.eval_shape(
        lambda x, module=module: module.init(jax.random.key(0), x, False), x
      )
      mixed.check_kinds(f"{where}, {type(module).__name__},", variables)
    self.mix = mixed.of_modules(
      tuple(modules), ((shape, stride),), self.out[-1], numerics
    )
    self._bn_decay = numerics.bn_decay

    @jax.custom_vjp
    def train(*args):
      return self._run(*args)[:2]

    train.defvjp(self._forward, self._backward)
    self.train = train

  # --- branch, params, stats, x -> y, stats ----------------------------------

  def _run(self, branch, params, stats, x):
    y, moments = self.mix.forward(branch, _as_states(x), params)
    new = mixed.running_stats(self.mix, self._bn_decay, branch, stats, moments)
    return memory.materialise(y), new, moments

  def _forward(self, branch, params, stats, x):
    y, new, moments = self._run(branch, params, stats, x)
    return (y, new), (branch, params, x, moments)

  def _backward(self, saved, cotangents):
    branch, params, x, moments = saved
    states = (*_as_states(x), *_as_states(memory.materialise(cotangents[0])))
    (backward,) = self.mix.backward
    dx, dparams = backward(branch, states, params, moments, None)
    return None, dparams, None, dx

  def evaluate(self, branch, params, stats, x):
    """y, with the running statistics."""
    return self.mix.evaluate(branch, _as_states(x), params, stats)


def _as_states(x: Array):
  """What `switches.unbatched` takes for a single state."""
  return ((x[None], jnp.int32(0)),)


def _out_shape(where: str, modules, shape) -> tuple[int, int, int]:
  """(H, W, C) that all modules make of (H, W, C).

  Raises:
    ValueError: one line, if they differ, or one fails.
  """
  found = {}
  for module in modules:
    name = type(module).__name__
    x = jax.ShapeDtypeStruct((2, *shape), jnp.float32)

    def run(x, module=module):
      return module.init_with_output(jax.random.key(0), x, False)[0]

    try:
      y = jax.eval_shape(run, x)
    except Exception as error:  # whatever a user's module raises
      words = " ".join(str(error).split())[:200]
      raise ValueError(
        f"{where}: {name} fails on {list(shape)}: {type(error).__name__}:"
        f" {words}"
      ) from error
    if len(y.shape) != 4 or y.dtype != jnp.float32:
      raise ValueError(
        f"{where}: {name} makes {y.dtype}{list(y.shape)} of {list(x.shape)}: it"
        " has to be float32[N, H, W, C]"
      )
    found[name] = y.shape[1:]
    first = next(iter(found))
    if found[name] != found[first]:
      raise ValueError(
        f"{where}: {first} makes {list(found[first])} and {name}"
        f" {list(found[name])} of {list(shape)}: all have to make the same"
      )
  return tuple(y.shape[1:])
