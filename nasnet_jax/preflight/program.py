"""From a config to the compiled step that its job would run on a topology.

Nothing is allocated: arguments are shapes, and of data whose size is known not
even a file is needed.
"""

import contextlib
import functools
import os
import re
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

from nasnet_jax.costs import counting
from nasnet_jax.data import batches
from nasnet_jax.detection import detector, picture_stream, pictures
from nasnet_jax.detection.loss import make_loss
from nasnet_jax.jobs import detect, job_config, train
from nasnet_jax.models import stacked_plan
from nasnet_jax.population import cell_blocks, networks, population
from nasnet_jax.search import search_config
from nasnet_jax.spaces.genotype import genes_of
from nasnet_jax.training import datasets, fit, loop, mesh, metrics, sharded


class PreflightError(ValueError):
  """What cannot be planned; the message is one line that names the fix."""


class Step(NamedTuple):
  """What one device call of a job runs.

  Attributes:
    function: the job's own jitted function.
    arguments: as shapes with shardings.
    mesh: over the topology's devices.
    updates: of each network in one call.
    children: networks that one chip trains in a call; 1 in a training.
    shares: (how often each branch of a switch is taken), see `costs.Walk`; one
      row per sampled child, by number of branches. {} in a training.
    trips: mean length of loops whose length is data.
  """

  function: Any
  arguments: tuple
  mesh: jax.sharding.Mesh
  updates: int
  children: int
  shares: dict[int, np.ndarray]
  trips: float


class Plan(NamedTuple):
  """A step and what the whole job makes of it.

  Attributes:
    job: "search", "train" or "detect".
    step: see `Step`.
    total_updates: of one child, or of the training.
    num_children: of the whole search; 1 in a training.
    batch_size: examples per update.
    macs: multiply-adds per image forward: mean of sampled children, or the
      network's; a detector's with the crops that it is taught on.
  """

  job: str
  step: Step
  total_updates: int
  num_children: int
  batch_size: int
  macs: float


def get_devices(topology: str) -> list:
  """The devices of a slice that one does not hold.

  Raises:
    PreflightError: without libtpu, or for a topology that it does not know.
  """
  os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # or it asks Google's cloud
  # Its lock is of the chips' users; a compiler may run twice.
  os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
  try:
    import libtpu  # noqa: F401
  except ImportError as error:
    raise PreflightError(
      "the TPU compiler is not here: pip install 'nasnet_jax[tpu]'"
    ) from error
  options = {}
  if topology.endswith(":1x1"):  # the library's hosts have more chips
    options["chips_per_host_bounds"] = (1, 1, 1)
  try:
    with quiet():
      found = topologies.get_topology_desc(
        topology_name=topology, platform="tpu", **options
      )
  except Exception as error:
    text = str(error).splitlines()[0]
    raise PreflightError(f"no topology {topology!r}: {text}") from error
  return list(found.devices)


@contextlib.contextmanager
def quiet():
  """Without what the TPU's library writes to stderr."""
  kept = os.dup(2)
  nowhere = os.open(os.devnull, os.O_WRONLY)
  try:
    os.dup2(nowhere, 2)
    yield
  finally:
    os.dup2(kept, 2)
    os.close(kept)
    os.close(nowhere)


def make_plan(config, devices: list) -> Plan:
  """The step of a config's job on these devices, ready to be compiled.

  Raises:
    ValueError: one line: a config that does not fit together, or the slice.
  """
  if config.job == "search":
    return _search(config, devices)
  if config.job == "detect":
    return _detect(config, devices)
  return _train(config, devices)


# --- data, as far as sizes go ------------------------------------------------


class _Known(NamedTuple):
  """Of a set: images to train on, to test with, classes, and (H, W, C)."""

  train: int
  test: int
  classes: int
  shape: tuple[int, int, int]


