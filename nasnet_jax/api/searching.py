"""`nas.search(images, labels)`: the search job on arrays, without a config.

The arrays are kept in the run's folder, under the digits of their SHA-256, so
that the run can go on, be evaluated and be looked at by any other command.
"""

import contextlib
import logging
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from nasnet_jax.api import checks, given_images, parts, starting
from nasnet_jax.api.given_images import GivenImages
from nasnet_jax.api.study import Study
from nasnet_jax.cli import shipped
from nasnet_jax.controllers import CONTROLLERS
from nasnet_jax.data import buckets, image_data, paths, places
from nasnet_jax.data.image_data import ImageData
from nasnet_jax.search import any_space, job
from nasnet_jax.spaces.cells import CellSpace
from nasnet_jax.spaces.module_chain import ChainSpace
from nasnet_jax.training import workdir

_log = logging.getLogger(__name__)
_CONFIG = "search_cifar:pictures"
_SMALLEST = 4  # pixels of the last maps


def search(
  images,
  labels=None,
  *,
  hours: float = 0.0,
  children: int | None = None,
  epochs: float | None = None,
  valid: Any = 0.2,
  test: Any = None,
  space: Any = None,
  strategy: str | None = None,
  start_from=None,
  reward: str | Callable | Mapping[str, Any] | None = None,
  objectives: Iterable[str] = (),
  limit: Mapping[str, int] | None = None,
  seed: int = 0,
  folder=None,
  callbacks: Iterable[Any] = (),
  config: Any = None,
) -> Study:
  """Searches cells for images, trains what won, and tests it once.

  The same call with the same folder goes on with a search that was stopped.

  Args:
    images: uint8[N, H, W, C] of 0..255, or floats of 0..1; C is 1, 3 or 4. Or
      the name of a data source, or an ImageData, with labels and test images.
    labels: int[N], classes from 0.
    hours: of the whole search, with the last training; 0: no limit.
    children: that are tried; None: 64, or as many as the hours allow.
    epochs: of each child; None: the config's, 5.
    valid: what rewards are measured on: a share of the images, or a pair
      (images, labels). The winner is trained on these, too.
    test: the same, what the winner is tested on, once; None: a share of 0.15.
    space: a name, or a space as `nas.cells` or `nas.chain` makes it.
    strategy: a key of `controllers.CONTROLLERS`.
    start_from: the folder, or the study, of another search of this space, from
      whose children the strategy learns before its first own.
    reward: "accuracy", a function of a child's row (see `nas.reward`) or its
      name, or fields of `search.reward`: dict(kind="mnasnet_soft",
      cost="params", target=1e6).
    objectives: several at once in place of a reward, ("accuracy", "-params"):
      accuracy, and costs of which less is better. The strategy is then
      evolution by non-dominated rank.
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
    data = given_images.take(images, labels, valid, test, seed)
    made = _config(config, data)
    _set(made, "search", hours=hours or None, seed=seed)
    made.data.seed = seed
    if children is None and hours and config is None:
      children = 20_000  # the hours end it
    _set(made, "search", children=children, controller=strategy)
    if start_from is not None:
      made.search.start_from = str(getattr(start_from, "folder", start_from))
    _set(made, "child", epochs=epochs)
    _take_space(made, space)
    _take_reward(made, reward, limit)
    _take_objectives(made, objectives, strategy)
    _check_strategy(made.search.controller)
    temporary = folder is None
    if temporary:
      folder = tempfile.mkdtemp(prefix="nasnet_jax_")
      _log.warning(
        "no folder is given: the search is in %s, which the system may remove",
        folder,
      )
    if not buckets.is_address(paths.expanded(folder)):
      folder = paths.local(folder).absolute()
    with _no_trace(places.of_run(folder), temporary):
      _keep(folder, made, data)
      job.run(made, folder, command="nas.search(...)", callbacks=callbacks)
  return Study(folder)


@contextlib.contextmanager
def _no_trace(folder: pathlib.Path, temporary: bool):
  """Takes a new folder away again if no search begins in it."""
  new = temporary or not folder.exists()
  try:
    yield
  except BaseException:
    if new and not (folder / "config.json").exists():
      shutil.rmtree(folder, ignore_errors=True)
    raise


def _whole(name: str, number) -> int:
  if int(number) != number or number < 0:
    raise ValueError(f"{name} is {number}: give a whole number, 0 or more")
  return int(number)


def _config(config, data: GivenImages):
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
  space = any_space.as_space(space)
  if isinstance(space, ChainSpace):
    _take_chain(made, space)
    return
  if not isinstance(space, CellSpace):
    raise ValueError(
      f"space {space.name!r} is no space of cells: its networks have other"
      " sizes, so give config=..., such as config='search_mnasnet'"
    )
  for name in {*space.operations} - parts.OURS["operation"]:
    checks.check(name)
  made.space = {"name": space.name, **space.options}
  made.space.operations = tuple(space.operations)


def _take_chain(made, space: ChainSpace):
  """A chain has no sizes but its own, and no paths to drop."""
  checks.check(space)
  final = made.final.network
  kept = {name: final[name] for name in ("init", "bn_decay", "bn_epsilon")}
  made.space = {"name": space.name, **space.options}
  made.network, made.final.network = ConfigDict(), ConfigDict(kept)
  made.child.drop_path_keep = made.final.drop_path_keep = 1.0


def _take_reward(made, reward, limit):
  if callable(reward):
    name = getattr(reward, "__name__", "reward").strip("<>")
    parts.reward(name)(reward)
    reward = name
  if isinstance(reward, str):
    reward = {"kind": reward}
  for group, fields in (("reward", reward), ("limit", limit)):
    for name, value in (fields or {}).items():
      if name not in made.search[group]:
        hint = image_data.nearest(name, made.search[group])
        raise ValueError(f"{group}: no {name!r}: {hint}")
      made.search[group][name] = value


def _check_strategy(name: str):
  if name not in CONTROLLERS:
    hint = image_data.nearest(name, CONTROLLERS)
    raise ValueError(f"strategy {name!r}: {hint}")


def _take_objectives(made, objectives, strategy: str | None):
  if not objectives:
    return
  one = isinstance(objectives, str)  # which is one too few
  made.search.objectives = (objectives,) if one else tuple(objectives)
  if strategy in (None, "evolution"):
    made.search.controller = "evolution"
    made.search.controller_options.evolution.pareto = True


def _keep(place, made, data: GivenImages):
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
    both = dict(zip(("x_train", "y_train", "x_test", "y_test"), data.images))
    partial = folder / f".{name}.part.npz"
    np.savez(partial, **both, class_names=np.array(data.images.class_names))
    os.replace(partial, folder / name)
    for path in others:
      path.unlink()
