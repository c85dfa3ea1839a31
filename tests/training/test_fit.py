"""Training of one static network."""

import dataclasses
import functools
import itertools

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from nasnet_jax import spaces
from nasnet_jax.data import augment, photo_stream
from nasnet_jax.data import photographs as sources
from nasnet_jax.data.image_data import DataError
from nasnet_jax.jobs import resumable
from nasnet_jax.models import layers, stacked, stacked_plan, stage_network
from nasnet_jax.training import (
  checkpoint,
  datasets,
  evaluation,
  fit,
  mesh,
  optimizers,
  recipes,
  stop,
)

SPACE = spaces.get("nasnet", 1, ("identity", "avg_pool_3x3"))
AUGMENTATION = augment.Augmentation(pad=1, mean=(0.5,), std=(0.5,))
RECIPE = recipes.Recipe(epochs=3, batch_size=8, drop_path_keep=0.8)


def _network(aux=False, **fields):
  """One cell where nothing hangs on more; an auxiliary head takes three."""
  fields = {"num_reductions": int(aux), **fields}
  config = stacked_plan.NetworkConfig(1, 4, 3, aux=aux, **fields)
  cells = SPACE.decode(np.array([0, 1, 1, 1, 0, 1, 1, 0]))
  return stacked.StackedNetwork(config, stacked.as_cells(SPACE, cells))


@pytest.fixture(scope="module")
def images():
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 3, 30).astype(np.int32)
  pixels = (
    rng.integers(0, 100, (30, 6, 6, 1)) + 50 * labels[:, None, None, None]
  )
  return datasets.on_device(datasets.Images(pixels.astype(np.uint8), labels))


@pytest.fixture(scope="module")
def photographs():
  """A stream of 24 made-up photographs of 3 classes, at 8x8."""
  made_up = sources.load(
    "fake", num_images=24, num_classes=3, width=50, height=50
  )
  return photo_stream.Stream(made_up.train, photo_stream.Crops(8), 3)


def _train(images, recipe=RECIPE, network=None, **options):
  """[(step, epoch, loss, accuracy)], final state on the host."""
  network = network or _network()
  points = fit.fit(network, recipe, AUGMENTATION, images, 7, **options)
  curve = list(points)
  return [p[:4] for p in curve], jax.tree.map(np.asarray, curve[-1].state)


def _assert_equal(a, b):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    np.testing.assert_array_equal(x, y)


def _apply(network, variables, images, aug=AUGMENTATION, **options):
  """What the network says; compiled as one program, not operation by
  operation."""
  x = augment.normalise(images, aug)
  return jax.jit(lambda v, x: network.apply(v, x, **options))(variables, x)


def _loss(network, recipe, aug=AUGMENTATION):
  """(state, images) -> loss of the state's step; compiles no backward pass."""
  step = fit.make_step(network, recipe, aug)
  return jax.jit(lambda state, data: step(state, data)[1]["loss"])


@pytest.fixture(scope="module")
def trained(images):
  """What `_train` gives for RECIPE."""
  return _train(images)


@pytest.fixture(scope="module")
def one_epoch(images):
  """bn_group -> what `_train` gives for one epoch of RECIPE."""
  recipe = dataclasses.replace(RECIPE, epochs=1)
  return functools.cache(
    lambda group: _train(images, dataclasses.replace(recipe, bn_group=group))
  )


def test_a_curve_has_a_point_per_epoch_and_its_start(trained):
  curve, state = trained
  assert [p[:2] for p in curve] == [(0, 0.0), (3, 1.0), (6, 2.0), (9, 3.0)]
  assert curve[0][2:] == (None, None)
  assert all(np.isfinite(p[2]) and 0 <= p[3] <= 1 for p in curve[1:])
  assert state.step == state.horizon == 9


def test_training_learns_what_can_be_learnt(images):
  curve, _ = _train(images, recipes.Recipe(epochs=20, batch_size=8))
  assert curve[-1][3] > 0.8
  assert curve[-1][2] < curve[1][2]


