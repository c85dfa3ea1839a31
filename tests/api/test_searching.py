"""A search on arrays, in a call."""

import json
import tempfile

import numpy as np
import pytest

import nasnet_jax as nas
from nasnet_jax.cli import shipped
from nasnet_jax.search import rewards
from nasnet_jax.training import own_parts

_OPERATIONS = ("identity", "max_pool_3x3")


def _images(count=160, seed=0):
  """Bright and dark squares of 8x8 pixels, and which of both they are."""
  rng = np.random.default_rng(seed)
  labels = rng.integers(2, size=count)
  images = (
    rng.integers(0, 100, (count, 8, 8, 1)) + 120 * labels[:, None, None, None]
  )
  return images.astype(np.uint8), labels


def _config():
  config = shipped.config("search_cifar:tiny").unlock()
  config.space.num_blocks = 1
  config.space.operations = _OPERATIONS
  config.network.num_reductions = config.final.network.num_reductions = 1
  config.search.children = 3
  config.search.children_per_round = 3
  config.child.batch_size = config.final.batch_size = 16
  config.final.eval_batch_size = 20
  config.final.top_k = 1
  config.data.augmentation.flip = False
  return config


@pytest.fixture(name="study", scope="module")
def _study(tmp_path_factory):
  folder = tmp_path_factory.mktemp("search") / "run"
  yield nas.search(*_images(), folder=folder, config=_config(), reward=_small)
  rewards.OWN.clear()
  own_parts.forget()


def _small(row):
  return row["accuracy"] - row["params"] / 1e8


def test_a_reward_of_ones_own_is_told_and_recorded(study):
  for row in study.children:
    assert row["reward"] == pytest.approx(_small(row), abs=1e-6)
  (own,) = study.result["own_parts"]["reward"].values()
  assert own["is"] == f"{__name__}:_small"
  assert study.config["own_parts"] == study.result["own_parts"]

  def _other(row):
    return row["params"]

  _other.__name__ = "_small"
  again = {"folder": study.folder, "config": _config()}
  with pytest.raises(ValueError, match="begun with another reward '_small'"):
    nas.search(*_images(), reward=_other, **again)
  nas.reward("_small")(_small)


def test_a_search_on_arrays_ends_with_a_network_that_predicts(study):
  images, _ = _images(20, seed=1)
  logits = np.asarray(study.winner.predict(images))
  assert logits.shape == (20, 2)
  floats = np.asarray(study.winner.predict(images / 255))
  np.testing.assert_array_equal(floats, logits)
  assert len(study.children) == 3


def test_the_run_remembers_its_arrays(study):
  config = json.loads((study.folder / "config.json").read_text())
  digits = config["data_fingerprint"]
  assert (study.folder / f"arrays-{digits}.npz").exists()
  images, labels = _images()
  labels = 1 - labels
  with pytest.raises(ValueError, match="a search on other images or labels"):
    nas.search(images, labels, folder=study.folder, config=_config())


def test_the_same_call_finds_what_is_finished(study):
  before = (study.folder / "result.json").read_bytes()
  again = nas.search(
    *_images(), folder=study.folder, config=_config(), reward=_small
  )
  assert (again.folder / "result.json").read_bytes() == before


def _wrong(**changes):
  images, labels = _images()
  return {"images": images, "labels": labels, **changes}


@pytest.mark.parametrize(
  ("given", "words"),
  [
    ({"images": np.zeros((160, 8, 8), np.uint8)}, "grey images need their"),
    ({"images": np.full((160, 8, 8, 1), np.nan)}, "NaN or infinite"),
    ({"images": np.full((160, 8, 8, 1), 16.0)}, "divide by 16"),
    ({"images": np.zeros((160, 1, 8, 8), np.uint8)}, "8 channels"),
    ({"labels": np.zeros(160)}, "labels are float64"),
    ({"labels": np.zeros(160, int)}, "nothing to tell apart"),
    ({"labels": np.arange(9) % 2}, "160 images but 9 labels"),
    ({"labels": np.arange(160) % 2 * 2}, "has no training image"),
    ({"valid": 2.0}, "valid is 2.0: give a share"),
    ({"test": 7}, "test is 7: give a share"),
    ({"reward": {"knd": "accuracy"}}, "did you mean 'kind'"),
    ({"limit": {"parms": 3}}, "did you mean 'params'"),
    ({"strategy": "evolutoin"}, "did you mean 'evolution'"),
    ({"space": "genetic_cnn"}, "is no space of cells"),
    ({"objectives": "accuracy"}, "give two or more"),
    ({"objectives": ("accuracy", "params")}, "so write '-params'"),
    (
      {"objectives": ("accuracy", "-params"), "strategy": "ppo"},
      "'ppo' is told 1 of each child: take 'evolution'",
    ),
    ({"seed": -1}, "seed is -1"),
    ({"hours": -1}, "search.hours is -1"),
    ({"reward": lambda row: row["latency"]}, "has no 'latency'"),
  ],
)
def test_bad_input_is_one_clear_line_and_leaves_no_folder(
  tmp_path, monkeypatch, given, words
):
  monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
  (tmp_path / "temporary").mkdir()
  for folder in (tmp_path / "new", None):
    with pytest.raises(ValueError, match=words) as caught:
      nas.search(**_wrong(**given), folder=folder)
    assert "\n" not in str(caught.value)
  assert not (tmp_path / "new").exists()
  assert not [*(tmp_path / "temporary").iterdir()]


def test_fewer_images_than_a_batch_are_refused(tmp_path):
  images, labels = _images(24)
  with pytest.raises(ValueError, match="fewer than one batch of 32"):
    nas.search(images, labels, folder=tmp_path)


def test_sizes_follow_the_images():
  from nasnet_jax.api import given_images, searching

  images, labels = _images()
  data = given_images.take(images, labels, (images, labels), 0.25, 0)
  made = searching._config(None, data)
  assert made.network.num_reductions == 1  # 8 pixels, then 4
  assert (made.data.num_valid, made.data.valid_last) == (160, True)
  assert made.data.augmentation.pad == 1


def test_a_study_goes_on_with_more_children(study, tmp_path):
  import shutil

  moved = tmp_path / "moved"
  shutil.copytree(study.folder, moved)
  longer = nas.Study(moved).resume(children=4)
  assert longer.children[:3] == study.children
  assert len(longer.children) == 4
  with pytest.raises(ValueError, match="did you mean 'children'"):
    longer.resume(childrn=4)


def test_any_child_of_a_study_can_be_trained(study, tmp_path):
  trained = study.train(1, tmp_path / "child", epochs=1)
  assert trained.result["winner"]["genotype"] == study.genotype(1)
  assert trained.predict(_images(2)[0]).shape == (2, 2)
