"""TF-slim's own NASNet and PNASNet: names of variables, and logits.

Run by test_slim.py, and by hand, with a Python that has tensorflow, tf_keras
and tf_slim (nasnet_jax need not be there), on a checkout of tensorflow/models:

python slim_logits.py names NETS NETWORK            its variables, a line each
python slim_logits.py references NETS               slim_logits.json
python slim_logits.py logits NETS NETWORK OUT.npz   logits of `weights`
python slim_logits.py logits NETS NETWORK OUT.npz IN.npz    of these arrays

NETS is the folder research/slim of the checkout. NETWORK is a key of NETWORKS,
with fields of slim's configuration after a colon to make it small; see SMALL.
"""

import importlib
import json
import os
import sys
import types
import zlib

import numpy as np

# Module, configuration, builder, side of images, classes.
NETWORKS = {
  "nasnet_a_cifar": ("nasnet", "cifar", "nasnet_cifar", 32, 10),
  "nasnet_a_mobile": ("nasnet", "mobile_imagenet", "nasnet_mobile", 224, 1001),
  "nasnet_a_large": ("nasnet", "large_imagenet", "nasnet_large", 331, 1001),
  "pnasnet_5_mobile": (
    "pnasnet",
    "mobile_imagenet",
    "pnasnet_mobile",
    224,
    1001,
  ),
  "pnasnet_5_large": ("pnasnet", "large_imagenet", "pnasnet_large", 331, 1001),
}
_TINY = "num_cells=3,num_conv_filters=10,stem_multiplier=0.25,side=75,classes=5"
SMALL = (
  "nasnet_a_cifar:num_cells=3,num_conv_filters=4,side=16,classes=5",
  f"nasnet_a_mobile:{_TINY}",
  f"nasnet_a_large:{_TINY}",
  f"pnasnet_5_mobile:{_TINY}",
)
AVERAGE = "/ExponentialMovingAverage"


def parse(network: str):
  """(name, fields of slim's configuration, side, classes)."""
  name, _, rest = network.partition(":")
  fields = dict(field.split("=") for field in filter(None, rest.split(",")))
  fields = {k: float(v) if "." in v else int(v) for k, v in fields.items()}
  *_, side, classes = NETWORKS[name]
  side = fields.pop("side", side)
  return name, fields, side, fields.pop("classes", classes)


def weights(name: str, shape) -> np.ndarray:
  """A variable's values, from its name in the checkpoint alone.

  `RandomState`, whose numbers NumPy promises never to change.
  """
  rng = np.random.RandomState(zlib.crc32(name.encode()))
  noise = rng.standard_normal(tuple(shape))
  leaf = name.removesuffix(AVERAGE).rpartition("/")[2]
  if leaf in ("gamma", "moving_variance"):
    values = 0.5 + np.abs(noise)
  elif leaf == "depthwise_weights":
    values = noise / np.sqrt(shape[0] * shape[1])
  elif len(shape) > 1:
    values = noise / np.sqrt(np.prod(shape[:-1]))
  else:
    values = 0.3 * noise
  return values.astype(np.float32)


def images(side: int) -> np.ndarray:
  """f32[4, side, side, 3] in -1..1."""
  rng = np.random.RandomState(1)
  return rng.uniform(-1, 1, (4, side, side, 3)).astype(np.float32)


class _HParams(types.SimpleNamespace):
  """Of tf.contrib, which is no more."""

  def set_hparam(self, name, value):
    setattr(self, name, value)


def _import(nets: str):
  """(tf, slim), with nets/nasnet importable and what it wants of tf.contrib."""
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
  import tensorflow.compat.v1 as tf
  import tf_slim as slim

  # Where TensorFlow looks for them, and where tf_keras has them now.
  for part in ("base", "convolutional", "core", "normalization", "pooling"):
    sys.modules[f"tf_keras.legacy_tf_layers.{part}"] = importlib.import_module(
      f"tf_keras.src.legacy_tf_layers.{part}"
    )
  tf.disable_v2_behavior()
  tf.contrib = types.SimpleNamespace(
    framework=slim,
    layers=slim,
    slim=slim,
    training=types.SimpleNamespace(HParams=_HParams),
  )
  sys.modules["tensorflow"] = tf
  if nets not in sys.path:
    sys.path.insert(0, nets)
  return tf, slim


