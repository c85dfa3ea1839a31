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


class Answers(NamedTuple):
  """What a network says to a batch of images, on the host.

  Attributes:
    labels: int32[N], what they are.
    said: int32[N], the likeliest class.
    share: f32[N], its probability.
    counts: bool[N]; false: no image, or a broken one.
    picture: row -> uint8[H, W, C].
  """

  labels: np.ndarray
  said: np.ndarray
  share: np.ndarray
  counts: np.ndarray
  picture: Callable[[int], np.ndarray]


def make_evaluate(
  network: nn.Module,
  aug: augment.Augmentation,
  batch_size: int,
  mesh: jax.sharding.Mesh | None = None,
  *,
  by_class: bool = False,
  watch: Callable[[Answers], None] | None = None,
) -> Callable[[Any, Data], Score]:
  """(variables, Data) -> Score over the whole set, each image once.

  A broken image of a stream counts as a wrong answer.

  Args:
    batch_size: over all devices of the mesh's axis `data`; rounded up where
      they do not divide it.
    by_class: whether the Score counts each class, too.
    watch: is told the answers to each batch, in order; with one device only. Of
      many hosts that read a stream, each is told of its own images.
  """
  devices = 1 if mesh is None else mesh.shape["data"]
  if watch is not None and devices > 1:
    raise ValueError("answers to single images are told with one device only")

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
    if watch is not None:
      return total, logits.argmax(-1), jax.nn.softmax(logits).max(-1)
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
      order = [*zip(*batches.evaluation_order(n, size))]
      found = [program_of(variables, data, *batch) for batch in order]
      if watch is not None:
        labels = np.asarray(data.labels)
        found = [
          _tell(watch, given, labels[index], counts, _pictures(data, index))
          for given, (index, counts) in zip(found, order, strict=True)
        ]
    else:
      put = data_parallel.put_rows(mesh)
      found, ahead = [], None
      for batch in data.evaluation_batches(size):
        found.append(program(variables, *map(put, batch[:3])))
        if ahead is not None:  # the host may run one batch ahead, not hundreds
          found[-2] = _take(watch, found[-2], ahead)
        ahead = batch
      if ahead is not None:
        found[-1] = _take(watch, found[-1], ahead)
    total = np.sum(jax.device_get(found), 0)
    if apart:
      total = hosts.gather(total).sum(0)
    correct, top_5, *classes = total.tolist()
    half = len(classes) // 2
    pairs = zip(classes[:half], classes[half:], strict=True)
    return Score(correct, n, top_5, tuple(pairs))

  return evaluate


def _pictures(data: Images, index: np.ndarray) -> Callable[[int], np.ndarray]:
  return lambda row: np.asarray(data.images[int(index[row])])


def _take(watch, given, batch):
  """A batch's counts, waited for, once its answers have been told."""
  if watch is None:
    return jax.block_until_ready(given)
  return _tell(
    watch, given, batch.labels, batch.counts, batch.images.__getitem__
  )


def _tell(watch, given, labels, counts, picture):
  """The counts of (counts, classes, probabilities)."""
  total, said, share = jax.device_get(given)
  watch(Answers(np.asarray(labels), said, share, np.asarray(counts), picture))
  return total
