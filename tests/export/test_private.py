"""Nothing that is exported tells where on its author's machine it was made."""

import json
import zipfile

import numpy as np
import pytest

from nasnet_jax.data import augment
from nasnet_jax.export import artifact, formats, private, tables
from nasnet_jax.jobs import results

# What stands in commands, configs and errors, and what of it leaves.
TEXTS = {
  "--workdir=/home/ann/runs/r7": "--workdir=r7",
  "main.py --workdir '/home/ann/My runs/r7' -v": "main.py --workdir 'r7' -v",
  "/home/ann/My pictures": "My pictures",
  "~/runs/r7/": "r7",
  "~ann/runs/r7": "r7",
  r"C:\Users\ann\runs\r7": "r7",
  "no file or folder /home/ann/p: set data_dir": "no file or folder p: set"
  " data_dir",
  "('/home/ann/a', '/home/ann/b')": "('a', 'b')",
  "/home/ann/a,/home/ann/b": "a,b",
  "it is in /home/ann/p.": "it is in p.",
  "file:///home/ann/p": "p",
}
KEPT = (
  "(pixel / 255 - 0.5) / 0.25",
  "see https://example.org/a/b and s3://bucket/c",
  "results/speed, docs/results and cat/dog",
  "x.shape[1] // 2 or 1/255",
  "--config=configs/search_digits.py:tiny",
  "a batch of 8/16 images at 32 x 32",
)


@pytest.mark.parametrize("text", TEXTS)
def test_of_a_path_the_last_name_leaves(text):
  assert private.without_paths(text) == TEXTS[text]


@pytest.mark.parametrize("text", KEPT)
def test_what_is_no_path_of_a_machine_stays(text):
  assert private.without_paths(text) == text


def test_texts_are_found_at_any_depth():
  given = {"a": [{"b": "/home/ann/c"}, 1, None, True], "/home": "d"}
  wanted = {"a": [{"b": "c"}, 1, None, True], "/home": "d"}
  assert private.without_paths(given) == wanted


@pytest.fixture(scope="module")
def anns(random_variables, tmp_path_factory):
  """The folder of a run whose files name Ann's."""
  folder = tmp_path_factory.mktemp("runs") / "small"
  network = tables.published_blocks(
    "mobilenet_v1", width=0.1, depth=0.3, num_classes=2
  )
  results.save(
    folder,
    "mobilenet_v1",
    network,
    random_variables(network, 16),
    class_names=["cat", "dog"],
    augmentation=augment.PHOTOGRAPHS,
  )
  result = json.loads((folder / "result.json").read_text())
  result["data"] |= {
    "image_shape": [16, 16, 3],
    "name": "folder /home/ann/secret/p",
    "note": "of /home/ann/secret/p",
    "fingerprint": "f00",
    "load": {"source": "folder", "path": "/home/ann/secret/p"},
  }
  result |= {
    "command": "python launch/main.py --workdir='/home/ann/My secret/r7'",
    "seed": 0,
    "test_accuracy": 0.5,
    "test_correct": 1,
    "test_examples": 2,
    "source": "/home/ann/secret/weights.pt",
  }
  (folder / "result.json").write_text(json.dumps(result))
  config = {"data": {"options": {"path": "/home/ann/secret/p"}}}
  (folder / "config.json").write_text(json.dumps(config))
  return folder


@pytest.fixture(autouse=True)
def _no_answers(monkeypatch):
  """What the network answers does not matter here, and compiling takes long."""
  zeros = lambda pixels: np.zeros((len(pixels), 2), np.float32)  # noqa: E731
  monkeypatch.setattr(artifact.Source, "ours", lambda self: zeros)


@pytest.mark.parametrize("name", ["torch", "onnx", "safetensors"])
def test_no_file_of_an_export_has_a_path_and_the_card_lists_what_is_there(
  name, anns, tmp_path
):
  pytest.importorskip("safetensors")
  pytest.importorskip("onnx")
  source = artifact.open_run(anns, artifact.Options(verify=False))
  done = artifact.export(source, name, formats.FORMATS[name], tmp_path / "out")
  for file in done.folder.iterdir():
    content = file.read_bytes()
    for word in (b"/home", b"ann/", b"secret", str(tmp_path).encode()):
      assert word not in content, (file.name, word)
  card = (done.folder / "README.md").read_text()
  assert "--workdir='r7'" in card and "of p" in card
  listed = card.partition("## Files")[2].partition("## Limits")[0]
  names = {line.split("`")[1] for line in listed.splitlines() if "- `" in line}
  there = {file.name for file in done.folder.iterdir()}
  assert names | {"README.md"} == there


def test_a_card_names_what_is_inside_of_a_file(anns, tmp_path):
  source = artifact.open_run(anns, artifact.Options(verify=False))

  def write(source, folder):
    from nasnet_jax.export import keras_files

    (folder / "network.tflite").write_bytes(b"TFL3")
    keras_files.put(source, folder / "network.tflite", labels="cat\ndog\n")

  kind = formats.FORMATS["tflite"]._replace(write=write)
  done = artifact.export(source, "tflite", kind, tmp_path / "out")
  card = (done.folder / "README.md").read_text()
  line = "`unzip` finds config.json as nasnet_jax.json and labels.txt in it"
  assert line in card
  with zipfile.ZipFile(done.folder / "network.tflite") as file:
    assert set(file.namelist()) == {"nasnet_jax.json", "labels.txt"}
    assert all(not info.compress_type for info in file.infolist())
