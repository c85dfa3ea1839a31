"""Pictures with boxes: made up, as tfds has them, and the real sets."""

import pathlib
import tarfile

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
  """An empty cache, so that no test reads what another wrote."""
  monkeypatch.setenv("NASNET_JAX_CACHE", str(tmp_path / "cache"))


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
def write(coco_files):
  """The functions that write pictures with boxes."""

  class Write(coco_files):
    tfds = staticmethod(write_tfds_boxes)

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
