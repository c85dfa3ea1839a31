"""What is kept of a network's answers to the test images."""

import base64
import io
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from nasnet_jax.data import augment
from nasnet_jax.jobs import tested_answers
from nasnet_jax.training import datasets, evaluation

AUGMENTATION = augment.Augmentation(mean=(0.0,), std=(1.0,))


class _Reads(nn.Module):
  """Logits that stand in the first pixels, so that answers are known."""

  @nn.compact
  def __call__(self, images, train):
    del train
    return images.reshape(len(images), -1)[:, :3] * 8.0, None, {}


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
  """(content of the file, images, labels, the score) of made-up images."""
  folder = tmp_path_factory.mktemp("run")
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (50, 2, 2, 1)).astype(np.uint8)
  labels = rng.integers(0, 3, 50).astype(np.int32)
  kept = tested_answers.Kept(("a", "b", "c"))
  evaluate = evaluation.make_evaluate(
    _Reads(), AUGMENTATION, 16, by_class=True, watch=kept.see
  )
  data = datasets.Images(jnp.asarray(images), jnp.asarray(labels))
  score = evaluate({}, data)
  kept.write(folder, score.top_5)
  content = json.loads((folder / "test_answers.json").read_text())
  return content, images, labels, score


def _said(images):
  return images.reshape(len(images), -1)[:, :3].argmax(1)


def test_the_matrix_counts_every_image_once(answered):
  content, images, labels, score = answered
  matrix = np.zeros((3, 3), int)
  np.add.at(matrix, (labels, _said(images)), 1)
  assert content["confusion"] == matrix.tolist()
  assert (content["examples"], content["correct"]) == (50, score.correct)
  assert [(row["correct"], row["examples"]) for row in content["classes"]] == [
    *score.by_class
  ]


def test_the_score_is_that_of_an_evaluation_that_keeps_nothing(answered):
  _, images, labels, score = answered
  evaluate = evaluation.make_evaluate(_Reads(), AUGMENTATION, 16, by_class=True)
  data = datasets.Images(jnp.asarray(images), jnp.asarray(labels))
  assert evaluate({}, data) == score


def _pixels(uri: str) -> np.ndarray:
  data = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
  return np.asarray(Image.open(io.BytesIO(data)))


def test_the_most_confident_wrong_pictures_come_first(answered):
  content, images, labels, _ = answered
  logits = images.reshape(50, -1)[:, :3] / 255 * 8.0
  share = np.asarray(jax.nn.softmax(logits)).max(1)
  wrong = np.flatnonzero(_said(images) != labels)
  order = wrong[np.argsort(-share[wrong], kind="stable")]
  assert len(order) > tested_answers.WRONG == len(content["wrong"])
  for row, i in zip(content["wrong"], order):
    assert row["share"] == pytest.approx(share[i], abs=1e-4)
    assert (row["is"], row["said"]) == (
      "abc"[labels[i]],
      "abc"[_said(images)[i]],
    )
    np.testing.assert_array_equal(_pixels(row["picture"]), images[i, ..., 0])


def test_some_pictures_of_each_class_are_kept(answered):
  content, images, labels, _ = answered
  rows = content["sample"]
  assert [row["is"] for row in rows] == [c for c in "abc" for _ in range(3)]
  first = images[np.flatnonzero(labels == 0)[0], ..., 0]
  np.testing.assert_array_equal(_pixels(rows[0]["picture"]), first)


def test_what_cannot_be_kept_is_a_warning(tmp_path, caplog):
  kept = tested_answers.Kept(("a",))
  labels = np.array([5])  # no such class
  kept.see(
    evaluation.Answers(labels, labels, np.ones(1), np.array([True]), None)
  )
  kept.write(tmp_path, 0)
  (line,) = caplog.messages
  assert "will not show which test images were wrong" in line
  assert not [*tmp_path.iterdir()]


def test_pictures_are_small():
  large = np.zeros((300, 200, 3), np.uint8)
  uri = tested_answers.small(large)
  assert uri.startswith("data:image/jpeg;base64,") and len(uri) < 4000


def test_of_many_classes_the_most_frequent_mistakes_are_kept(tmp_path):
  names = [f"class {i}" for i in range(100)]
  kept = tested_answers.Kept(names)
  labels = np.array([7, 7, 7, 9, 9, 5])
  said = np.array([3, 3, 7, 2, 9, 5])
  picture = np.zeros((2, 2, 1), np.uint8)
  kept.see(
    evaluation.Answers(
      labels, said, np.ones(6), np.ones(6, bool), lambda _: picture
    )
  )
  kept.write(tmp_path, 6)
  content = json.loads((tmp_path / "test_answers.json").read_text())
  # Rows are the classes that there are: 5, 7, 9.
  assert content["confusion"] is None
  assert content["pairs"] == [[1, 3, 2], [2, 2, 1]]
