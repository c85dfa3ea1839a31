"""Answers to image files: which files, how they are cut, what is drawn."""

import numpy as np
import pytest
from PIL import Image

from nasnet_jax import zoo
from nasnet_jax.data import augment
from nasnet_jax.data.image_data import DataError
from nasnet_jax.jobs import predict, preparation, results
from nasnet_jax.models import block_network

NAMES = [f"class {i}" for i in range(7)]


@pytest.fixture(scope="module")
def network(random_variables, tmp_path_factory):
  """A small network of photographs, at 224 pixels."""
  folder = tmp_path_factory.mktemp("predict") / "run"
  config = block_network.BlockConfig(width=0.125, num_classes=7)
  module = block_network.BlockNetwork(
    config, zoo.blocks.architecture("mobilenet_v1")
  )
  results.save(
    folder,
    "mobilenet_v1",
    module,
    random_variables(module, 32),
    class_names=NAMES,
    augmentation=augment.EFFICIENTNET,
    center=0.5,
  )
  return results.load(folder)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
  """A folder of three pictures, one of them deeper, and a list of two."""
  folder = tmp_path_factory.mktemp("pictures")
  (folder / "deeper").mkdir()
  rng = np.random.default_rng(0)
  for i, name in enumerate(("b.png", "a.jpg", "deeper/a.png")):
    pixels = rng.integers(0, 256, (30 + 9 * i, 40, 3), np.uint8)
    Image.fromarray(pixels).save(folder / name)
  (folder / "notes.md").write_text("no image")
  (folder / "list.txt").write_text("b.png\n\ndeeper\n")
  return folder


def test_files_folders_and_lists_are_found_in_order(pictures):
  def names(*paths):
    found = preparation.find_images([pictures / path for path in paths])
    return [str(path.relative_to(pictures)) for path in found]

  assert names(".") == ["a.jpg", "b.png", "deeper/a.png"]
  assert names("list.txt", "a.jpg") == ["b.png", "deeper/a.png", "a.jpg"]
  with pytest.raises(DataError, match="is not there: give images"):
    names("c.png")
  (pictures / "empty").mkdir(exist_ok=True)
  with pytest.raises(DataError, match=r"no image is in .*empty"):
    names("empty")


@pytest.mark.parametrize("batch_size", [1, 2, 50])
def test_answers_do_not_depend_on_the_batch(network, pictures, batch_size):
  paths = preparation.find_images([pictures])
  answers = list(predict.classify(network, paths, batch_size))
  assert [answer.path for answer in answers] == paths
  for answer in answers:
    with Image.open(answer.path) as image:
      middle = min(image.size) / 2  # `center` is a half
      left, top = ((side - middle) / 2 for side in image.size)
      box = (left, top, left + middle, top + middle)
      cut = image.resize((224, 224), Image.Resampling.BICUBIC, box)
    logits = np.asarray(network.predict(np.asarray(cut)[None]))[0]
    chances = np.exp(logits - logits.max())
    chances /= chances.sum()
    order = np.argsort(-chances)[:5]
    assert [name for name, _ in answer.classes] == [NAMES[i] for i in order]
    np.testing.assert_allclose(
      [p for _, p in answer.classes], chances[order], rtol=1e-3
    )


def test_a_loaded_network_is_one_program_and_not_one_per_layer(
  network, compilations
):
  assert network.predict(np.zeros((4, 32, 32, 3), np.uint8)).shape == (4, 7)
  assert 0 < len(compilations) < 10  # whitening is a few more


def test_a_network_of_small_images_sees_the_whole_picture(pictures):
  result = {"data": {"image_shape": [8, 8, 1], "load": {"source": "digits"}}}
  image = preparation.read(result, pictures / "b.png")
  assert image.shape == (8, 8, 1)


def test_pictures_are_drawn_with_their_answers(pictures, tmp_path):
  answer = predict.Answer(pictures / "b.png", (("cat", 0.9), ("dog", 0.1)))
  first, second = (predict.draw(answer, tmp_path) for _ in range(2))
  assert (first.name, second.name) == ("b.png", "b_2.png")
  with Image.open(first) as image:
    assert image.width == 320 and image.height > 240  # 40x30, and words
    below = np.asarray(image)[240:]
  assert (below != 255).any()
  more = predict.draw(answer._replace(classes=answer.classes[:1]), tmp_path)
  with Image.open(more) as image:
    assert image.height < 240 + below.shape[0]


def test_bad_images_and_numbers_get_one_clear_line(network, pictures):
  for path, words in (
    (pictures / "notes.md", "notes.md is broken"),
    (pictures / "none.png", "none.png cannot be read"),
  ):
    with pytest.raises(DataError, match=words) as error:
      list(predict.classify(network, [path]))
    assert "\n" not in str(error.value)
  with pytest.raises(ValueError, match="batch_size is 0 and top 5"):
    list(predict.classify(network, [pictures / "b.png"], batch_size=0))
