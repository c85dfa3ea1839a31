"""From a config to the step that its job would run on a topology.

Nothing is allocated: arguments are shapes, and of data whose size is known not
even a file is needed.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from nasnet_jax.costs import counting
from nasnet_jax.data import batches
from nasnet_jax.detection import detector, picture_stream
from nasnet_jax.detection.loss import make_loss
from nasnet_jax.jobs import by_machine, detect, job_config, train
from nasnet_jax.models import stacked_plan
from nasnet_jax.population import cell_blocks, networks, population
from nasnet_jax.preflight import known_data
from nasnet_jax.search import scoring, search_config, weights
from nasnet_jax.spaces.genotype import genes_of
from nasnet_jax.training import datasets, fit, loop, mesh, metrics, sharded


class Step(NamedTuple):
  """What one device call of a job runs.

  Attributes:
    function: the job's own jitted function.
    arguments: as shapes with shardings.
    mesh: over the topology's devices.
    updates: of each network in one call.
    children: networks that one chip trains in a call; 1 in a training.
    shares: how often each branch of a switch is taken: {number of branches:
      one row per sampled child}, see `costs.Walk`. {} in a training.
    trips: mean length of the loops whose length depends on data.
  """

  function: Any
  arguments: tuple
  mesh: jax.sharding.Mesh
  updates: int
  children: int
  shares: dict[int, np.ndarray]
  trips: float


class Plan(NamedTuple):
  """A step, and what it takes to know about the whole job.

  Attributes:
    job: "search", "train" or "detect".
    step: see `Step`.
    total_updates: of one child, or of the training.
    num_children: of the whole search; 1 in a training.
    batch_size: examples per update.
    macs: multiply-adds of one image's forward pass: the mean of sampled
      children, or the network's; a detector's include the crops in its loss.
    config: with what the chip chooses (`jobs.by_machine`).
    chosen: lines on that.
  """

  job: str
  step: Step
  total_updates: int
  num_children: int
  batch_size: int
  macs: float
  config: Any
  chosen: tuple[str, ...]


def make_plan(config, devices: list, memory: int | None = None) -> Plan:
  """The step of a config's job on these devices, ready to be compiled.

  Args:
    memory: bytes of one device, for what it chooses; None: what it says.

  Raises:
    ValueError: in one line, for a config whose parts do not fit together or
      do not fit the slice.
  """
  if config.job == "search":
    return _search(config, devices, memory)
  if config.job == "detect":
    return _detect(config, devices, memory)
  return _train(config, devices, memory)


def _shapes(tree, sharding):
  return _placed(tree, jax.tree.map(lambda _: sharding, tree))


def _placed(tree, shardings):
  return jax.tree.map(
    lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
    tree,
    shardings,
  )


class _Search(NamedTuple):
  """A search's population for the devices of a topology."""

  config: Any
  chosen: tuple[str, ...]
  space: Any
  images: job_config.Splits
  recipe: population.ChildRecipe
  population: population.Population
  count: Any  # (genotype) -> (params, MACs)
  mesh: jax.sharding.Mesh


def open_search(config, devices, memory: int | None = None) -> _Search:
  """The population that the evaluator of a search would make of its config.

  Args:
    devices, memory: see `make_plan`.
  """
  if weights.are_shared(config):
    raise ValueError(
      'search.weights is "shared", whose program preflight does not know: set'
      ' it to "alone" for that of a single child'
    )
  weights.tell_counted_in_full(config)
  space = search_config.get_space(config)
  scoring.tell_uncounted(config, space)
  images = known_data.images_of(
    config, (config.child.batch_size, config.final.batch_size)
  )
  config, chosen = search_config.resolve(
    config, space, images, by_machine.machine_of(devices, memory)
  )
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
    config,
    chosen,
    space,
    images,
    recipe,
    pop,
    make_counter(images.image_shape),
    on,
  )


_SAMPLED = 512  # children, for means of what depends on their cells


def _search(config, devices, memory) -> Plan:
  found = open_search(config, devices, memory)
  config = found.config
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
    config,
    found.chosen,
  )


def _sample(space, count: int):
  """Genotypes of random children, stacked."""
  rng = np.random.default_rng(0)
  decoded = space.decode(space.sample(rng, count))
  return jax.tree.map(np.asarray, decoded)


def _branch_shares(network, genotypes) -> dict[int, np.ndarray]:
  """{number of branches: f32[children, branches]}: at which share of its edges
  a child takes each branch, of the switches with that many."""
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
  """The mean number of states in a cell's output, over which
  `state_sums.sum_of_used` loops."""
  concat = getattr(genotypes, "concat", None)
  return 1.0 if concat is None else float(concat.sum(-1).mean())


def _train(config, devices, memory) -> Plan:
  images = known_data.images_of(config, (config.train.batch_size,))
  parts = train.prepare(config, images, devices, memory=memory)
  streamed = not isinstance(images.train, datasets.Images)
  count = parts.recipe.batch_size if streamed else images.train.num_images
  data = known_data.in_memory(count, images.image_shape)
  return _training(
    "train",
    parts,
    images.train,
    data,
    counting.count_module(parts.network, images.image_shape)[1],
    streamed=streamed,
  )


def _detect(config, devices, memory) -> Plan:
  parts = detect.prepare(
    config, known_data.pictures_of(config), devices, memory=memory
  )
  images, network = parts.data.train, parts.network
  size = parts.recipe.batch_size
  # Where batches have several shapes, one of the largest.
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
  """The plan of one network that `fit` trains.

  Args:
    parts: of its job: network, recipe, augmentation, mesh, shard_params,
      config, chosen.
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
    # How many updates the loop makes is an argument; the text shows one.
    Step(function, arguments, on, 1, 1, {}, 1.0),
    recipe.horizon(images.num_images),
    1,
    recipe.batch_size,
    float(macs),
    parts.config,
    parts.chosen,
  )
