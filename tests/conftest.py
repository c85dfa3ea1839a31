"""Eight fake CPU devices, a compile cache, and where the real data lies."""

import functools
import gc
import importlib.util
import io
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
from importlib import metadata

import pytest
from packaging import version

# JAX reads these once, so they are set before anything imports it. The two
# timeouts: XLA:CPU aborts the process when devices reach a collective more
# than 40 s apart, which happens on a busy machine.
_XLA_FLAGS = {
  "--xla_force_host_platform_device_count": 8,
  "--xla_cpu_collective_call_warn_stuck_timeout_seconds": 600,
  "--xla_cpu_collective_call_terminate_timeout_seconds": 3600,
  # Not in many parts side by side: with a test on each core that takes an
  # eighth more of the processors, and the programs are small.
  "--xla_cpu_parallel_codegen_split_count": 1,
  # Nearly all of a test's time is compiling, which takes a quarter less of it
  # so; what is compared bit by bit is compiled alike on both sides.
  "--xla_backend_optimization_level": 0,
}
# XLA aborts the process on a flag that it does not know, so this one is only
# set where it exists: the older way to compile fusions, an eighth to a quarter
# less again.
if version.parse(metadata.version("jaxlib")) < version.parse("0.12"):
  _XLA_FLAGS["--xla_cpu_use_fusion_emitters"] = "false"
_CACHE = pathlib.Path(__file__).parents[1] / ".cache" / "jax"
# Tracing makes many objects and few cycles of them: looking for these was a
# fifteenth of a long file's time.
gc.set_threshold(50_000, 20, 100)


def _set_environment():
  flags = os.environ.get("XLA_FLAGS", "")
  for name, value in _XLA_FLAGS.items():
    if name not in flags:
      flags += f" {name}={value}"
  os.environ["XLA_FLAGS"] = flags.strip()
  os.environ.setdefault("JAX_PLATFORMS", "cpu")
  # Compiling is most of the tests' time: what took 0.3 s or more is kept.
  os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
  os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
  # Lowering takes a fifth less without the Python lines of each operation.
  os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")


_set_environment()


def one_device() -> dict[str, str]:
  """The environment of a process that has one device, as users start it: its
  programs are compiled as those of the tests are, and all of them are kept."""
  fake = "--xla_force_host_platform_device_count"
  flags = os.environ["XLA_FLAGS"].split()
  kept = " ".join(flag for flag in flags if not flag.startswith(fake))
  return os.environ | {"XLA_FLAGS": kept}


@pytest.fixture
def bucket(tmp_path, monkeypatch):
  """What gs:// and s3:// mean during a test, the class of `bucket.py`; copies
  of it are kept below tmp_path, and runs send everything at once."""
  from nasnet_jax.data import mirror

  path = pathlib.Path(__file__).with_name("bucket.py")
  spec = importlib.util.spec_from_file_location("bucket", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  monkeypatch.setenv("NASNET_JAX_CACHE", str(tmp_path / "cache"))
  monkeypatch.setattr(mirror, "_SHARE", float("inf"))
  yield module.install(tmp_path / "store")
  module.uninstall()


@pytest.fixture(name="one_device", scope="session")
def _one_device():
  return one_device


def pytest_addoption(parser):
  parser.addoption(
    "--cpu-times",
    help="write the processor seconds of each test, its fixtures and children"
    " to this file, a JSON object per line",
  )


@pytest.hookimpl(tryfirst=True)  # before -m leaves any out
def pytest_collection_modifyitems(items):
  """Marks the cases of slow.txt."""
  slow = read_slow(pathlib.Path(__file__).with_name("slow.txt").read_text())
  for item in items:
    name, _, case = item.nodeid.removeprefix("tests/").partition("[")
    cases = slow.get(name)
    if cases is not None and cases(case.removesuffix("]")):
      item.add_marker(pytest.mark.slow)


def read_slow(text: str) -> dict:
  """{file::function: whether a case of it is slow} of slow.txt."""
  found, singles = {}, {}
  for line in text.splitlines():
    if not line or line.startswith("#"):
      continue
    name, _, kept = line.partition(" but ")
    name, _, case = name.partition("[")
    if case:
      singles.setdefault(name, set()).add(case.removesuffix("]"))
    else:
      kept = {word.strip() for word in kept.split(";")} if kept else set()
      found[name] = lambda case, kept=kept: case not in kept
  found.update({name: cases.__contains__ for name, cases in singles.items()})
  return found


@pytest.fixture(name="read_slow")
def _read_slow():
  return read_slow


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
  del nextitem
  path = item.config.getoption("--cpu-times")
  if not path:
    return (yield)
  start = os.times()
  try:
    return (yield)
  finally:
    spent = sum(os.times()[:4]) - sum(start[:4])
    row = {"test": item.nodeid, "seconds": round(spent, 2)}
    with open(path, "a") as file:  # one write: several processes add lines
      file.write(json.dumps(row) + "\n")


@pytest.fixture
def data_dir() -> pathlib.Path:
  """The folder of real data sets; the test is skipped without one."""
  folder = os.environ.get("NASNET_JAX_DATA")
  if not folder:
    pytest.skip("needs real data: set NASNET_JAX_DATA to its folder")
  path = pathlib.Path(folder)
  if not path.is_dir():
    pytest.skip(f"NASNET_JAX_DATA={folder} is not a folder")
  return path


@pytest.fixture
def compilations():
  """The seconds of every program that was compiled since the test began.

  What a jitted function's own cache holds is not asked: JAX may drop an entry
  and compile nothing.
  """
  import jax

  found = []

  def listen(name, seconds, **_):
    if name == "/jax/core/compile/backend_compile_duration":
      found.append(seconds)

  jax.monitoring.register_event_duration_secs_listener(listen)
  yield found
  jax.monitoring.unregister_event_duration_listener(listen)


@functools.lru_cache(maxsize=16)  # a network is traced for it, in seconds
def _shapes_of(network, side, channels):
  import jax
  import jax.numpy as jnp

  images = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
  return jax.eval_shape(network.init, jax.random.key(0), images)


def random_variables(network, side, seed=0, channels=3):
  """All weights, scales, biases and statistics of a network at random."""
  import jax
  import numpy as np

  shapes = _shapes_of(network, side, channels)
  rng = np.random.default_rng(seed)

  def fill(path, shape):
    name, size = path[-1].key, shape.shape
    if name == "kernel":
      fan = np.prod(size[:-1]) if len(size) != 3 else size[0] * size[1]
      return rng.normal(0, fan**-0.5, size).astype(np.float32)
    if name in ("scale", "var"):
      return rng.uniform(0.5, 1.5, size).astype(np.float32)
    return rng.normal(0, 0.3, size).astype(np.float32)

  return jax.tree_util.tree_map_with_path(fill, shapes)


@pytest.fixture(name="random_variables", scope="session")
def _random_variables():
  return random_variables


@pytest.fixture(scope="session")
def write_tfds():
  """write_tfds(data_dir, name, {split: [(image file, label), ...]}, classes):
  a set of tfds in array_record files, made without TensorFlow."""

  def write(data_dir, name, splits, class_names):
    import tensorflow_datasets as tfds
    from array_record.python import array_record_module
    from tensorflow_datasets.proto import tf_example_pb2

    folder = pathlib.Path(data_dir) / name / "1.0.0"
    folder.mkdir(parents=True)
    infos = []
    for split, rows in splits.items():
      file = folder / f"{name}-{split}.array_record-00000-of-00001"
      writer = array_record_module.ArrayRecordWriter(str(file), "group_size:1")
      for image, label in rows:
        example = tf_example_pb2.Example()
        features = example.features.feature
        features["image"].bytes_list.value.append(image)
        features["label"].int64_list.value.append(label)
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
    image = tfds.features.Image(shape=(None, None, 3), encoding_format="png")
    label = tfds.features.ClassLabel(names=list(class_names))
    tfds.folder_dataset.write_metadata(
      data_dir=folder,
      features=tfds.features.FeaturesDict({"image": image, "label": label}),
      split_infos=infos,
      supervised_keys=("image", "label"),
      check_data=False,  # which would take TensorFlow
    )
    return data_dir

  return write


def encoded(height, width, seed=0, **options) -> bytes:
  """A PNG of noise."""
  import numpy as np
  from PIL import Image

  rng = np.random.default_rng(seed)
  pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, "png", **options)
  return buffer.getvalue()


