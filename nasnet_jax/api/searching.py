"""`nas.search(images, labels)`: the search job on arrays, without a config.

The arrays are kept in the run's folder, under the digits of their SHA-256, so
that the run can go on, be evaluated and be looked at by any other command.
"""

import logging
import os
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from nasnet_jax.api import checks, parts, starting
from nasnet_jax.api.study import Study
from nasnet_jax.cli import shipped
from nasnet_jax.controllers import CONTROLLERS
from nasnet_jax.data import arrays, buckets, image_data, paths, places
from nasnet_jax.data.image_data import DataError, ImageData
from nasnet_jax.search import by_hand, job
from nasnet_jax.spaces.cells import CellSpace
from nasnet_jax.training import workdir

_log = logging.getLogger(__name__)
_CONFIG = "search_cifar:pictures"
_SMALLEST = 4  # pixels of the last maps


def search(
  images,
  labels,
  *,
  hours: float = 0.0,
  children: int | None = None,
  epochs: float | None = None,
  valid: Any = 0.2,
  test: Any = None,
  space: Any = None,
  strategy: str | None = None,
  reward: str | Mapping[str, Any] | None = None,
  limit: Mapping[str, int] | None = None,
  seed: int = 0,
  folder=None,
  callbacks: Iterable[Any] = (),
  config: Any = None,
) -> Study:
  """Searches cells for images, trains what won, and tests it once.

  The same call with the same folder goes on with a search that was stopped.

  Args:
    images: uint8[N, H, W, C] of 0..255, or floats of 0..1; C is 1, 3 or 4.
    labels: int[N], classes from 0.
    hours: of the whole search, with the last training; 0: no limit.
    children: that are tried; None: 64, or as many as the hours allow.
    epochs: of each child; None: the config's, 5.
    valid: what rewards are measured on: a share of the images, or a pair
      (images, labels). The winner is trained on these, too.
    test: the same, what the winner is tested on, once; None: a share of 0.15.
    space: a name, or a space as `nas.cells` makes it.
    strategy: a key of `controllers.CONTROLLERS`.
    reward: "accuracy", or fields of `search.reward`: dict(kind="mnasnet_soft",
      cost="params", target=1e6).
    limit: the most that a child may have: dict(params=..., macs=...,
      bytes=...).
    seed: of everything random.
    folder: of the run; None: a temporary one, whose name is told.
    callbacks: see `jobs.callbacks`.
    config: in place of the one for pictures: a ConfigDict of a search, or the
      name of a shipped one. Its sizes stay as they are.

  Returns:
    the `Study` of the folder.

  Raises:
    ValueError: one line: images, labels or numbers that make no search, or a
      folder that has a search of others.
    Stopped: after Ctrl-C; the same call goes on.
  """
  starting.prepare()
  seed = _whole("seed", seed)
  with starting.spoken():
    data = _data(images, labels, valid, test, seed)
    made = _config(config, data)
    _set(made, "search", hours=hours or None, seed=seed)
    made.data.seed = seed
    if children is None and hours and config is None:
      children = 20_000  # the hours end it
    _set(made, "search", children=children, controller=strategy)
    _set(made, "child", epochs=epochs)
    _take_space(made, space)
    _take_reward(made, reward, limit)
    if made.search.controller not in CONTROLLERS:
      hint = image_data.nearest(made.search.controller, CONTROLLERS)
      raise ValueError(f"strategy {made.search.controller!r}: {hint}")
    if folder is None:
      folder = tempfile.mkdtemp(prefix="nasnet_jax_")
      _log.warning(
        "no folder is given: the search is in %s, which the system may remove",
        folder,
      )
    if not buckets.is_address(paths.expanded(folder)):
      folder = paths.local(folder).absolute()
    _keep(folder, made, data)
    job.run(made, folder, command="nas.search(...)", callbacks=callbacks)
  return Study(folder)


class _Data:
  """Checked arrays, and how they are divided.

  Attributes:
    images: an ImageData; its last `valid` training images validate, if that
      is a number of images.
    valid, test: a share, or the number of images that were given apart.
  """

  def __init__(self, images: ImageData, valid, test):
    self.images, self.valid, self.test = images, valid, test


def _data(images, labels, valid, test, seed: int) -> _Data:
  train = _pair("images", images, labels)
  count = int(train[1].max()) + 1
  if len(np.unique(train[1])) < 2:
    raise DataError(
      f"labels: all are {train[1][0]}: there is nothing to tell apart, give"
      " images of two classes or more"
    )
  name = "arrays"
  if isinstance(test, tuple | list):
    tested = _pair("test", *_two("test", test))
  else:
    share = _share("test", 0.15 if test is None else test)
    keep, aside = image_data.set_aside(name, train[1], share, seed)
    tested = train[0][aside], train[1][aside]
    train = train[0][keep], train[1][keep]
  if isinstance(valid, tuple | list):
    shown = _pair("valid", *_two("valid", valid))
    if shown[0].shape[1:] != train[0].shape[1:]:
      raise DataError(
        f"valid: images are {list(shown[0].shape[1:])}, and those to train on"
        f" {list(train[0].shape[1:])}: bring them to one size"
      )
    train = tuple(np.concatenate(both) for both in zip(train, shown))
    valid = len(shown[0])
  else:
    valid = _share("valid", valid)
  names = tuple(str(i) for i in range(count))
  checked = image_data.checked(ImageData(*train, *tested, names, name))
  return _Data(checked, valid, test)


