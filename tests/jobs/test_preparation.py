"""A picture is prepared for a trained network as its training did it."""

import json
import logging
import types

import flax.linen as nn
import numpy as np
import pytest
from PIL import Image

from nasnet_jax import data
from nasnet_jax.data import augment, pixels
from nasnet_jax.data.image_data import DataError
from nasnet_jax.detection import metrics, picture_stream, pictures
from nasnet_jax.export import samples
from nasnet_jax.jobs import predict, predict_boxes, preparation, results

EDGE = 7  # columns at either side, outside of the square in the middle


class EdgeNetwork(nn.Module):
  """Logits of the classes blue and red by the outermost columns."""

  @nn.compact
  def __call__(self, x, train=False):
    edges = x[:, :, :EDGE].mean((1, 2)) + x[:, :, -EDGE:].mean((1, 2))
    return 9 * edges[:, ::2][:, ::-1], None, None


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
  """The folder of a set of 24x40: noise, but for coloured edges."""
  top = tmp_path_factory.mktemp("wide")
  rng = np.random.default_rng(0)
  for label, channel in (("blue", 2), ("red", 0)):
    (top / label).mkdir()
    for i in range(12):
      noise = rng.integers(0, 256, (24, 40, 3), np.uint8)
      noise[:, :EDGE] = noise[:, -EDGE:] = 255 * np.eye(3)[channel]
      Image.fromarray(noise).save(top / label / f"{i:02}.png")
  return top