def test_a_training_stopped_anywhere_goes_on_as_if_it_had_not(
  images, trained, tmp_path
):
  curve, state = trained
  points, ticks = [], []
  for stop_at in (2, 4, 6, 8, 9):  # within epochs, at the end of one, the last

    def tick(step, stop_at=stop_at):
      ticks.append(step)
      if step == stop_at:
        raise stop.Stopped(2)

    with pytest.raises(stop.Stopped):
      for point in fit.fit(
        _network(),
        RECIPE,
        AUGMENTATION,
        images,
        7,
        folder=tmp_path / "broken",
        tick=tick,
      ):
        points += [point[:4]] if point.loss is not None else []
  assert ticks == list(range(1, 10))  # no update was made twice
  assert points == curve[1:]
  rest, resumed = _train(images, folder=tmp_path / "broken")
  assert rest == [(9, 3.0, None, None)]
  _assert_equal(resumed, state)
  again, finished = _train(images, folder=tmp_path / "broken")
  assert again == [(9, 3.0, None, None)]
  _assert_equal(finished, state)


def test_two_epochs_and_two_more_are_four(images, tmp_path):
  """Where nothing follows the number of epochs."""
  short = recipes.Recipe(
    epochs=2,
    batch_size=8,
    schedule="constant",
    drop_path_keep=0.8,
    drop_path_version="layer",
  )
  assert not short.follows_its_length() and RECIPE.follows_its_length()
  recipe = dataclasses.replace(short, epochs=4)
  whole, wanted = _train(images, recipe)
  _train(images, short, folder=tmp_path)
  rest, state = _train(images, recipe, folder=tmp_path)
  assert rest == [(6, 2.0, None, None), *whole[3:]]
  _assert_equal(state, wanted)


@pytest.mark.parametrize("steps_per_call", [2, 100])
def test_updates_per_call_change_nothing_but_speed(images, steps_per_call):
  one, many = (
    recipes.Recipe(epochs=3, batch_size=8, steps_per_call=n)
    for n in (1, steps_per_call)
  )
  curve, state = _train(images, one)
  other_curve, other_state = _train(images, many)
  assert [p[:2] for p in curve] == [p[:2] for p in other_curve]
  # Loops compile to other sums: float rounding differs, nothing else does.
  for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(other_state)):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_another_seed_gives_another_network(images):
  first = fit.init_state(_network(), RECIPE, (6, 6, 1), 9, 1)
  second = fit.init_state(_network(), RECIPE, (6, 6, 1), 9, 2)
  kernels = [s.params["stem"]["conv"]["kernel"] for s in (first, second)]
  assert not np.array_equal(*kernels)
  assert (first.seed, second.seed) == (1, 2)  # of the order, and all else


@pytest.mark.parametrize(
  "fields", [{"dropout": 0.5}, {"num_cells": 4, "scan_cells": True}]
)
def test_initial_weights_are_linens_and_no_layer_runs_for_them(fields, caplog):
  network = _network()
  config = dataclasses.replace(network.config, remat=True, **fields)
  network, side = network.clone(config=config), (5, 7, 2)
  with jax.log_compiles():
    found = fit.init_variables(network, side, 3)
  lines = [r.getMessage() for r in caplog.records]
  compiled = [line for line in lines if line.startswith("Compiling jit(")]
  assert any("_truncated_normal" in line for line in compiled)
  assert not any("matmul" in line or "relu" in line for line in compiled)
  rng, image = jax.random.key(3), jax.ShapeDtypeStruct((1, *side), jnp.float32)
  wanted = network.lazy_init({"params": rng, "dropout": rng}, image, True)
  assert jax.tree.structure(found) == jax.tree.structure(wanted)
  _assert_equal(found, wanted)


@pytest.mark.parametrize("batch_size", [1, 7, 30, 1000])
def test_every_image_counts_once_whatever_the_batch_size(images, batch_size):
  network = _network()
  state = fit.init_state(network, RECIPE, (6, 6, 1), 9, 1)
  variables = fit.variables_of(state)
  logits, _, _ = _apply(network, variables, images.images)
  answers = np.asarray(logits).argmax(-1)
  # The last batch is filled up with image 0, which is answered right here.
  labels = np.asarray(images.labels).copy()
  labels[0] = answers[0]
  score = evaluation.make_evaluate(network, AUGMENTATION, batch_size)(
    variables, datasets.on_device(datasets.Images(images.images, labels))
  )
  assert score == evaluation.Score(int((answers == labels).sum()), 30, 30)


