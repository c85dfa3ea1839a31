"""The winner of a finished search, from `result.json` and its checkpoint."""

import dataclasses
import json
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasnet_jax import data as image_sources
from nasnet_jax import fit, spaces
from nasnet_jax.data import augment
from nasnet_jax.models import stacked
from nasnet_jax.models.layers import Numerics
from nasnet_jax.training import checkpoint, workdir

RESULT, WEIGHTS = "result.json", "final/weights"


class Winner(NamedTuple):
  """A trained network.

  Attributes:
    network: `models.stacked.StackedNetwork`.
    variables: {"params", "batch_stats"} as `network.apply` reads them.
    augmentation: how its images were whitened and varied.
    result: all of result.json.
  """

  network: stacked.StackedNetwork
  variables: dict[str, Any]
  augmentation: augment.Augmentation
  result: dict[str, Any]

  def predict(self, images) -> jax.Array:
    """f32[N, classes], logits of images uint8[N, H, W, C]."""
    whitened = augment.normalise(jnp.asarray(images), self.augmentation)
    return self.network.apply(self.variables, whitened, train=False)[0]


def load_winner(run_dir) -> Winner:
  """Rebuilds the winner of a run, wherever its folder lies now.

  Raises:
    WorkdirError: if the search is not finished.
    CheckpointError: if the weights are damaged or of another network.
  """
  folder = pathlib.Path(run_dir)
  result = read_result(folder)
  network = build(result)
  aug = result["augmentation"]
  aug = augment.Augmentation(
    **{**aug, "mean": tuple(aug["mean"]), "std": tuple(aug["std"])}
  )
  template = _template(network, result["data"]["image_shape"])
  variables = checkpoint.read(folder / WEIGHTS, template)
  return Winner(network, variables, aug, result)


def read_result(folder) -> dict[str, Any]:
  """result.json; WorkdirError if there is none."""
  path = pathlib.Path(folder) / RESULT
  if not path.exists():
    raise workdir.WorkdirError(
      f"{path} is not there: the search has not finished; the command that"
      " started it goes on with it"
    )
  return json.loads(path.read_text())


def build(result: dict[str, Any]) -> stacked.StackedNetwork:
  """The network that a result describes, without weights."""
  options = result["space_options"]
  space = spaces.get(
    result["space"], options["num_blocks"], tuple(options["operations"])
  )
  cells = stacked.as_cells(space, space.from_json(result["winner"]["genotype"]))
  return stacked.StackedNetwork(network_config(result["network"]), cells)


def network_config(fields: dict[str, Any]) -> stacked.NetworkConfig:
  """The inverse of `describe_network`."""
  numerics = Numerics(**fields["numerics"])
  return stacked.NetworkConfig(**{**fields, "numerics": numerics})


def describe_network(config: stacked.NetworkConfig) -> dict[str, Any]:
  """A NetworkConfig as JSON can hold it."""
  fields = dataclasses.asdict(config)
  fields["numerics"].pop("dtype")  # evaluation and weights are float32
  fields["numerics"].pop("bn_axis")  # of training only
  return fields


def _template(network, image_shape) -> dict[str, Any]:
  """Zeros in the shapes of the network's variables."""
  state = jax.eval_shape(
    lambda: fit.init_state(network, fit.Recipe(), tuple(image_shape), 1, 0)
  )
  return jax.tree.map(
    lambda x: np.zeros(x.shape, x.dtype), fit.variables_of(state)
  )


def test_images(result: dict[str, Any], data_dir=None) -> fit.Images:
  """The test split that a result is about, read again from its source.

  Args:
    data_dir: where the data lies now; None: where it lay then.

  Raises:
    DataError: if it cannot be read, or has changed since.
  """
  arguments = dict(result["data"]["load"])
  if data_dir is not None:
    arguments["data_dir"] = str(data_dir)
  images = image_sources.load(**arguments)
  if images.fingerprint != result["data"]["fingerprint"]:
    raise image_sources.DataError(
      f"{images.name} is not what the search saw (its fingerprint is"
      f" {images.fingerprint}, not {result['data']['fingerprint']})"
    )
  return fit.on_device(images.test_images, images.test_labels)


def evaluate(winner: Winner, images: fit.Images) -> fit.Score:
  """Answers on a test set, by the program that wrote the result."""
  size = winner.result["eval_batch_size"]
  count = fit.make_evaluate(winner.network, winner.augmentation, size)
  return count(winner.variables, images)
