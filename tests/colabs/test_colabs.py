"""The notebooks of colabs/ run from top to bottom, and are kept without what
they printed."""

import json
import pathlib

import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "colabs"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
by_name = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def _cells(path, kind: str) -> list[dict]:
  cells = json.loads(path.read_text())["cells"]
  return [cell for cell in cells if cell["cell_type"] == kind]


@by_name
def test_a_notebook_is_kept_without_outputs(path):
  for cell in _cells(path, "code"):
    assert cell["outputs"] == []
    assert cell["execution_count"] is None


@by_name
def test_a_notebook_installs_the_package_in_one_line_and_tells_its_device(path):
  text = "".join(
    "".join(cell["source"]) + "\n" for cell in _cells(path, "code")[:2]
  )
  assert text.count("%pip install") == 1
  assert "jax.devices()" in text


@pytest.mark.slow  # minutes each
@by_name
def test_a_notebook_runs_from_top_to_bottom(path, tmp_path):
  nbformat = pytest.importorskip("nbformat")
  nbclient = pytest.importorskip("nbclient")
  pytest.importorskip("ipykernel")
  if path.stem.startswith("5"):
    pytest.importorskip("libtpu")
  if path.stem.startswith("3"):
    pytest.importorskip("onnxruntime")
  notebook = nbformat.read(path, as_version=4)
  client = nbclient.NotebookClient(
    notebook,
    timeout=1200,
    kernel_name="python3",
    resources={"metadata": {"path": str(tmp_path)}},
  )
  client.execute()
  outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
  pictures = [o for o in outputs if "image/png" in o.get("data", {})]
  assert pictures, "nothing was drawn"
  assert not any(out.output_type == "error" for out in outputs)
