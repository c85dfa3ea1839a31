"""Networks by name, with or without trained weights, and those of runs."""

import dataclasses
import difflib
import fnmatch
import functools
import logging
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from nasnet_jax import zoo
from nasnet_jax.data import arrays, augment
from nasnet_jax.export import named_weights
from nasnet_jax.jobs import published, results
from nasnet_jax.models import families, feature_maps
from nasnet_jax.training import fit
from nasnet_jax.training.checkpoint import CheckpointError

_log = logging.getLogger(__name__)


class Model(results.Trained):
  """A network with its weights; everything that takes a `results.Trained`
  takes it.

  Pixels go in as they are, uint8[N, H, W, C], of any side that the network can
  halve often enough; `module.apply(variables, x)` takes whitened ones.
  """

  __slots__ = ()

  @property
  def module(self) -> nn.Module:
    """The Flax module."""
    return self.network

  @property
  def num_classes(self) -> int:
    """Outputs of the classifier."""
    return self.network.config.num_classes

  @property
  def classes(self) -> list[str]:
    """Their names."""
    return self.result["data"]["classes"]

  @property
  def feature_info(self) -> list[dict[str, Any]]:
    """Of each map of `features`: its name among the module's endpoints, its
    stride in pixels and its channels."""
    return [one._asdict() for one in feature_maps.of(self.network)]

  def preprocess(self, images) -> jax.Array:
    """float32[N, H, W, C], what the network reads, of uint8[N, H, W, C].

    Raises:
      ValueError: for other arrays.
    """
    found = jnp.asarray(images)
    if found.dtype != jnp.uint8 or found.ndim != 4:
      raise ValueError(
        f"images are {found.dtype}{list(found.shape)}: give pixels as"
        " uint8[N, H, W, C], or whitened ones to module.apply(variables, x)"
      )
    arrays.check_fit("images", found.shape, self.result["data"])
    return augment.normalise(found, self.augmentation)

  def predict(self, images) -> jax.Array:
    """f32[N, classes], logits of images uint8[N, H, W, C]."""
    return _logits(self.network, self.variables, self.preprocess(images))

  def pooled(self, images) -> jax.Array:
    """f32[N, C], what the classifier reads, of images uint8[N, H, W, C]."""
    return _pooled(self.network, self.variables, self.preprocess(images))

  def features(self, images) -> list[jax.Array]:
    """The maps [N, h, w, C] of `feature_info`, of images uint8[N, H, W, C].

    As the blocks or cells give them: a cell's output comes before the ReLU
    with which those that read it begin.
    """
    return _features(self.network, self.variables, self.preprocess(images))

  def save(self, folder):
    """Writes it as a finished run's folder, which `load`, fine-tuning,
    `export` and `predict` take.

    Raises:
      ValueError: if the folder has a run.
    """
    results.write(folder, self.variables, self.network, self.result)

  def __repr__(self) -> str:
    data = self.result["data"]
    return (
      f"{type(self).__name__}({data['name']}, {self.network.config.summary},"
      f" {self.num_classes} classes, images {data['image_shape']})"
    )


class Backbone(Model):
  """A network that is asked for what its classifier would read."""

  __slots__ = ()

  def predict(self, images) -> jax.Array:
    """f32[N, C], pooled features of images uint8[N, H, W, C]."""
    return self.pooled(images)


@functools.partial(jax.jit, static_argnums=0)
def _logits(network, variables, images):
  return network.apply(variables, images, train=False)[0]


@functools.partial(jax.jit, static_argnums=0)
def _pooled(network, variables, images):
  return network.apply(variables, images, train=False)[2]["pooled"]


@functools.partial(jax.jit, static_argnums=0)
def _features(network, variables, images):
  endpoints = network.apply(variables, images, train=False)[2]
  return feature_maps.read(feature_maps.of(network), endpoints)


def list_models(pattern: str = "*") -> list[str]:
  """Names of published networks, sorted.

  Args:
    pattern: such as "*nasnet*"; `fnmatch` says what stands for what.

  >>> list_models("efficientnet_lite[01]")
  ['efficientnet_lite0', 'efficientnet_lite1']
  """
  names = sorted({*zoo.cells.NETWORKS, *zoo.blocks.NETWORKS})
  return fnmatch.filter(names, pattern)


def load(folder) -> Model:
  """The trained network of a run, of a search as of a training.

  Raises:
    WorkdirError, CheckpointError: as `results.load`.
  """
  return Model(*results.load(folder))


