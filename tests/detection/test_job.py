"""The detection job: training, meshes, checkpoints, answers."""

import importlib.util
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from nasnet_jax.data.augment import Augmentation
from nasnet_jax.detection import detector as det
from nasnet_jax.detection import evaluation, picture_stream
from nasnet_jax.detection.loss import make_loss
from nasnet_jax.jobs import detect, predict_boxes, results, train
from nasnet_jax.training import (
  checkpoint,
  datasets,
  fit,
  mesh,
  recipes,
  sharded,
  workdir,
)

ROOT = pathlib.Path(__file__).parents[2]


def _config(name, variant="tiny"):
  path = ROOT / "configs" / f"{name}.py"
  spec = importlib.util.spec_from_file_location(name, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(variant)


@pytest.fixture(scope="module")
def made_up(tmp_path_factory, write):
  """Ten pictures of white boxes in COCO's layout; one has none."""
  return write.white_boxes(tmp_path_factory.mktemp("data") / "boxes")


def _tiny(made_up, **changes):
  config = _config("detect_voc")
  config.data.source = "coco"
  config.data.data_dir = str(made_up)
  config.train.batch_size = 2
  config.train.epochs = 1
  config.train.warmup_epochs = 0.0
  config.train.eval_batch_size = 4
  config.data.options.valid_split = "val2017"
  config.network.depth = 0.1  # a block of each kind
  config.update_from_flattened_dict(changes)
  return config


@pytest.fixture(scope="module")
def trained_run(made_up, tmp_path_factory):
  folder = tmp_path_factory.mktemp("runs") / "run"
  return folder, detect.run(_tiny(made_up), folder)


def test_a_run_says_what_came_out(trained_run):
  folder, result = trained_run
  assert result == json.loads((folder / "result.json").read_text())
  assert result["data"]["classes"] == ["cell", "dust"]
  assert result["test"]["images"] == 7
  assert result["test"]["voc_ap50_by_class"]["cell"] is None
  assert 0 <= result["test"]["voc_ap50"] <= 1
  rows = (folder / "retrain.jsonl").read_text().splitlines()
  (row,) = map(json.loads, rows)
  assert row["step"] == 5 and row["valid_accuracy"] is not None
  assert not (folder / "checkpoints").exists()
  assert (folder / "figures" / "training.png").exists()
  kept = json.loads((folder / "test_answers.json").read_text())
  assert kept["by_class"][0]["true"] == 0  # no cell is there
  assert sum(row["true"] for row in kept["by_class"]) > 0
  assert 0 < len(kept["boxes"]) <= 6
  assert "What it finds" in (folder / "report.html").read_text()


def test_a_finished_run_is_not_run_again(trained_run, made_up, monkeypatch):
  folder, result = trained_run
  monkeypatch.setattr(detect, "_train", None)
  assert detect.run(_tiny(made_up), folder) == result


def test_a_loaded_detector_answers_as_the_run_did(trained_run, made_up):
  folder, result = trained_run
  found = predict_boxes.load(folder)
  load = result["data"]["load"]
  data = detect.open_data(**load)
  assert data.splits.fingerprint == result["data"]["fingerprint"]
  evaluate = evaluation.make_evaluate(found.network, found.augmentation, 4)
  score = evaluate(found.variables, data.test)
  assert score.accuracy == pytest.approx(result["test"]["voc_ap50"], abs=1e-6)
  assert score.images == 7


def test_answers_are_in_pixels_of_the_picture(trained_run, tmp_path):
  folder, _ = trained_run
  detector = predict_boxes.load(folder)
  rng = np.random.default_rng(1)
  pixels = rng.integers(0, 256, (60, 200, 3), np.uint8)  # fits no bucket
  path = tmp_path / "wide.png"
  Image.fromarray(pixels).save(path)
  (answer,) = predict_boxes.find(detector, [path])
  assert answer.side == (60, 200) and len(answer.found.boxes)
  assert (answer.found.boxes[:, 2:] <= [60.01, 200.01]).all()
  drawn = predict_boxes.draw(answer, ["cell", "dust"], tmp_path / "out")
  with Image.open(drawn) as image:
    assert image.size == (200, 60)
    assert (np.asarray(image) != pixels).any()
  said = json.loads(drawn.with_suffix(".json").read_text())
  assert said["width"] == 200 and said["height"] == 60
  first = said["detections"][0]
  y1, x1, y2, x2 = answer.found.boxes[0]
  np.testing.assert_allclose(first["box"], [x1, y1, x2, y2], atol=0.01)
  assert first["class"] in ("cell", "dust")
  again = predict_boxes.draw(answer, ["cell", "dust"], tmp_path / "out")
  assert again.name == "wide_2.png"
  (none,) = predict_boxes.find(detector, [path], least_score=1.0)
  assert not len(none.found.boxes)


def test_a_classifier_is_told_from_a_detector(tmp_path):
  (tmp_path / "result.json").write_text('{"job": "train"}')
  with pytest.raises(workdir.WorkdirError, match="no detector"):
    predict_boxes.load(tmp_path)


@pytest.fixture(scope="module")
def parts(made_up):
  """A tiny detector with frozen batch norm, before training."""
  config = _tiny(made_up, **{"detector.bn_frozen": True})
  parts = detect.prepare(config)
  state = fit.init_state(
    parts.network, parts.recipe, parts.data.train.image_shape, 5, 0
  )
  return parts, fit.variables_of(state)


@pytest.mark.parametrize("devices", [2, 4])
def test_no_image_counts_twice_on_any_mesh(parts, devices):
  made, variables = parts
  scores = []
  for on in (None, mesh.make_mesh(1, devices, jax.devices()[:devices])):
    evaluate = evaluation.make_evaluate(made.network, made.augmentation, 4, on)
    scores.append(evaluate(variables, made.data.train))
  for score in scores:
    assert score.images == 10 and len(score.found) == 10
  for one, other in zip(*(score.found for score in scores)):
    assert len(one.boxes)
    np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-2)
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)
  with pytest.raises(ValueError, match="does not divide"):
    evaluation.make_evaluate(made.network, made.augmentation, 3, on)