# Krizhevsky 2009; Russakovsky et al. 2015 (its side is the config's).
_CIFAR = (50_000, 10_000)
_KNOWN = {
  "cifar10": _Known(*_CIFAR, 10, (32, 32, 3)),
  "cifar100": _Known(*_CIFAR, 100, (32, 32, 3)),
  "imagenet2012": _Known(1_281_167, 50_000, 1000, (0, 0, 3)),
}
# Lin et al. 2014, train2017 and val2017: images in the annotations' files, and
# classes (the numbers of their categories have gaps).
_COCO = _Known(118_287, 5_000, 80, (0, 0, 3))


class _Photographs(NamedTuple):
  """A stream as far as its sizes go; those of pictures with boxes say how
  these are scaled."""

  num_images: int
  image_shape: tuple[int, int, int]
  sizes: picture_stream.Sizes | None = None


def _images(config, batch_sizes) -> job_config.Splits:
  """The job's images: their sizes, and arrays that take no memory, where the
  set is known; else the set itself."""
  fields = config.data
  name = fields.source
  if name == "tfds" and "stream" in fields:
    name = fields.options.name or "imagenet2012"
  known = _KNOWN.get(name)
  if known is None or fields.get("fraction", 1.0) < 1:
    return job_config.load_images(fields, batch_sizes)
  shape = known.shape
  if "stream" in fields:
    shape = (*[fields.stream.image_size] * 2, 3)
  make = _Photographs if "stream" in fields else _in_memory
  valid = fields.num_valid
  return job_config.Splits(
    name,
    "",
    tuple(map(str, range(known.classes))),
    "",
    make(known.train - valid, shape),
    make(valid, shape),
    make(known.test, shape),
    {},
  )


def _in_memory(count: int, shape) -> datasets.Images:
  return datasets.Images(
    np.broadcast_to(np.uint8(0), (count, *shape)),
    np.broadcast_to(np.int32(0), (count,)),
  )


def _pictures(config) -> detect.Data | None:
  """COCO as far as its sizes go; None where the config names files, or splits
  that are not COCO's own."""
  fields = config.data
  options = {k: v for k, v in fields.options.items() if v is not None}
  name = options.pop("name", "coco/2017")
  known = fields.source == "coco" or (fields.source, name) == (
    "tfds",
    "coco/2017",
  )
  options.pop("note", None)
  if not known or options or fields.data_dir is not None:
    return None
  sizes = detect.make_sizes(fields.sizes.to_dict())
  shape = (*sizes.largest, 3)
  none = pictures.Pictures((), pictures.Files(()), {})
  classes = tuple(map(str, range(_COCO.classes)))
  splits = pictures.Splits(none, none, none, classes, (), "coco", "", "")
  parts = [
    _Photographs(count, shape, sizes) for count in (_COCO.train, 0, _COCO.test)
  ]
  return detect.Data(*parts, splits, {})


# --- steps -------------------------------------------------------------------


def _shapes(tree, sharding):
  return _placed(tree, jax.tree.map(lambda _: sharding, tree))


class _Search(NamedTuple):
  """A search's population on a topology, as far as it can be opened there."""

  space: Any
  images: job_config.Splits
  recipe: population.ChildRecipe
  population: population.Population
  count: Any  # (genotype) -> (params, MACs)
  mesh: jax.sharding.Mesh


def open_search(config, devices) -> _Search:
  """What the evaluator of a search makes of its config."""
  space = search_config.get_space(config)
  images = _images(config, (config.child.batch_size, config.final.batch_size))
  recipe = search_config.child_recipe(config)
  on = mesh.make_mesh(config.mesh.arch, config.mesh.data, devices)
  sizes = search_config.child_network(config, images.num_classes, space)
  network, make_counter = networks.open_network(
    space, sizes, images.image_shape, recipe.fold
  )
  pop = population.make_population(
    network,
    recipe,
    job_config.get_augmentation(config.data, images),
    on,
    images.train.num_images,
    images.valid.num_images,
  )
  return _Search(
    space, images, recipe, pop, make_counter(images.image_shape), on
  )


_SAMPLED = 512  # children, for what depends on their cells


def _placed(tree, shardings):
  return jax.tree.map(
    lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
    tree,
    shardings,
  )