class Graph:
  """One of slim's networks as a graph, its variables from a dict.

  Attributes:
    lines: {variable: "file:line" of nets/nasnet that makes it}.
  """

  def __init__(self, nets: str, network: str):
    self.tf, self.slim = _import(nets)
    name, fields, self._side, self._classes = parse(network)
    module, config, builder, *_ = NETWORKS[name]
    module = importlib.import_module(f"nets.nasnet.{module}")
    self._build = getattr(module, f"build_{builder}")
    self._scope = getattr(module, f"{builder}_arg_scope")
    self._config = getattr(module, f"{config}_config")()
    # What changes logits at random is of no use here.
    fields = {**fields, "drop_path_keep_prob": 1.0}
    for field, value in {**fields, "dense_dropout_keep_prob": 1.0}.items():
      assert hasattr(self._config, field), field
      setattr(self._config, field, value)
    self.lines: dict[str, str] = {}

  def make(self, train: bool):
    """(logits, auxiliary logits or None) of `images`, in a new graph."""
    tf = self.tf
    tf.reset_default_graph()
    with (
      tf.variable_scope(tf.get_variable_scope(), custom_getter=self._note),
      self.slim.arg_scope(self._scope()),
    ):
      logits, points = self._build(
        tf.constant(images(self._side)),
        self._classes,
        is_training=train,
        config=self._config,
      )
    return logits, points.get("AuxLogits")

  def _note(self, getter, name, *args, **kwargs):
    frame = sys._getframe()
    while frame is not None:
      folder, file = os.path.split(frame.f_code.co_filename)
      if os.path.basename(folder) == "nasnet":
        self.lines.setdefault(name, f"{file}:{frame.f_lineno}")
        break
      frame = frame.f_back
    return getter(name, *args, **kwargs)

  def run(self, train: bool, arrays=None):
    """(logits, auxiliary logits or None), from the moving averages.

    Args:
      train: whether batch norm takes the batch's moments.
      arrays: {name in a checkpoint: array}; None: `weights`.
    """
    tf = self.tf
    outputs = [x for x in self.make(train) if x is not None]
    average = tf.train.ExponentialMovingAverage(0.9999)
    names = average.variables_to_restore(self.slim.get_model_variables())
    initials = {}
    for name, variable in names.items():
      shape = variable.shape.as_list()
      value = weights(name, shape) if arrays is None else arrays[name]
      initials[variable.initializer.inputs[1]] = value
    with tf.Session() as session:
      session.run(tf.global_variables_initializer(), initials)
      logits, *auxiliary = session.run(outputs)
    return logits, auxiliary[0] if auxiliary else None


def _names(nets: str, network: str):
  """Every variable that slim trains or restores, its shape and its line."""
  graph = Graph(nets, network)
  graph.make(train=True)
  for variable in graph.slim.get_model_variables():
    name = variable.op.name
    shape = ",".join(map(str, variable.shape.as_list()))
    print(name, shape, graph.lines[name])


def _references(nets: str):
  """Logits of SMALL, as JSON."""
  found = {}
  for network in SMALL:
    graph = Graph(nets, network)
    logits, _ = graph.run(train=False)
    _, auxiliary = graph.run(train=True)
    found[network] = {
      "logits": np.round(logits.astype(float), 6).tolist(),
      "auxiliary": np.round(auxiliary.astype(float), 6).tolist(),
    }
  print(json.dumps(found, indent=1))


def _logits(nets: str, network: str, out: str, given: str | None = None):
  arrays = None if given is None else dict(np.load(given))
  logits, _ = Graph(nets, network).run(False, arrays)
  np.savez(out, logits=logits)


if __name__ == "__main__":
  command, *arguments = sys.argv[1:]
  {"names": _names, "references": _references, "logits": _logits}[command](
    *arguments
  )