def _pair(name: str, images, labels):
  """(uint8[N, H, W, C], int32[N]); DataError, one line, for anything else."""
  images, labels = arrays.as_pixels(name, images), np.asarray(labels)
  if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels):
    raise DataError(
      f"{name}: labels are {labels.dtype}{list(labels.shape)}: give"
      " integers[N], the number of each image's class"
    )
  image_data.check_images(name, images, len(labels))
  if labels.min() < 0:
    raise DataError(f"{name}: a label is {labels.min()}: number from 0")
  return images, labels.astype(np.int32)


def _two(name: str, pair):
  if len(pair) != 2:
    raise DataError(f"{name}: {len(pair)} arrays: give (images, labels)")
  return pair


def _share(name: str, share) -> float:
  if not isinstance(share, float) or not 0 < share < 1:
    raise DataError(
      f"{name} is {share!r}: give a share between 0 and 1, or a pair (images,"
      " labels)"
    )
  return share


def _whole(name: str, number) -> int:
  if int(number) != number or number < 0:
    raise ValueError(f"{name} is {number}: give a whole number, 0 or more")
  return int(number)


def _config(config, data: _Data):
  """A copy of the config, of sizes that fit images and device if none is
  given."""
  if config is None:
    made = shipped.config(_CONFIG).copy_and_resolve_references().unlock()
    _fit(made, data.images)
  elif isinstance(config, str):
    made = shipped.config(config).copy_and_resolve_references().unlock()
  else:
    made = config.copy_and_resolve_references().unlock()
  if made.get("job") != "search":
    raise ValueError(
      f"config: job is {made.get('job')!r}: give the config of a search"
    )
  if "stream" in made.data:
    raise ValueError(
      "config: data.stream is for photographs on a disk: take a config whose"
      " images are in memory"
    )
  for name in made.data.options:
    made.data.options[name] = None
  made.data.source, made.data.data_dir = "folder", None
  made.data.fraction, made.data.max_per_class = 1.0, None
  made.data.num_valid, made.data.valid_fraction = 0, data.valid
  if isinstance(data.valid, int):
    made.data.num_valid, made.data.valid_fraction = data.valid, None
    made.data.valid_last = True
  return made


def _fit(made, images: ImageData):
  """Sizes for these images on this device."""
  side = min(images.image_shape[:2])
  most = max(0, (side // _SMALLEST).bit_length() - 1)
  for network in (made.network, made.final.network):
    network.num_reductions = min(network.num_reductions, most)
  made.data.augmentation.pad = side // 8
  made.mesh.arch = 0  # all devices
  if jax.default_backend() != "cpu":
    made.network.num_cells, made.network.features = 2, 16
    made.final.network.num_cells, made.final.network.features = 4, 32


def _set(made, group: str, **values):
  """Sets those that are given."""
  for name, value in values.items():
    if value is not None:
      made[group][name] = value


def _take_space(made, space):
  if space is None:
    return
  space = by_hand.as_space(space)
  if not isinstance(space, CellSpace):
    raise ValueError(
      f"space {space.name!r} is no space of cells: its networks have other"
      " sizes, so give config=..., such as config='search_mnasnet'"
    )
  for name in {*space.operations} - parts.OURS[0]:
    checks.check(name)
  made.space = {"name": space.name, **space.options}
  made.space.operations = tuple(space.operations)


def _take_reward(made, reward, limit):
  if isinstance(reward, str):
    reward = {"kind": reward}
  for group, fields in (("reward", reward), ("limit", limit)):
    for name, value in (fields or {}).items():
      if name not in made.search[group]:
        hint = image_data.nearest(name, made.search[group])
        raise ValueError(f"{group}: no {name!r}: {hint}")
      made.search[group][name] = value


def _keep(place, made, data: _Data):
  """Writes the arrays into the folder, unless it has others."""
  name = f"arrays-{data.images.fingerprint}.npz"
  made.data.options.path = str(places.inside(place, name))
  made.data.options.labels = None
  with workdir.locked(place) as folder:
    others = [p for p in folder.glob("arrays-*.npz") if p.name != name]
    if others and (folder / "config.json").exists():
      raise workdir.WorkdirError(
        f"{folder} holds a search on other images or labels ({others[0].name},"
        f" and these are {name}): give those, or take another folder"
      )
    if (folder / name).exists():
      return
    parts = dict(zip(("x_train", "y_train", "x_test", "y_test"), data.images))
    partial = folder / f".{name}.part.npz"
    np.savez(partial, **parts, class_names=np.array(data.images.class_names))
    os.replace(partial, folder / name)
    for path in others:
      path.unlink()