def test_the_auxiliary_head_adds_its_share_to_the_loss(images):
  network = _network(aux=True)
  losses = []
  for weight in (0.0, 0.4, 0.8):
    recipe = recipes.Recipe(batch_size=8, aux_weight=weight)
    state = fit.init_state(network, recipe, (6, 6, 1), 9, 1)
    losses.append(float(_loss(network, recipe)(state, images)))
  shares = [b - a for a, b in itertools.pairwise(losses)]
  assert shares[0] > 0.1  # near 0.4 ln 3
  assert shares[0] == pytest.approx(shares[1], rel=1e-4)


def test_the_loss_smooths_the_labels_of_both_heads(images):
  """Against NumPy, from the logits of the same batch."""
  network = _network(aux=True)
  plain = augment.Augmentation(mean=(0.5,), std=(0.5,))
  recipe = recipes.Recipe(
    batch_size=30, drop_path_keep=1.0, label_smoothing=0.1, aux_weight=0.3
  )
  state = fit.init_state(network, recipe, (6, 6, 1), 9, 1)
  (logits, auxiliary, _), _ = _apply(
    network,
    {"params": state.params, "batch_stats": state.batch_stats},
    images.images,
    plain,
    train=True,
    mutable=["batch_stats"],
  )
  found = _loss(network, recipe, plain)(state, images)

  def cross_entropy(logits):
    logits = np.float64(logits)
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    targets = 0.9 * np.eye(3)[np.asarray(images.labels)] + 0.1 / 3
    return -(targets * logs).sum(-1).mean()

  wanted = cross_entropy(logits) + 0.3 * cross_entropy(auxiliary)
  assert float(found) == pytest.approx(wanted, rel=1e-4)


def test_a_recipe_hands_its_numbers_to_rmsprop():
  recipe = recipes.Recipe(
    optimizer="rmsprop",
    momentum=0.7,
    rms_decay=0.8,
    rms_epsilon=0.5,
    weight_decay=0.01,
    clip_norm=2.0,
  )
  found, wanted = (
    recipe.make_optimizer(),
    optimizers.rmsprop(
      decay=0.8, momentum=0.7, epsilon=0.5, weight_decay=0.01, clip_norm=2.0
    ),
  )
  params = {"kernel": jnp.array([1.0, -2.0])}
  states = [tx.init(params) for tx in (found, wanted)]
  for gradient in ([0.5, 0.1], [3.0, 4.0]):
    updates = []
    for i, tx in enumerate((found, wanted)):
      update, states[i] = tx.update(
        {"kernel": jnp.array(gradient)}, states[i], params, learning_rate=0.1
      )
      updates.append(update["kernel"])
    np.testing.assert_array_equal(*updates)


def test_drop_path_follows_its_version_and_the_progress(images):
  """Time only drops nothing yet at the start, layer only does at once; at the
  end both ramps of "both" are done."""
  network = _network(num_reductions=1)
  losses = {}
  for version in (None, "time", "layer", "both", "constant"):
    recipe = recipes.Recipe(
      batch_size=8,
      drop_path_keep=0.3 if version else 1.0,
      drop_path_version=version or "both",
    )
    state = fit.init_state(network, recipe, (6, 6, 1), 100, 1)
    loss = _loss(network, recipe)
    losses[version] = [
      float(loss(state._replace(step=jnp.int32(n)), images))
      for n in (0, 50, 100)
    ]
  start, middle, end = ({k: v[i] for k, v in losses.items()} for i in range(3))
  assert start["time"] == start["both"] == start[None]
  assert start["layer"] != start[None] != start["constant"]
  assert len(set(middle.values())) == 5
  assert end["time"] == end["constant"] != end[None]
  assert end["both"] == end["layer"] != end["time"]


def test_a_checkpoint_of_another_network_is_refused(images, tmp_path):
  _train(images, folder=tmp_path)
  with pytest.raises(checkpoint.CheckpointError, match="missing: "):
    _train(images, network=_network(aux=True), folder=tmp_path)


def test_fewer_images_than_a_batch_are_refused(images):
  with pytest.raises(DataError, match="fewer than one batch of 64"):
    _train(images, recipes.Recipe(batch_size=64))


# --- on a mesh, in parts, in half precision ----------------------------------