def painted(height, width, boxes) -> bytes:
  """A black PNG whose boxes (y1, x1, y2, x2) are white."""
  import numpy as np
  from PIL import Image

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


def white_boxes(folder, count=10, tests=7):
  """Pictures of a white box each in COCO's layout; the first has none."""
  import numpy as np

  rng = np.random.default_rng(0)
  images = []
  for number in range(count):
    side = (96, 128) if number % 3 else (128, 96)
    y, x = rng.integers(4, 40, 2)
    h, w = rng.integers(20, 50, 2)
    boxes = [(y, x, y + h, x + w)] if number else []
    content = painted(*side, boxes)
    fields = [
      {"bbox": (int(x), int(y), int(w), int(h)), "category_id": 7}
      for _ in boxes
    ]
    images.append((content, side, fields))
  return write_coco(folder, {"train2017": images, "val2017": images[:tests]})


@pytest.fixture(scope="session")
def coco_files():
  """Functions that write made-up pictures with boxes as COCO has them."""

  class CocoFiles:
    coco = staticmethod(write_coco)
    encoded = staticmethod(encoded)
    painted = staticmethod(painted)
    white_boxes = staticmethod(white_boxes)

  return CocoFiles


class Process:
  """A program that was started in the repository's root."""

  def __init__(self, arguments, environment):
    self._output = tempfile.TemporaryFile("w+")  # noqa: SIM115
    self._process = subprocess.Popen(
      [sys.executable, *map(str, arguments)],
      env=environment,
      stdout=self._output,
      stderr=subprocess.STDOUT,
      cwd=pathlib.Path(__file__).parents[1],
    )

  @property
  def is_running(self) -> bool:
    return self._process.poll() is None

  def signal(self, number: int):
    self._process.send_signal(number)

  def end(self, timeout=400) -> tuple[int, str]:
    """(exit code, all that it printed); kills it if it takes too long."""
    try:
      code = self._process.wait(timeout)
    except subprocess.TimeoutExpired:
      self._process.kill()
      code = self._process.wait()
    self._output.seek(0)
    return code, self._output.read()


@pytest.fixture
def start_processes():
  """start_processes([script, *arguments], environment) -> Process; none of
  them outlives the test. `free_port()` is one for them to meet at."""
  started = []

  def start(arguments, environment):
    started.append(Process(arguments, environment))
    return started[-1]

  def free_port() -> int:
    with socket.socket() as found:
      found.bind(("127.0.0.1", 0))
      return found.getsockname()[1]

  start.free_port = free_port
  yield start
  for process in started:
    process.end(timeout=0)