def create_model(
  name: str,
  num_classes: int | None = None,
  weights: Any = None,
  *,
  seed: int = 0,
  augmentation: augment.Augmentation | None = None,
  class_names=None,
  **sizes,
) -> Model:
  """A published network.

  Args:
    name: one of `list_models()`.
    num_classes: outputs. If the weights know another number of classes, the
      head is new and a line says so. 0: `predict` gives pooled features; the
      module keeps its head. None: as many as the weights know, or as were
      published.
    weights: "keras" or "timm", through that package, which downloads them;
      "timm:NAME" for another of timm's sets of weights; "hub:OWNER/NAME", of
      Hugging Face's hub; a file or an exported folder, see
      `named_weights.read`; the folder of a run; None: random ones.
    seed: of what is random.
    augmentation: its mean and std whiten the images; None: as the weights were
      trained.
    class_names: in the order of the logits; None: as the weights say, or
      ImageNet's.
    **sizes: fields of NetworkConfig or BlockConfig in place of the published
      ones, such as `dropout`.

  Raises:
    ValueError: one line: an unknown name or size, weights of another network.
    CheckpointError: weights that are damaged, cannot be had or do not fit.

  >>> net = create_model("mobilenet_v1", 5, width=0.1, depth=0.1)
  >>> net
  Model(mobilenet_v1, width 0.1, depth 0.1, 5 classes, images [224, 224, 3])
  >>> [(one["stride"], one["channels"]) for one in net.feature_info]
  [(4, 16), (8, 24), (16, 48), (32, 104)]
  """
  _check(name, num_classes, sizes)
  wanted = num_classes or None
  if weights is None:
    model = _random(name, wanted, seed, augmentation, sizes)
  else:
    model = Model(*named_weights.read(name, weights, augmentation, **sizes))
  no_head = model.result.pop(named_weights.NO_HEAD, False)
  if no_head and num_classes is None:
    raise CheckpointError(
      f"{weights} has no classifier: give num_classes= for a new one, or"
      " num_classes=0 for pooled features"
    )
  if no_head and wanted:
    model = _new_head(model, wanted, seed, "have no classifier")
  elif wanted not in (None, model.num_classes):
    model = _new_head(model, wanted, seed)
  if class_names is not None:
    model = _named(model, class_names)
  return Backbone(*model) if num_classes == 0 else model


def _check(name: str, num_classes: int | None, sizes: dict[str, Any]):
  """Raises ValueError for what is no network or no size of one."""
  names = list_models()
  if name not in names:
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(
      f"no network is called {name!r}; {hint}list_models() has all names"
    )
  if num_classes is not None and num_classes < 0:
    raise ValueError(
      f"num_classes is {num_classes}: give 1 or more, or 0 for features"
    )
  space, _ = results.find_cells(results.cells_of(name))
  fields = [f.name for f in dataclasses.fields(families.of(space).config)]
  for size in sizes:
    if size not in fields:
      near = difflib.get_close_matches(size, fields, n=1)
      hint = f"did you mean {near[0]!r}? " if near else ""
      raise ValueError(
        f"{name} has no {size!r}; {hint}it has {', '.join(fields)}"
      )


def _random(name, num_classes, seed, augmentation, sizes) -> Model:
  fields = {"num_classes": num_classes} if num_classes else {}
  network = named_weights.network(name, **fields, **sizes)
  prepared = {"augmentation": augmentation or _whitening(name)}
  side = published.of(name, **prepared).side
  variables = fit.init_variables(network, (side, side, 3), seed)
  source = f"random, seed {seed}"
  found = named_weights.trained(name, network, variables, source, prepared)
  return Model(*found)


def _whitening(name: str) -> augment.Augmentation:
  """That of the released weights; pixels from -1 to 1 if there are none."""
  try:
    return published.of(name).augmentation
  except ValueError:
    _log.warning(
      "no weights of %s were released, so nothing says how its pictures are"
      " whitened: they go from -1 to 1; augmentation= takes another mean and"
      " std",
      name,
    )
    return augment.PHOTOGRAPHS


def _new_head(
  model: Model, num_classes: int, seed: int, why: str = ""
) -> Model:
  """The same network with another, random classifier."""
  _log.warning(
    "the weights (%s) %s: the head of %d is new, at random",
    model.result.get("source", model.folder),
    why or f"know {model.num_classes} classes",
    num_classes,
  )
  config = dataclasses.replace(model.network.config, num_classes=num_classes)
  network = model.network.clone(config=config)
  data = model.result["data"]
  initial = fit.init_variables(network, data["image_shape"], seed)
  variables = results.transfer(model, keep_head=False)(initial)
  result = {**model.result, "network": results.describe_network(config)}
  result["data"] = {**data, "classes": [str(i) for i in range(num_classes)]}
  return model._replace(network=network, variables=variables, result=result)


def _named(model: Model, class_names) -> Model:
  """The same network with other names of classes."""
  if len(class_names) != model.num_classes:
    raise ValueError(
      f"{len(class_names)} class_names are given for {model.num_classes}"
      " classes"
    )
  data = {**model.result["data"], "classes": list(class_names)}
  return model._replace(result={**model.result, "data": data})