def _close(a, b, tolerance):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    x, y = np.asarray(x), np.asarray(y)
    np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


def _mesh(devices):
  return mesh.make_mesh(1, devices)


# All over all devices; pairs of devices; parts of a device; of one device.
@pytest.mark.parametrize(
  ("examples", "devices"), [(0, 2), (4, 4), (2, 2), (2, 4)]
)
def test_devices_share_a_batch_and_change_nothing(
  images, one_epoch, examples, devices
):
  """Batch norm sees groups of `examples`, on any number of devices."""
  recipe = dataclasses.replace(RECIPE, epochs=1, bn_group=examples)
  _, alone = one_epoch(examples)
  _, shared = _train(images, recipe, mesh=_mesh(devices))
  _close(alone.params, shared.params, 1e-4)
  _close(alone.batch_stats, shared.batch_stats, 1e-4)


def test_a_divided_batch_is_the_whole_one_if_groups_of_batch_norm_are(images):
  """Every coin (augmentation, drop path, dropout) comes from an example's place
  in the whole batch; only statistics move once for each micro-batch."""
  network = _network(dropout=0.5)
  recipe = dataclasses.replace(RECIPE, epochs=1, bn_group=2, ema_decay=0.9)
  _, whole = _train(images, recipe, network)
  recipe = dataclasses.replace(recipe, micro_batches=2)
  _, parts = _train(images, recipe, network, mesh=_mesh(2))
  _close(whole.params, parts.params, 1e-5)
  _close(whole.ema[0], parts.ema[0], 1e-5)


def test_dropout_drops_a_share_and_keeps_the_mean():
  x = jnp.ones((512, 20))
  found = np.asarray(layers.drop_features(jax.random.key(0), x, 0.4))
  assert set(np.unique(found.round(4))) == {0.0, np.float32(1 / 0.6).round(4)}
  assert (found == 0).mean() == pytest.approx(0.4, abs=0.02)
  part = layers.drop_features(
    jax.random.key(0), x[:3], 0.4, jnp.array([7, 0, 300])
  )
  np.testing.assert_array_equal(part, found[[7, 0, 300]])


def test_a_network_of_stages_is_trained_like_one_of_cells():
  config = stage_network.StageConfig((4, 4), num_classes=3, dropout=0.5)
  network = stage_network.StageNetwork(config, ((2, ((0, 1),)), (2, ())))
  recipe = recipes.Recipe(batch_size=8, drop_path_keep=1.0)
  data = datasets.Images(np.zeros((9, 8, 8, 1), np.uint8), np.arange(9) % 3)
  step = fit.make_step(network, recipe, AUGMENTATION)
  state = jax.eval_shape(
    lambda: fit.init_state(network, recipe, (8, 8, 1), 9, 1)
  )
  after, metrics = jax.eval_shape(step, state, data)
  assert jax.tree.structure(after) == jax.tree.structure(state)
  assert metrics["loss"].shape == ()


def test_dropout_is_for_training_only(images):
  network, plain = (_network(dropout=d) for d in (0.5, 0.0))
  state = fit.init_state(network, RECIPE, (6, 6, 1), 9, 1)
  variables = fit.variables_of(state)

  def answers(network, **options):
    return _apply(network, variables, images.images, **options)[0]

  np.testing.assert_array_equal(answers(network)[0], answers(plain)[0])
  options = {"train": True, "mutable": ["batch_stats"]}
  trained = answers(network, rngs={"dropout": jax.random.key(0)}, **options)
  kept = answers(plain, **options)
  assert np.abs(trained[0] - kept[0]).max() > 0.01


