"""Made-up pictures with boxes, as COCO, VOC and tfds have them."""

import io
import json
import pathlib
import tarfile

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
  """An empty cache, so that no test reads what another wrote."""
  monkeypatch.setenv("NASNET_JAX_CACHE", str(tmp_path / "cache"))


def encoded(height, width, seed=0, **options) -> bytes:
  """A PNG of noise."""
  rng = np.random.default_rng(seed)
  pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, "png", **options)
  return buffer.getvalue()


def painted(height, width, boxes) -> bytes:
  """A black PNG whose boxes (y1, x1, y2, x2) are white."""
  pixels = np.zeros((height, width, 3), np.uint8)
  for y1, x1, y2, x2 in boxes:
    pixels[y1:y2, x1:x2] = 255
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, "png")
  return buffer.getvalue()


def write_coco(folder, splits, categories=((1, "cell"), (7, "dust"))):
  """COCO's layout. splits: {name: [(content, (h, w), [annotation fields])]};
  an annotation has bbox (x, y, width, height), and may have more."""
  folder = pathlib.Path(folder)
  (folder / "annotations").mkdir(parents=True)
  for split, images in splits.items():
    (folder / split).mkdir()
    data = {"images": [], "annotations": []}
    data["categories"] = [{"id": i, "name": n} for i, n in categories]
    for number, (content, side, annotations) in enumerate(images):
      name = f"{number:04}.png"
      (folder / split / name).write_bytes(content)
      image_id = 100 + number
      data["images"].append(
        {
          "id": image_id,
          "file_name": name,
          "height": side[0],
          "width": side[1],
        }
      )
      for fields in annotations:
        _, _, w, h = fields["bbox"]
        defaults = {
          "id": len(data["annotations"]) + 1,
          "image_id": image_id,
          "category_id": categories[0][0],
          "iscrowd": 0,
          "area": w * h,
        }
        data["annotations"].append(defaults | fields)
    path = folder / "annotations" / f"instances_{split}.json"
    path.write_text(json.dumps(data))
  return folder


def write_tfds_boxes(data_dir, name, splits, class_names):
  """A set of tfds in array_record files with coco's features, made without
  TensorFlow. splits: {split: [(content, id, [(bbox, label, crowd, area)])]}."""
  import tensorflow_datasets as tfds
  from array_record.python import array_record_module
  from tensorflow_datasets.proto import tf_example_pb2

  folder = pathlib.Path(data_dir) / name / "1.0.0"
  folder.mkdir(parents=True)
  infos = []
  for split, rows in splits.items():
    file = folder / f"{name}-{split}.array_record-00000-of-00001"
    writer = array_record_module.ArrayRecordWriter(str(file), "group_size:1")
    for image, image_id, objects in rows:
      example = tf_example_pb2.Example()
      features = example.features.feature
      features["image"].bytes_list.value.append(image)
      features["image/id"].int64_list.value.append(image_id)
      boxes = [x for box, *_ in objects for x in box]
      features["objects/bbox"].float_list.value.extend(boxes)
      for place, key in ((1, "label"), (2, "is_crowd"), (3, "area")):
        values = [int(one[place]) for one in objects]
        features[f"objects/{key}"].int64_list.value.extend(values)
      writer.write(example.SerializeToString())
    writer.close()
    template = tfds.core.ShardedFileTemplate(
      data_dir=folder,
      dataset_name=name,
      split=split,
      filetype_suffix="array_record",
    )
    infos.append(
      tfds.core.SplitInfo(
        name=split,
        shard_lengths=[len(rows)],
        num_bytes=file.stat().st_size,
        filename_template=template,
      )
    )
  kinds = tfds.features
  objects = {
    "bbox": kinds.BBoxFeature(),
    "label": kinds.ClassLabel(names=list(class_names)),
    "is_crowd": np.bool_,
    "area": np.int64,
  }
  features = {
    "image": kinds.Image(shape=(None, None, 3), encoding_format="png"),
    "image/id": np.int64,
    "objects": kinds.Sequence(objects),
  }
  tfds.folder_dataset.write_metadata(
    data_dir=folder,
    features=kinds.FeaturesDict(features),
    split_infos=infos,
    check_data=False,  # which would take TensorFlow
  )
  return data_dir


@pytest.fixture(scope="session")
def write():
  """The functions of this file."""

  class Write:
    coco = staticmethod(write_coco)
    tfds = staticmethod(write_tfds_boxes)
    encoded = staticmethod(encoded)
    painted = staticmethod(painted)

  return Write


@pytest.fixture(scope="session")
def _unpacked(tmp_path_factory):
  return {}, tmp_path_factory.mktemp("real")


@pytest.fixture
def unpack(data_dir, _unpacked):
  """unpack(tar) -> the folder of a real set; skipped without it."""
  done, top = _unpacked

  def get(name: str) -> pathlib.Path:
    path = data_dir / name
    if not path.exists():
      pytest.skip(f"needs real data: {path} is not there")
    if name not in done:
      with tarfile.open(path) as tar:
        tar.extractall(top, filter="data")
      done[name] = top
    return done[name]

  return get


@pytest.fixture
def coco(unpack):
  """The folder of the real COCO sample."""
  return unpack("tiny_coco_50_50.tar") / "tiny_coco"


@pytest.fixture
def bccd(unpack):
  """The folder of BCCD."""
  return unpack("bccd_voc_364.tar") / "BCCD"
