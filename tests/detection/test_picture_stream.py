"""Batches of pictures: boxes that move with their pixels, buckets, order."""

import numpy as np
import pytest

from nasnet_jax.data.image_data import DataError
from nasnet_jax.detection import picture_stream, pictures


def _splits(tmp_path, write, images):
  images = [
    (
      content,
      side,
      [{"bbox": (x1, y1, x2 - x1, y2 - y1)} for y1, x1, y2, x2 in b],
    )
    for content, side, b in images
  ]
  folder = write.coco(tmp_path / "c", {"train2017": images, "val2017": images})
  return pictures.load("coco", data_dir=folder)


def _painted(tmp_path, write, sides=((60, 90), (90, 60))):
  """Pictures with one white box each, and one without any."""
  images = []
  for number, (h, w) in enumerate(sides):
    boxes = [(6 + number % 3, 12, h // 2, w // 2 + number)]
    images.append((write.painted(h, w, boxes), (h, w), boxes))
  h, w = sides[0]
  images.append((write.painted(h, w, []), (h, w), []))
  return _splits(tmp_path, write, images).train


SIZES = picture_stream.Sizes(
  ((64, 96), (96, 64)), shorter=60, longer=90, max_boxes=4
)


def _bright(image):
  """(y1, x1, y2, x2) of what is white in it."""
  rows, columns = np.where(image[..., 0] > 127)
  return [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]


@pytest.mark.parametrize("jitter", [(1.0, 1.0), (0.6, 1.8)])
def test_boxes_move_with_their_pixels(tmp_path, write, jitter):
  split = _painted(tmp_path, write, ((60, 90), (90, 60), (30, 45), (120, 180)))
  sizes = picture_stream.Sizes(
    SIZES.buckets, shorter=60, longer=90, jitter=jitter, max_boxes=4
  )
  flips = crops = 0
  for batch in picture_stream.Stream(split, sizes).training_batches(
    2, 3, 0, 40
  ):
    for image, valid, boxes, side in zip(
      batch.images,
      batch.labels.truth.valid,
      batch.labels.truth.boxes,
      batch.labels.side,
    ):
      assert not image[side[0] :].any() and not image[:, side[1] :].any()
      crops += (tuple(side) == batch.images.shape[1:3]) and jitter[1] > 1
      if valid.any():
        np.testing.assert_allclose(boxes[0], _bright(image), atol=1.6)
        flips += boxes[0][1] > side[1] - boxes[0][3] + 8
  assert flips > 5 and (crops > 5 or jitter[1] == 1)


def test_evaluation_shows_every_picture_once_and_whole(tmp_path, write):
  split = _painted(tmp_path, write, ((60, 90), (90, 60), (30, 45)) * 2)
  seen = []
  for batch in picture_stream.Stream(split, SIZES).evaluation_batches(4):
    for i in np.flatnonzero(batch.counts):
      seen.append(int(batch.index[i]))
      one = split.annotations[seen[-1]]
      assert tuple(batch.labels.side[i]) == SIZES.scaled(one.side)
      scale = batch.labels.side[i] / one.side
      wanted = one.boxes * np.tile(scale, 2)
      found = batch.labels.truth.boxes[i][batch.labels.truth.valid[i]]
      np.testing.assert_allclose(found, wanted, rtol=1e-5)
  assert sorted(seen) == list(range(7))


def test_batches_have_the_shapes_of_the_buckets(tmp_path, write):
  split = _painted(tmp_path, write, ((60, 90), (90, 60)) * 6)
  batches = list(
    picture_stream.Stream(split, SIZES).training_batches(3, 0, 0, 12)
  )
  shapes = [batch.images.shape[1:3] for batch in batches]
  # At most one batch of an epoch of four holds both kinds.
  for epoch in range(3):
    assert shapes[4 * epoch : 4 * epoch + 4].count((96, 96)) <= 1
  assert {(64, 96), (96, 64)} <= set(shapes) <= {(64, 96), (96, 64), (96, 96)}


def test_an_epoch_shows_no_picture_twice(tmp_path, write):
  split = _painted(tmp_path, write, ((60, 90), (90, 60)) * 3)
  batches = list(
    picture_stream.Stream(split, SIZES).training_batches(2, 5, 0, 6)
  )
  for epoch in (batches[:3], batches[3:]):
    index = np.concatenate([batch.index for batch in epoch])
    assert len(set(index.tolist())) == 6
  orders = [
    np.concatenate([b.index for b in e]).tolist()
    for e in (batches[:3], batches[3:])
  ]
  assert orders[0] != orders[1]


def test_a_batch_depends_on_seed_and_step_alone(tmp_path, write):
  split = _painted(tmp_path, write, ((60, 90), (90, 60)) * 3)
  whole = list(picture_stream.Stream(split, SIZES).training_batches(4, 1, 0, 5))
  later = list(picture_stream.Stream(split, SIZES).training_batches(4, 1, 3, 5))
  np.testing.assert_array_equal(whole[3].images, later[0].images)
  # Two hosts have the rows of one.
  parts = [
    list(
      picture_stream.Stream(split, SIZES, host=h, num_hosts=2).training_batches(
        4, 1, 3, 5
      )
    )
    for h in range(2)
  ]
  for step in range(2):
    both = [part[step] for part in parts]
    np.testing.assert_array_equal(
      np.concatenate([b.images for b in both]), later[step].images
    )
    np.testing.assert_array_equal(
      np.concatenate([b.labels.truth.boxes for b in both]),
      later[step].labels.truth.boxes,
    )


def test_a_cut_off_box_goes_and_a_cut_one_is_clipped():
  change = picture_stream.Change((100, 100), (50, 0), (50, 60), False)
  boxes = np.array(
    [[40, 10, 70, 20], [20, 10, 60, 20], [60, 30, 90, 80], [60, 50, 70, 90]],
    np.float32,
  )
  moved, there = change.move(boxes, (100, 100))
  # The second one's centre is above the part, the last one's right of it.
  assert there.tolist() == [True, False, True, False]
  assert moved[0].tolist() == [0, 10, 20, 20]
  assert moved[2].tolist() == [10, 30, 40, 60]


def test_stretched_pictures_fill_their_bucket(tmp_path, write):
  split = _painted(tmp_path, write)
  sizes = picture_stream.Sizes(
    ((64, 64),), stretch=True, flip=False, max_boxes=4
  )
  (batch,) = picture_stream.Stream(split, sizes).training_batches(2, 0, 0, 1)
  assert batch.labels.side.tolist() == [[64, 64]] * 2
  for image, boxes, valid in zip(
    batch.images, *batch.labels.truth[:1], batch.labels.truth.valid
  ):
    if valid.any():
      np.testing.assert_allclose(boxes[0], _bright(image), atol=1.1)


def test_a_broken_file_is_replaced_in_training_and_missed_in_evaluation(
  tmp_path, write
):
  split = _painted(tmp_path, write)
  broken = split.contents.paths[0]
  with open(broken, "wb") as file:
    file.write(b"no image")
  batches = picture_stream.Stream(split, SIZES, max_broken=1)
  for batch in batches.training_batches(3, 0, 0, 3):
    assert 0 not in batch.index and batch.counts.all()
  found = list(
    picture_stream.Stream(split, SIZES, max_broken=1).evaluation_batches(3)
  )
  seen = [i for b in found for i in b.index[b.counts]]
  assert sorted(seen) == [1, 2]
  with pytest.raises(DataError, match="max_broken"):
    list(picture_stream.Stream(split, SIZES).evaluation_batches(3))


def test_an_annotation_of_another_size_is_an_error(tmp_path, write):
  images = [(write.encoded(20, 30), (20, 31), [(0, 0, 5, 5)])]
  split = _splits(tmp_path, write, images).train
  with pytest.raises(DataError, match=r"20x30, its annotation says 20x31"):
    list(picture_stream.Stream(split, SIZES).evaluation_batches(1))


def test_a_turned_picture_is_read_as_annotated(tmp_path, write):
  from PIL import Image

  exif = Image.Exif()
  exif[0x0112] = 6  # a quarter turn
  content = write.encoded(20, 30, exif=exif)
  assert picture_stream.decode("x", content, (20, 30)).size == (30, 20)
  assert picture_stream.decode("x", content, (30, 20)).size == (20, 30)
  assert picture_stream.decode("x", content).size == (20, 30)


def test_pictures_that_fit_nowhere_are_named(tmp_path, write):
  split = _painted(tmp_path, write)
  small = picture_stream.Sizes(((64, 96),), shorter=60, longer=90)
  with pytest.raises(DataError, match="none of the buckets"):
    picture_stream.Stream(split, small)
  few = picture_stream.Sizes(SIZES.buckets, 60, 90, max_boxes=1)
  many = split.annotations[0]._replace(boxes=np.ones((2, 4), np.float32))
  with pytest.raises(DataError, match="has 2 boxes"):
    picture_stream.Stream(split._replace(annotations=(many,)), few)


@pytest.mark.parametrize(
  ("options", "words"),
  [
    ({"buckets": ()}, "buckets are"),
    ({"buckets": ((8, 8), (9, 9)), "stretch": True}, "one bucket"),
    ({"buckets": ((8, 8),), "jitter": (2.0, 1.0)}, "jitter is"),
    ({"buckets": ((8, 8),), "shorter": 0}, "give 1 or more"),
  ],
)
def test_sizes_that_make_no_sense_are_told(options, words):
  with pytest.raises(DataError, match=words):
    picture_stream.Sizes(**options)


def test_real_pictures_go_through(coco, bccd):
  sizes = picture_stream.Sizes(
    ((96, 128), (128, 96)), shorter=96, longer=128, jitter=(0.8, 1.25)
  )
  for source, folder in (("coco", coco), ("voc", bccd)):
    split = pictures.load(source, data_dir=folder).test
    seen = sum(
      b.counts.sum()
      for b in picture_stream.Stream(split, sizes).evaluation_batches(8)
    )
    assert seen == split.num_images
    for batch in picture_stream.Stream(split, sizes).training_batches(
      8, 0, 0, 2
    ):
      assert batch.images.any()