def test_groups_of_batch_norm_change_the_training(one_epoch):
  (_, whole), (_, parts) = one_epoch(0), one_epoch(2)
  kernels = [s.params["stem"]["conv"]["kernel"] for s in (whole, parts)]
  assert np.abs(kernels[0] - kernels[1]).max() > 1e-3


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"batch_size": 6}, "does not divide over 4 devices"),
    ({"bn_group": 3}, "does not divide into groups of 3"),
    ({"micro_batches": 4}, "does not divide over 4 devices"),
  ],
)
def test_a_batch_that_does_not_divide_gets_one_clear_line(
  images, changes, words
):
  recipe = dataclasses.replace(RECIPE, **changes)
  with pytest.raises(ValueError, match=words) as error:
    _train(images, recipe, mesh=_mesh(4))
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("devices", [1, 2, 4])
@pytest.mark.parametrize("batch_size", [7, 8])
def test_both_scores_count_every_image_once_on_any_mesh(devices, batch_size):
  network = stacked.StackedNetwork(
    dataclasses.replace(_network().config, num_classes=9), _network().cells
  )
  rng = np.random.default_rng(1)
  labels = rng.integers(0, 9, 30).astype(np.int32)
  pixels = rng.integers(0, 256, (30, 6, 6, 1)).astype(np.uint8)
  data = datasets.on_device(datasets.Images(pixels, labels))
  state = fit.init_state(network, RECIPE, (6, 6, 1), 9, 1)
  variables = fit.variables_of(state)
  logits, _, _ = _apply(network, variables, data.images)
  order = np.argsort(-np.asarray(logits), 1)
  evaluate = evaluation.make_evaluate(
    network, AUGMENTATION, batch_size, _mesh(devices)
  )
  assert evaluate(variables, data) == evaluation.Score(
    int((order[:, 0] == labels).sum()),
    30,
    int((order[:, :5] == labels[:, None]).any(1).sum()),
  )


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_each_class_counts_its_images_once_on_any_mesh(devices):
  network = _network()
  rng = np.random.default_rng(2)
  classes = network.config.num_classes
  # The last class has no image, and the others have unequal numbers.
  labels = np.minimum(rng.integers(0, classes, 30), classes - 2)
  pixels = rng.integers(0, 256, (30, 6, 6, 1)).astype(np.uint8)
  data = datasets.on_device(datasets.Images(pixels, labels.astype(np.int32)))
  state = fit.init_state(network, RECIPE, (6, 6, 1), 9, 1)
  variables = fit.variables_of(state)
  answers = np.asarray(_apply(network, variables, data.images)[0]).argmax(-1)
  score = evaluation.make_evaluate(
    network, AUGMENTATION, 7, _mesh(devices), by_class=True
  )(variables, data)
  wanted = [
    (int((answers[labels == c] == c).sum()), int((labels == c).sum()))
    for c in range(classes)
  ]
  assert score.by_class == tuple(wanted) and wanted[-1] == (0, 0)
  mean = np.mean([(answers[labels == c] == c).mean() for c in set(labels)])
  assert score.mean_per_class == pytest.approx(mean)
  assert sum(n for _, n in score.by_class) == score.examples
  assert sum(right for right, _ in score.by_class) == score.correct


class _Labelled:
  """Photographs with other labels, one of them broken."""

  labels = None

  def __init__(self, records, labels, broken):
    self._records, self._labels, self._broken = records, labels, broken

  def __len__(self):
    return len(self._labels)

  def name(self, index):
    return f"image {index}"

  def read(self, index):
    content, _ = self._records.read(index)
    return b"" if index == self._broken else content, self._labels[index]


def test_photographs_count_once_on_any_mesh_and_broken_ones_are_wrong():
  made_up = sources.load(
    "fake", num_images=22, num_classes=9, width=50, height=50
  ).train
  network = _network()
  network = network.clone(
    config=dataclasses.replace(network.config, num_classes=9)
  )
  state = fit.init_state(network, RECIPE, (8, 8, 3), 9, 1)
  variables = fit.variables_of(state)
  # What fills up, and what is broken, is black with label 0: answered right,
  # but not to be counted.
  bias = variables["params"]["classifier"]["bias"]
  variables["params"]["classifier"]["bias"] = bias.at[0].set(1e3)
  whole = photo_stream.Stream(made_up, photo_stream.Crops(8), 9)
  (batch,) = whole.evaluation_batches(22)
  order = np.argsort(
    -np.asarray(_apply(network, variables, batch.images)[0]), 1
  )
  # Labels that are answered at the first, fourth and seventh place, in turns.
  labels = order[np.arange(22), np.arange(22) % 3 * 3]
  data = photo_stream.Stream(
    _Labelled(made_up, labels, broken=3), photo_stream.Crops(8), 9, max_broken=1
  )
  for devices in (1, 2, 4):
    evaluate = evaluation.make_evaluate(
      network, AUGMENTATION, 5, _mesh(devices)
    )
    # Eight of the first, of which one is broken, and seven of the fourth.
    assert evaluate(variables, data) == evaluation.Score(7, 22, 14)