def _search(config, devices) -> Plan:
  found = open_search(config, devices)
  pop, recipe, images = found.population, found.recipe, found.images
  children = NamedSharding(found.mesh, PartitionSpec("arch"))
  in_slots = jax.tree.map(
    lambda s: jax.ShapeDtypeStruct((pop.slots, *s.shape), s.dtype),
    pop.network.genotype_shapes,
  )
  data = population.Data(images.train.images, images.train.labels)
  genotypes = _sample(found.space, _SAMPLED)
  macs = [
    found.count(jax.tree.map(lambda leaf, i=i: leaf[i], genotypes))[1]
    for i in range(_SAMPLED)
  ]
  step = Step(
    pop.train,
    (
      _shapes(jax.eval_shape(pop.empty), children),
      _shapes(in_slots, children),
      _shapes(data, NamedSharding(found.mesh, PartitionSpec())),
    ),
    found.mesh,
    recipe.steps_per_call,
    recipe.width,
    _branch_shares(pop.network, genotypes),
    _mean_used(genotypes),
  )
  epoch = batches.steps_per_epoch(images.train.num_images, recipe.batch_size)
  return Plan(
    "search",
    step,
    recipe.epochs * epoch,
    config.search.children,
    recipe.batch_size,
    float(np.mean(macs)),
  )


def _sample(space, count: int):
  """Genotypes of random children, stacked."""
  rng = np.random.default_rng(0)
  decoded = space.decode(space.sample(rng, count))
  return jax.tree.map(np.asarray, decoded)


def _branch_shares(network, genotypes) -> dict[int, np.ndarray]:
  """{number of branches: f32[children, branches]}, the share of edges at which
  each child takes each branch of the switches of that size."""
  if network.switches:
    taken = jax.vmap(network.switches)(genotypes)
    return {
      size: (np.asarray(number)[..., None] == np.arange(size)).mean(1)
      for size, number in taken.items()
    }
  found: dict[int, list] = {}
  for cell, shape, mix in zip(network.cells, network.shapes, network.mixes):
    genes = genes_of(
      jax.tree.map(lambda leaf: np.swapaxes(leaf, 0, 1), genotypes), cell.kind
    )
    raw_places, _ = stacked_plan.groups_of(shape, genes.active.shape[1])
    number, _ = jax.vmap(
      functools.partial(
        cell_blocks.branch_numbers, mix=mix, raw_places=raw_places
      )
    )(genes)
    size = len(mix.branches) + 1  # one for blocks that are left out
    taken = np.asarray(number)[..., None] == np.arange(size)
    found.setdefault(size, []).append(taken.mean((1, 2)))
  return {size: np.mean(rows, 0) for size, rows in found.items()}


def _mean_used(genotypes) -> float:
  """States that a cell passes on: what `state_sums.sum_of_used` loops over."""
  concat = getattr(genotypes, "concat", None)
  return 1.0 if concat is None else float(concat.sum(-1).mean())


def _train(config, devices) -> Plan:
  images = _images(config, (config.train.batch_size,))
  parts = train.prepare(config, images, devices)
  streamed = not isinstance(images.train, datasets.Images)
  count = parts.recipe.batch_size if streamed else images.train.num_images
  data = _in_memory(count, images.image_shape)
  return _training(
    "train",
    parts,
    images.train,
    data,
    counting.count_module(parts.network, images.image_shape)[1],
    streamed=streamed,
  )


def _detect(config, devices) -> Plan:
  parts = detect.prepare(config, _pictures(config), devices)
  images, network = parts.data.train, parts.network
  size = parts.recipe.batch_size
  # Of the largest shape, where there are several.
  batch = datasets.Images(
    np.broadcast_to(np.uint8(0), (size, *images.image_shape)),
    jax.tree.map(
      lambda x: np.broadcast_to(x, (size, *np.shape(x))),
      picture_stream.no_labels(images.sizes.max_boxes),
    ),
  )
  _, macs = counting.count_module(
    network,
    images.image_shape,
    detector.LAYERS,
    crops=network.config.box_batch,
  )
  return _training(
    "detect",
    parts,
    images,
    batch,
    macs,
    streamed=True,
    make_loss=make_loss,
  )


