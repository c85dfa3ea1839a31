import json


def _row(stage, coefficients, seed, test):
  names = ("depth", "width", "resolution")
  return {
    "stage": stage,
    "phi": float(stage == "grid"),
    "coefficients": coefficients,
    **dict(zip(names, coefficients)),
    "seed": seed,
    "macs": 2_000_000 if stage == "grid" else 1_000_000,
    "params": 1234,
    "valid_accuracy": 0.5,
    "test_accuracy": test,
  }


ROWS = [
  _row("baseline", [1.0, 1.0, 1.0], 0, 0.3),
  _row("baseline", [1.0, 1.0, 1.0], 1, 0.4),
  _row("grid", [1.0, 1.4, 1.0], 0, 0.35),
  _row("grid", [1.0, 1.4, 1.0], 1, 0.55),
]


def test_the_table_compares_means_over_seeds(script):
  lines = script("scaling").table({"net": ROWS}).splitlines()
  assert lines[2] == (
    "| net | - | 1, 1, 1 | 1.0 M | 1,234 | 50.0 | 30.0, 40.0 | 35.0 | - |"
  )
  assert lines[3] == (
    "| net | width | 1, 1.4, 1 | 2.0 M | 1,234 | 50.0 | 35.0, 55.0 | 45.0 |"
    " +10.0 |"
  )


def test_studies_that_are_done_are_written(script, tmp_path):
  run = tmp_path / "runs" / "small_cell"
  run.mkdir(parents=True)
  (run / "result.json").write_text(json.dumps({"rows": ROWS}))
  out = tmp_path / "out"
  script("scaling").write(run.parent, out, 350)
  found = json.loads((out / "results.json").read_text())
  assert [*found["studies"]] == ["small_cell"]
  assert "found cell" in (out / "table.md").read_text()
  assert (out / "scaling.png").exists()