@pytest.mark.slow
@pytest.mark.parametrize("shard_params", [False, True])
def test_two_devices_make_the_step_of_one(parts, shard_params):
  """With weights whole on both, and with half of each on one."""
  made, _ = parts
  (batch,) = made.data.train.training_batches(4, 0, 0, 1)
  recipe = recipes.Recipe(
    epochs=1, batch_size=4, learning_rate=0.1, drop_path_keep=1.0
  )
  states = []
  for on in (None, mesh.make_mesh(1, 2, jax.devices()[:2])):
    step = fit.make_step(
      made.network,
      recipe,
      made.augmentation,
      on,
      streamed=True,
      shard_params=shard_params,
      make_loss=make_loss,
    )
    state = fit.init_state(
      made.network, recipe, made.data.train.image_shape, 5, 0
    )
    if on is not None:
      where = sharded.state_shardings(state, on, "data", shard_params)
      divided = [
        not leaf.is_fully_replicated for leaf in jax.tree.leaves(where)
      ]
      assert any(divided) == shard_params
      state = mesh.put(state, where)
    state, told = jax.jit(step)(
      state, datasets.Images(batch.images, batch.labels)
    )
    states.append((state.params, told["loss"]))
  for one, other in zip(*map(jax.tree.leaves, states)):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_a_classifier_gives_the_backbone_and_names_what_is_new(
  parts, tmp_path, caplog
):
  made, variables = parts
  backbone = made.network.body.alone()
  classes = jax.eval_shape(
    backbone.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3))
  )
  rng = np.random.default_rng(0)
  weights = jax.tree.map(
    lambda x: rng.normal(size=x.shape).astype(np.float32), classes
  )
  found = results.Trained(backbone, weights, Augmentation(), {}, tmp_path)
  started = detect.from_classifier(found)(variables)
  for collection in ("params", "batch_stats"):
    kept = dict(weights[collection])
    kept.pop("classifier", None)
    assert jax.tree.all(
      jax.tree.map(np.array_equal, kept, started[collection]["backbone"])
    )
  assert started["params"]["rpn"] is variables["params"]["rpn"]
  weights["params"].pop("stem_conv")
  with pytest.raises(checkpoint.CheckpointError, match="missing: stem_conv"):
    detect.from_classifier(found)(variables)


