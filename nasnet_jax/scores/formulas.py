"""Scores without training: numbers of a network with its initial weights.

They follow Abdelfattah et al. 2021 (arXiv 2101.08134) and the code that came
with it, mohsaied/zero-cost-nas; what is said of that code is from memory:

- "grad_norm": the sum over layers of the Euclidean norm of the gradient of the
  layer's kernel.
- "snip": the sum of abs(weight x gradient) (Lee et al. 2019).
- "synflow": the sum of weight x gradient of R, where R is the sum of the logits
  of an image of ones, all weights are their absolute values, and there is no
  batch norm (Tanaka et al. 2020). Ours is its natural logarithm, which ranks
  alike: the sum itself leaves float32 in a network of forty layers.
- "jacob_cov": of the gradients of the summed logits by each image, flattened,
  the correlations between images; with their eigenvalues v it is the sum of
  -(log(v + k) + 1 / (v + k)), k = 1e-5. It is the first version of Mellor et
  al. 2021 (arXiv 2006.04647v1).
- "naswot": the logarithm of the determinant of a matrix that has, for each pair
  of images, how many ReLU units are on for both, or off for both. It is what
  Mellor et al. 2021 (arXiv 2006.04647) came to.

Weights are kernels only, as there: no scale or offset of a batch norm, and no
bias. Gradients are those of the mean cross-entropy of one batch, where batch
norms take the batch's own statistics. More is better in all of them.

Each has two halves: `measure`, on the device, and `finish`, on the host, which
needs float64 for what is close to singular.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nasnet_jax.scores import relus

Array = jax.Array

_OF_GRADIENTS = ("grad_norm", "snip")
NAMES = (*_OF_GRADIENTS, "synflow", "jacob_cov", "naswot")
# Small enough for gains of 1e68, so large that a gain of 1e-8 is not 0.
_FAINT = 1e-30
_JACOB_COV_K = 1e-5


def sum_of_norms(tree: Any) -> Array:
  """f32[]: of the kernels in a tree of which each belongs to one layer."""
  return sum(jnp.sqrt((leaf * leaf).sum()) for leaf in kernels(tree))


class Model(NamedTuple):
  """A network with its initial weights.

  Attributes:
    params: pytree of dictionaries; the name of a kernel is "kernel".
    apply: (params, images f32[N, H, W, C]) -> logits f32[N, K], where batch
      norms take the batch's own statistics.
    apply_plain: the same without batch norms.
    sum_of_norms: (tree like params) -> f32[], the sum over layers of the norm
      of the layer's kernel.
    agreement: (params, images) -> f32[N, N], see `relus`; None: as `apply` has
      ReLUs.
  """

  params: Any
  apply: Callable
  apply_plain: Callable
  sum_of_norms: Callable = sum_of_norms
  agreement: Callable | None = None


def kernels(tree: Any) -> list[Array]:
  """The leaves that are called "kernel"."""
  found = jax.tree_util.tree_flatten_with_path(tree)[0]
  return [leaf for path, leaf in found if _name(path) == "kernel"]


def _name(path) -> str:
  """Of a leaf; a tuple's number is not one."""
  return [key.key for key in path if hasattr(key, "key")][-1]


def measure(
  names: Sequence[str], model: Model, images: Array, labels: Array
) -> dict[str, Array]:
  """What `finish` takes, of each score: a number or a matrix [N, N].

  Args:
    names: of NAMES.
    model: the network.
    images: f32[N, H, W, C], as the network reads them.
    labels: int32[N].
  """
  found = {}
  of_loss, of_images = _gradients(names, model, images, labels)
  if of_loss is not None:
    found["grad_norm"] = model.sum_of_norms(of_loss)
    found["snip"] = _sum_of_products(model.params, of_loss, jnp.abs)
  if of_images is not None:
    found["jacob_cov"] = _correlations(of_images)
  if "synflow" in names:
    found["synflow"] = _log_flow(model, images.shape[1:])
  if "naswot" in names:
    agreement = model.agreement or relus.agreement(model.apply, len(images))
    found["naswot"] = agreement(model.params, images)
  return {name: found[name] for name in names}