def _training(
  job: str, parts, images, data: datasets.Images, macs: int, **options
) -> Plan:
  """Of one network that `fit` trains.

  Args:
    parts: of its job: network, recipe, augmentation, mesh, shard_params.
    images: the set that is trained on.
    data: what a device call reads.
    **options: of `fit.make_step`: streamed, make_loss.
  """
  recipe, on = parts.recipe, parts.mesh
  steps = loop.compile_steps(
    fit.make_step(
      parts.network,
      recipe,
      parts.augmentation,
      on,
      shard_params=parts.shard_params,
      **options,
    )
  )
  same = NamedSharding(on, PartitionSpec())
  divided = NamedSharding(on, PartitionSpec("data"))
  state = jax.eval_shape(
    lambda: fit.init_state(parts.network, recipe, images.image_shape, 1, 0)
  )
  totals = jax.eval_shape(metrics.Totals.empty)
  where = sharded.state_shardings(state, on, "data", parts.shard_params)
  arguments = (
    _placed(state, where),
    _shapes(totals, same),
    _shapes(data, divided if options["streamed"] else same),
  )
  function, updates = steps.once, recipe.steps_per_call
  if updates > 1:
    length = jax.ShapeDtypeStruct((), jnp.int32, sharding=same)
    function, arguments = steps.many, (*arguments, length)
  return Plan(
    job,
    # The length of the loop over updates is an argument: one update is read.
    Step(function, arguments, on, 1, 1, {}, 1.0),
    recipe.horizon(images.num_images),
    1,
    recipe.batch_size,
    float(macs),
  )


# --- compiling ---------------------------------------------------------------


class OutOfMemory(NamedTuple):
  """What the compiler says of a program that does not fit.

  Attributes:
    needed, limit: bytes of HBM per chip.
    text: its first line.
  """

  needed: float
  limit: float
  text: str


class Compiled(NamedTuple):
  """A compiled step, or why there is none.

  Attributes:
    program: None where memory did not suffice.
    out_of_memory: None where it did.
    lower_seconds, compile_seconds: what it took here.
  """

  program: jax.stages.Compiled | None
  out_of_memory: OutOfMemory | None
  lower_seconds: float
  compile_seconds: float


def lower(step: Step) -> tuple[Any, float]:
  """(what the compiler is given, seconds)."""
  start = time.perf_counter()
  with quiet():
    lowered = step.function.lower(*step.arguments)
  return lowered, time.perf_counter() - start


def compile_step(step: Step, *, brief: bool = False) -> Compiled:
  """Compiles for the step's topology; minutes for large programs.

  Args:
    brief: lets the compiler look for fast code as little as it can: a third of
      the minutes for the CIFAR search, whose estimated time is then 2.6 times
      as long and whose memory is nearly the same (docs/pods.md).
  """
  lowered, lowering = lower(step)
  start = time.perf_counter()
  program = trouble = None
  # Of -1 to 1; 0 is the compiler's own choice.
  jax.config.update("jax_exec_time_optimization_effort", -1.0 * brief)
  try:
    with quiet():
      program = lowered.compile()
  except Exception as error:
    trouble = _out_of_memory(str(error))
    if trouble is None:
      raise
  return Compiled(program, trouble, lowering, time.perf_counter() - start)


_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


# Of the compiler's passes each says it in words of its own.
_SIZE = r"([\d.]+)([KMGT]?)"
_REFUSALS = (
  rf"Used {_SIZE} of {_SIZE} hbm",
  rf"HLO temporaries \({_SIZE}\) exceeds available HBM \({_SIZE}\)",
)


def _out_of_memory(text: str) -> OutOfMemory | None:
  matches = (re.search(words, text) for words in _REFUSALS)
  found = next(filter(None, matches), None)
  if not found:
    return None
  used, unit, limit, limit_unit = found.groups()
  return OutOfMemory(
    float(used) * _UNITS[unit],
    float(limit) * _UNITS[limit_unit],
    text.splitlines()[0],
  )