def test_bfloat16_keeps_weights_statistics_and_loss_in_float32(
  images, one_epoch
):
  recipe = dataclasses.replace(RECIPE, dtype="bfloat16", epochs=1)
  curve, state = _train(images, recipe)
  kinds = {x.dtype.name for x in jax.tree.leaves((state.params, state.ema))}
  assert kinds == {"float32"}
  assert {x.dtype.name for x in jax.tree.leaves(state.batch_stats)} == {
    "float32"
  }
  exact, _ = one_epoch(0)
  assert curve[-1][2] != exact[-1][2]
  assert curve[-1][2] == pytest.approx(exact[-1][2], rel=0.1)
  step = fit.make_step(_network(num_reductions=1), recipe, AUGMENTATION)
  shapes = jax.eval_shape(
    lambda: fit.init_state(_network(num_reductions=1), recipe, (6, 6, 1), 9, 1)
  )
  text = jax.make_jaxpr(step)(shapes, images)
  assert "bf16[8,6,6,4]" in str(text)
  # Of products only the classifier's, forward and twice backward, is exact.
  kinds = [
    (equation.primitive.name, equation.outvars[0].aval)
    for equation in _equations(text.jaxpr)
    if equation.primitive.name in ("dot_general", "conv_general_dilated")
  ]
  exact = [aval.shape for _, aval in kinds if aval.dtype == jnp.float32]
  assert sorted(exact) == [(3, 8), (8, 3), (8, 8)]
  assert len(kinds) > 20
  loss = jax.eval_shape(step, shapes, images)[1]["loss"]
  assert loss.dtype == jnp.float32


def _equations(jaxpr):
  """All equations, those within others too."""
  for equation in jaxpr.eqns:
    yield equation
    for inner in jax.extend.core.jaxprs_in_params(equation.params):
      yield from _equations(inner)


def test_the_moving_average_is_what_is_evaluated(images, trained, tmp_path):
  recipe = dataclasses.replace(RECIPE, ema_decay=0.5)
  _, state = _train(images, recipe, folder=tmp_path)
  _, plain = trained
  _assert_equal(state.params, plain.params)  # it only watches
  params, batch_stats = state.ema
  found = fit.variables_of(state)
  _assert_equal(found, {"params": params, "batch_stats": batch_stats})
  kernels = [p["stem"]["conv"]["kernel"] for p in (params, state.params)]
  assert np.abs(kernels[0] - kernels[1]).max() > 1e-4


def test_a_curve_scores_the_moving_average(images, tmp_path):
  recipe = dataclasses.replace(RECIPE, ema_decay=0.9999, learning_rate=0.5)
  network, rows = _network(), []
  state, score = resumable.train(
    tmp_path,
    {"id": 0, "stage": "train"},
    network,
    recipe,
    AUGMENTATION,
    images,
    7,
    valid=images,
    watch=resumable.Watch(point=rows.append),
  )
  evaluate = evaluation.make_evaluate(network, AUGMENTATION, 500)
  average, last = (
    evaluate({"params": params, "batch_stats": statistics}, images)
    for params, statistics in (state.ema, (state.params, state.batch_stats))
  )
  assert score == average != last
  assert rows[-1]["valid_accuracy"] == average.accuracy


def _curve(images, folder, patience, stop_at=None):
  """((step, validation accuracy) of each line, final state, its score)."""
  recipe = dataclasses.replace(
    RECIPE, epochs=12, learning_rate=0.3, patience_epochs=patience
  )
  rows = []
  folder.mkdir(exist_ok=True)

  def tick(stage, number, step, horizon):
    if step == stop_at:
      raise stop.Stopped(2)

  state, score = resumable.train(
    folder,
    {"id": 0, "stage": "train"},
    _network(),
    recipe,
    AUGMENTATION,
    images,
    7,
    valid=images,
    checkpoint_seconds=0.0,
    watch=resumable.Watch(tick, rows.append),
  )
  lines = [(row["step"], row["valid_accuracy"]) for row in rows]
  return lines, jax.device_get(state), score


