"""How well a network answers on a set of images."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nasnet_jax.data import augment, batches
from nasnet_jax.training import data_parallel, hosts, losses
from nasnet_jax.training.datasets import Data, Images


class Score(NamedTuple):
  """How many of a set's images a network answers rightly.

  Attributes:
    correct: right answers.
    examples: images of the set.
    top_5: images whose class is among the network's first five.
    by_class: (right answers, images) of each class; () where not asked for.
  """

  correct: int
  examples: int
  top_5: int = 0
  by_class: tuple[tuple[int, int], ...] = ()

  @property
  def accuracy(self) -> float:
    return self.correct / self.examples

  @property
  def mean_per_class(self) -> float:
    """The classes' own accuracies, averaged over those that have images. A
    broken image of a stream belongs to no class."""
    shares = [right / n for right, n in self.by_class if n]
    return sum(shares) / len(shares) if shares else 0.0


def make_evaluate(
  network: nn.Module,
  aug: augment.Augmentation,
  batch_size: int,
  mesh: jax.sharding.Mesh | None = None,
  *,
  by_class: bool = False,
) -> Callable[[Any, Data], Score]:
  """(variables, Data) -> Score over the whole set, each image once.

  A broken image of a stream counts as a wrong answer.

  Args:
    batch_size: over all devices of the mesh's axis `data`; rounded up where
      they do not divide it.
    by_class: whether the Score counts each class, too.
  """
  devices = 1 if mesh is None else mesh.shape["data"]

  def count(variables, images, labels, counts):
    images = augment.normalise(images, aug)
    logits, _, _ = network.apply(variables, images, train=False)
    right = jnp.stack(
      [logits.argmax(-1) == labels, losses.in_top(logits, labels, 5)]
    )
    right = right & counts
    total = right.sum(1, dtype=jnp.int32)
    if by_class:
      zeros = jnp.zeros(logits.shape[-1], jnp.int32)
      sums = [zeros.at[labels].add(which) for which in (right[0], counts)]
      total = jnp.concatenate([total, *sums])
    return jax.lax.psum(total, "data") if devices > 1 else total

  def count_of(variables, data: Images, index, counts):
    if devices > 1:
      index, counts = data_parallel.local_part((index, counts), devices)
    return count(variables, data.images[index], data.labels[index], counts)

  if devices > 1:
    program = data_parallel.on_each_device(
      count, mesh, (data_parallel.REPLICATED, *[data_parallel.DIVIDED] * 3)
    )
    program_of = data_parallel.on_each_device(
      count_of, mesh, (data_parallel.REPLICATED,) * 4
    )
  else:
    program, program_of = count, count_of
  program, program_of = jax.jit(program), jax.jit(program_of)

  def evaluate(variables, data: Data) -> Score:
    n = data.num_images
    # Where no mesh joins the hosts, each still reads only its own rows.
    apart = devices == 1 and not isinstance(data, Images)
    parts = hosts.count() if apart else devices
    size = -(-min(batch_size, n) // parts) * parts
    if isinstance(data, Images):
      order = zip(*batches.evaluation_order(n, size))
      found = [program_of(variables, data, *batch) for batch in order]
    else:
      put = data_parallel.put_rows(mesh)
      found = []
      for batch in data.evaluation_batches(size):
        found.append(program(variables, *map(put, batch[:3])))
        if len(found) > 1:  # the host may run one batch ahead, not hundreds
          jax.block_until_ready(found[-2])
    total = np.sum(jax.device_get(found), 0)
    if apart:
      total = hosts.gather(total).sum(0)
    correct, top_5, *classes = total.tolist()
    half = len(classes) // 2
    pairs = zip(classes[:half], classes[half:], strict=True)
    return Score(correct, n, top_5, tuple(pairs))

  return evaluate