@pytest.fixture
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv("NASNET_JAX_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def trained(wide, cache):
  load = {"source": "folder", "path": str(wide), "image_size": None}
  found = data.load(**load)
  about = {
    "image_shape": list(found.image_shape),
    "classes": list(found.class_names),
    "fingerprint": found.fingerprint,
    "load": load,
  }
  return results.Trained(
    EdgeNetwork(),
    {"params": {}},
    augment.Augmentation(),
    {"data": about, "eval_batch_size": 8},
    wide,
  )


def test_wide_pictures_get_the_same_answers_by_every_way(wide, trained):
  paths = preparation.find_images([wide])
  labels = [path.parent.name for path in paths]
  asked = list(predict.classify(trained, paths, batch_size=8, top=1))
  assert [answer.classes[0][0] for answer in asked] == labels
  score = results.evaluate(trained, results.test_images(trained.result))
  assert score.correct == score.examples == 4
  source = types.SimpleNamespace(result=trained.result, image_shape=(24, 40, 3))
  exported = samples.read_images(source, [wide], 99)
  np.testing.assert_array_equal(
    exported, [np.asarray(Image.open(path)) for path in paths]
  )
  logits = trained.predict(exported)
  chosen = [trained.result["data"]["classes"][i] for i in logits.argmax(-1)]
  assert chosen == labels


def test_a_detector_pads_a_picture_as_its_evaluation_does(coco_files, tmp_path):
  coco_files.white_boxes(tmp_path / "boxes", count=3, tests=3)
  split = pictures.load("coco", data_dir=tmp_path / "boxes").test
  sizes = picture_stream.Sizes(((128, 160), (160, 128)), 96, 160)
  batches = picture_stream.Stream(split, sizes).evaluation_batches(1)
  seen = {int(batch.index[0]): batch.images[0] for batch in batches}
  for index, image in seen.items():
    content = (tmp_path / "boxes/val2017" / f"{index:04}.png").read_bytes()
    picture = picture_stream.decode("x", content)
    ours, scaled = predict_boxes.padded(picture, sizes, 8)
    np.testing.assert_array_equal(ours, image)
    assert scaled == sizes.scaled(picture.size[::-1])


def test_a_size_of_the_training_comes_before_that_of_the_network(tmp_path):
  pixels_ = np.random.default_rng(0).integers(0, 256, (60, 40, 3), np.uint8)
  Image.fromarray(pixels_).save(tmp_path / "a.png")
  about = {"image_shape": [24, 24, 3], "load": {"image_size": 12}}
  ours = preparation.read({"data": about}, tmp_path / "a.png")
  content = (tmp_path / "a.png").read_bytes()
  small = pixels.decode("a", content, 12, None)
  np.testing.assert_array_equal(ours, pixels.fit(small, 24))


def test_what_is_scaled_or_converted_is_told(tmp_path, caplog):
  Image.new("RGB", (30, 30)).save(tmp_path / "a.png")
  preparation._tell_size.cache_clear()
  preparation._tell_channels.cache_clear()
  result = {"data": {"image_shape": [8, 11, 1], "load": {}}}
  for _ in range(2):
    assert preparation.read(result, tmp_path / "a.png").shape == (8, 11, 1)
  assert caplog.text.count("8x11 (height x width) as they are") == 1
  assert caplog.text.count("images of 1 channel(s)") == 1


def test_four_channels_are_colour_and_opacity_everywhere(tmp_path):
  image = Image.new("RGBA", (5, 6), (1, 2, 3, 40))
  image.save(tmp_path / "a.png")
  image.convert("RGB").save(tmp_path / "b.png")
  result = {"data": {"image_shape": [6, 5, 4], "load": {}}}
  found = [preparation.read(result, tmp_path / f"{x}.png") for x in "ab"]
  assert [image[0, 0].tolist() for image in found] == [
    [1, 2, 3, 40],
    [1, 2, 3, 255],
  ]


# Folders with what does not belong there


@pytest.fixture
def messy(tmp_path):
  """Six good pictures, two broken, and leftovers."""
  top = tmp_path / "messy"
  (top / ".ipynb_checkpoints").mkdir(parents=True)
  for i in range(6):
    Image.new("RGB", (40, 24), (255 * (i % 2), 0, 90)).save(top / f"{i}.png")
  content = (top / "0.png").read_bytes()
  (top / ".ipynb_checkpoints" / "0-checkpoint.png").write_bytes(content)
  (top / "._1.png").write_bytes(bytes(4096))
  (top / "6.png").write_bytes(content[: len(content) // 2])
  (top / "7.png").write_bytes(b"")
  (top / "film.mp4").write_bytes(b"x")
  return top


def test_leftovers_are_not_asked_about_and_told(messy, caplog):
  found = preparation.find_images([messy])
  assert [path.name for path in found] == [f"{i}.png" for i in range(8)]
  assert "left out: 1 .mp4, 1 hidden (.ipynb_checkpoints)" in caplog.text


def test_broken_files_are_listed_and_all_others_answered(
  messy, trained, tmp_path
):
  paths, broken = preparation.find_images([messy]), []
  answers = list(predict.classify(trained, paths, 4, 2, broken))
  assert [answer.path for answer in answers] == paths[:6]
  assert len(broken) == 2 and "7.png is broken (it is empty" in broken[1]
  as_csv, as_json = predict.write(answers, broken, tmp_path / "out")
  lines = as_csv.read_text().splitlines()
  assert lines[0] == "file,class,probability,rank" and len(lines) == 13
  rows = json.loads(as_json.read_text())
  assert [row["file"] for row in rows[:6]] == [str(path) for path in paths[:6]]
  assert rows[0]["class"] == answers[0].classes[0][0]
  assert rows[6:] == [{"error": line} for line in broken]
  # Earlier answers stay.
  assert predict.write(answers, broken, tmp_path / "out")[0].stem == "answers_2"
  with pytest.raises(DataError, match=r"6\.png is broken"):
    list(predict.classify(trained, paths, 4))


def test_an_export_reads_as_many_pictures_as_it_needs(
  messy, trained, caplog, monkeypatch
):
  read, seen = preparation.read, []

  def counted(result, path):
    seen.append(path.name)
    return read(result, path)

  monkeypatch.setattr(preparation, "read", counted)
  source = types.SimpleNamespace(result=trained.result, image_shape=(24, 40, 3))
  assert len(samples.read_images(source, [messy], 3)) == 2
  assert seen == ["0.png", "4.png", "7.png"]  # evenly; the last is broken
  assert "7.png is broken (it is empty, 0 bytes)" in caplog.text
  with pytest.raises(DataError, match="none of the 1 images picked"):
    samples.read_images(source, [messy / "7.png"], 3)


def test_a_list_may_come_from_windows_and_not_name_itself(messy):
  (messy / "list.txt").write_bytes(
    "\ufeff0.png\r\n..\\messy\\1.png\r\n".encode()
  )
  found = preparation.find_images([messy / "list.txt"])
  assert [path.name for path in found] == ["0.png", "1.png"]
  (messy / "own.txt").write_text("own.txt")
  with pytest.raises(DataError, match="a list that names itself"):
    preparation.find_images([messy / "own.txt"])
  with pytest.raises(DataError, match="is an archive: unpack it"):
    (messy / "a.zip").write_bytes(b"")
    preparation.find_images([messy / "a.zip"])


def test_boxes_are_written_to_one_table_too(tmp_path):
  found = metrics.Found(
    np.array([[1.0, 2, 3, 4]]), np.array([0.9]), np.array([1])
  )
  none = metrics.Found(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
  answers = [
    predict_boxes.Answer(tmp_path / "a.png", (9, 9), found),
    predict_boxes.Answer(tmp_path / "b.png", (9, 9), none),
  ]
  as_csv, as_json = predict_boxes.write(
    answers, ["cat", "dog"], ["x"], tmp_path
  )
  assert as_csv.read_text().splitlines() == [
    "file,class,score,x1,y1,x2,y2",
    f"{tmp_path}/a.png,dog,0.9,2.0,1.0,4.0,3.0",
    f"{tmp_path}/b.png,,,,,,",
  ]
  assert len(json.loads(as_json.read_text())) == 3


# Words on pictures


@pytest.mark.parametrize("name", ["größe", "кошка", "γάτα", "cafe\u0301"])
def test_a_font_is_found_that_has_the_signs(name):
  from nasnet_jax.jobs import lettering

  font, words = lettering.font_for(f"93.4 %  {name}", 20)
  missing = font.getmask("\U0010ffff").getbbox(), font.getlength("\U0010ffff")
  for sign in words.replace(" ", ""):
    box = font.getmask(sign)
    blank = font.getmask("\U0010ffff")
    assert bytes(box) != bytes(blank) or box.size != blank.size, missing


def test_signs_that_no_font_has_are_drawn_as_numbers_and_told(
  monkeypatch, caplog
):
  from nasnet_jax.jobs import lettering

  own = lettering._fonts()[:1]
  monkeypatch.setattr(lettering, "_fonts", lambda: own)
  lettering._file_for.cache_clear()
  lettering._tell.cache_clear()
  with caplog.at_level(logging.WARNING):
    _, words = lettering.font_for("50 % \u732b", 20)
  assert words.strip() == "50 % U+732B"
  assert "install one that has" in caplog.text
  lettering._file_for.cache_clear()


def _checkpoint(mean, std, center):
  aug = augment.Augmentation(mean=mean, std=std)
  about = {"data": {"center": center}}
  return results.Trained(None, {}, aug, about, "runs/old")


def test_fine_tuning_tells_what_it_does_otherwise_with_pictures(caplog):
  def tell(found, center=0.875, channels=3):
    caplog.clear()
    stream = {} if center is None else {"stream": {"center": center}}
    data = {"image_shape": (8, 8, channels), "load": stream}
    preparation.tell_difference(found, augment.PHOTOGRAPHS, data)
    return [record.getMessage() for record in caplog.records]

  same = _checkpoint((0.5,) * 3, (0.5,) * 3, 0.875)
  assert tell(same) == []
  assert tell(same, center=None) == []  # no photographs
  (line,) = tell(_checkpoint((0.485, 0.456, 0.406), (0.2,) * 3, 0.875))
  assert "by mean (0.5) and std (0.5), and those of runs/old by" in line
  assert "(0.485, 0.456, 0.406)" in line
  assert tell(_checkpoint((0.3,), (0.5,), None), channels=1)
  (line,) = tell(same, center=0.7)
  assert "the middle 0.7 of" in line
  assert "runs/old at 0.875" in line