def test_early_stopping_keeps_the_best_weights(images, tmp_path):
  whole, _, _ = _curve(images, tmp_path / "whole", 0.0)
  best = 0
  for place, (_, accuracy) in enumerate(whole):
    best = place if accuracy > whole[best][1] else best
    if place - best >= 2:
      break
  assert 0 < best < place < 11, whole  # or there is nothing to be seen
  early, state, score = _curve(images, tmp_path / "early", 2.0)
  assert early == whole[: place + 1]
  assert score.accuracy == whole[best][1]
  evaluate = evaluation.make_evaluate(_network(), AUGMENTATION, 500)
  assert evaluate(fit.variables_of(state), images) == score

  for stop_at in (3 * best + 2, 3 * place + 2):  # in the epochs after these
    with pytest.raises(stop.Stopped):
      _curve(images, tmp_path / "broken", 2.0, stop_at)
  rest, again, same = _curve(images, tmp_path / "broken", 2.0)
  assert rest == early[-len(rest) :] and same == score
  _assert_equal(fit.variables_of(again), fit.variables_of(state))


def test_freezing_trains_the_classifier_alone(images):
  start = fit.init_state(_network(), RECIPE, (6, 6, 1), 9, 7)
  recipe = dataclasses.replace(RECIPE, freeze=True)
  before = jax.tree.map(np.asarray, start)
  _, state = _train(images, recipe)
  _assert_equal(before.batch_stats, state.batch_stats)
  head = state.params.pop("classifier"), before.params.pop("classifier")
  _assert_equal(before.params, state.params)
  assert np.abs(head[0]["kernel"] - head[1]["kernel"]).max() > 1e-3


def test_an_unknown_setting_of_a_recipe_gets_one_clear_line():
  for changes, words in (
    ({"epochs": 0}, "epochs is 0: give 1 or more"),
    ({"steps_per_call": 0}, "steps_per_call is 0: give 1 or more"),
    ({"eval_batch_size": 0}, "eval_batch_size is 0: give 1 or more"),
    ({"learning_rate": float("nan")}, "learning_rate is nan: give 0 or more"),
    ({"learning_rate": float("inf")}, "learning_rate is inf: give 0 or more"),
    ({"ema_decay": 1.0}, "ema_decay is 1.0: give 0 or more, below 1"),
    ({"label_smoothing": -0.1}, "label_smoothing is -0.1: give 0 or more"),
    ({"drop_path_keep": 1.5}, "drop_path_keep is 1.5: give a number above 0"),
    ({"dtype": "float16"}, "neither float32 nor bfloat16"),
    (
      {"drop_path_version": "v3"},
      "not one of: time, layer, both, constant, depth",
    ),
    ({"micro_batches": 3}, "does not divide into 3 micro_batches"),
    ({"drop_path_keep": 0.0}, "give a number above 0, 1 at most"),
    ({"label_smoothing": 1.0}, "give 0 or more, below 1"),
    ({"epochs": 0}, "epochs is 0: give 1 or more"),
  ):
    with pytest.raises(ValueError, match=words):
      recipes.Recipe(**changes)
  with pytest.raises(ValueError, match="not one of: momentum, rmsprop"):
    recipes.Recipe(optimizer="adam").make_optimizer()
  with pytest.raises(ValueError, match="not one of: cosine, constant, rest"):
    recipes.Recipe(schedule="step").make_schedule()
  with pytest.raises(ValueError, match="decay_epochs 0: give numbers above 0"):
    recipes.Recipe(decay_epochs=0).make_schedule()


def test_a_stream_that_is_to_give_several_batches_at_once_is_refused():
  recipe = dataclasses.replace(RECIPE, steps_per_call=2)
  with pytest.raises(ValueError, match="steps_per_call is 2, and a stream"):
    fit.make_step(_network(), recipe, AUGMENTATION, streamed=True)


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_step_is_compiled_once(
  images, photographs, devices, streamed, caplog
):
  data = photographs if streamed else images
  with jax.log_compiles():
    _train(data, network=_network(), mesh=mesh.make_mesh(1, devices))
  lines = [r.getMessage() for r in caplog.records]
  compiled = [line for line in lines if line.startswith("Compiling jit(once)")]
  assert len(compiled) == 1