def finish(measured: Mapping[str, Any]) -> dict[str, float | None]:
  """Scores of one network, out of what `measure` gave; None: not finite."""
  found = {}
  for name, value in measured.items():
    value = np.asarray(value, np.float64)
    number = _OF_MATRICES.get(name, float)(value)
    found[name] = number if np.isfinite(number) else None
  return found


def _gradients(names, model: Model, images, labels):
  """(gradients of the loss by the weights, of the summed logits by the images);
  None for what no score of these names needs.

  A program has the way back once, through which both are sent: it is long, and
  compiling takes more than running.
  """
  wanted = bool(set(names) & set(_OF_GRADIENTS)), "jacob_cov" in names
  if not any(wanted):
    return None, None
  logits, back = jax.vjp(model.apply, model.params, images)
  of_loss = jax.grad(_loss)(logits, labels)
  if wanted == (True, False):
    return back(of_loss)[0], None
  if wanted == (False, True):
    return None, back(jnp.ones_like(logits))[1]
  both = lax.map(back, jnp.stack([of_loss, jnp.ones_like(logits)]))
  return jax.tree.map(lambda rows: rows[0], both[0]), both[1][1]


def _loss(logits, labels) -> Array:
  """As `training.losses.cross_entropy`."""
  logs = jax.nn.log_softmax(logits)
  return -jnp.take_along_axis(logs, labels[:, None], -1).mean()


def _sum_of_products(params, gradients, of=lambda x: x) -> Array:
  pairs = zip(kernels(params), kernels(gradients), strict=True)
  return sum(of(weight * gradient).sum() for weight, gradient in pairs)


def _log_flow(model: Model, image_shape: tuple[int, ...]) -> Array:
  """The logarithm of SynFlow's sum.

  Without offsets R is linear in its image. So the image and R's own gradient
  are both scaled by R^(-1/2), and no number on the way is larger than R^(1/2).
  """
  params = jax.tree.map(jnp.abs, model.params)
  ones = jnp.ones((1, *image_shape))

  def turn(log_scale, _):  # the first one finds the scale of the second
    scale = jnp.exp(log_scale)
    flow, back = jax.vjp(
      lambda params: model.apply_plain(params, scale * ones).sum(), params
    )
    log_flow = jnp.log(flow) - log_scale
    (gradients,) = back(scale)
    total = jnp.log(_sum_of_products(params, gradients)) - 2 * log_scale
    return -0.5 * log_flow, (log_flow, total)

  faint = jnp.log(jnp.float32(_FAINT))
  _, (log_flow, total) = lax.scan(turn, faint, length=2)
  return jnp.where(jnp.isfinite(log_flow[0]), total[1], -jnp.inf)


def _correlations(rows: Array) -> Array:
  """f32[N, N], between the images' gradients [N, ...]."""
  rows = rows.reshape(len(rows), -1)
  rows = rows - rows.mean(-1, keepdims=True)
  rows = rows / jnp.sqrt((rows * rows).sum(-1, keepdims=True))
  return jnp.matmul(rows, rows.T, precision="highest")


def _spread(correlations: np.ndarray) -> float:
  """jacob_cov; NaN of images that have no gradient."""
  if not np.isfinite(correlations).all():
    return float("nan")
  values = np.linalg.eigvalsh(correlations) + _JACOB_COV_K
  with np.errstate(invalid="ignore"):
    return float(-(np.log(values) + 1 / values).sum())


def _log_det(agreement: np.ndarray) -> float:
  """naswot; -inf where two images are the same to every unit."""
  return float(np.linalg.slogdet(agreement)[1])


_OF_MATRICES = {"jacob_cov": _spread, "naswot": _log_det}