@pytest.mark.slow
def test_training_starts_from_a_finished_classifier(tmp_path, made_up, caplog):
  """The classifier's cells, sizes and whitening are the detector's."""
  config = _config_of_classifier(tmp_path)
  classifier = tmp_path / "classifier"
  train.run(config, classifier)
  again = _tiny(
    made_up,
    **{
      "model.genotype": "",
      "model.checkpoint": str(classifier),
      "detector.bn_frozen": True,
      "train.learning_rate": 0.0,
      "train.weight_decay": 0.0,
      "data.options.valid_split": None,
    },
  )
  with caplog.at_level("INFO", "nasnet_jax"):
    detect.run(again, tmp_path / "detector")
  assert "new, and not of the checkpoint: box_head, rpn" in caplog.text
  old, new = results.load(classifier), predict_boxes.load(tmp_path / "detector")
  for collection in ("params", "batch_stats"):
    kept = dict(old.variables[collection])
    kept.pop("classifier", None)
    assert jax.tree.all(
      jax.tree.map(np.array_equal, kept, new.variables[collection]["backbone"])
    )
  again.model.genotype = "mobilenet_v1"
  with pytest.raises(ValueError, match=r"set config\.model\.genotype to ''"):
    detect.prepare(again)


def _config_of_classifier(tmp_path):
  """Two classes of pictures for a row of blocks."""
  config = _config("train_cifar")
  config.model.genotype = "mobilenet_v1"
  with config.unlocked():
    config.network = _config("detect_voc").network
    config.network.dropout = 0.0
  config.data.source = "folder"
  config.data.max_per_class = None
  config.data.num_valid = 0
  config.train.epochs = 1
  config.train.batch_size = 4
  rng = np.random.default_rng(0)
  for label in ("train/a", "train/b", "test/a", "test/b"):
    (tmp_path / "photos" / label).mkdir(parents=True)
    for number in range(4):
      pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
      path = tmp_path / "photos" / label / f"{number}.png"
      Image.fromarray(pixels).save(path)
  config.data.options.path = str(tmp_path / "photos")
  return config


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"model.genotype": ""}, "neither a published cell"),
    ({"train.patience_epochs": 1.0}, "needs images to score"),
    ({"train.batch_size": 20}, "fewer than one batch"),
    ({"detector.crop": "warp"}, "neither resize nor align"),
    ({"train.steps_per_call": 2}, "a stream gives one"),
    ({"data.sizes.shorter": 500, "data.sizes.longer": 900}, "buckets"),
  ],
)
def test_a_config_that_fits_not_is_told_in_a_line(made_up, changes, words):
  changes = {"data.options.valid_split": None} | changes
  with pytest.raises(ValueError, match=words) as error:
    detect.prepare(_tiny(made_up, **changes))
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  ("name", "variant", "side"),
  [
    ("detect_coco", "", 600),
    ("detect_coco", "large_800", 800),
    ("detect_coco", "large_1200", 1200),
    ("detect_voc", "", 600),
    ("detect_voc", "bccd", 240),
  ],
)
def test_configs_name_fields_that_there_are(name, variant, side):
  config = _config(name, variant)
  fields = config.detector.to_dict()
  anchors = fields.pop("anchors")
  fields.pop("bn_frozen")
  det.DetectorConfig(**fields, anchors=det.Anchors(**anchors))
  sizes = detect.make_sizes(config.data.sizes.to_dict())
  assert sizes.shorter == side
  assert picture_stream.Sizes(sizes.buckets).largest >= (side, side)
  fields = config.train.to_dict()
  known = set(recipes.Recipe.__dataclass_fields__)
  assert set(fields) - known == {"seed", "checkpoint_seconds"}
