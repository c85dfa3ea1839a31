"""The tables of docs/results are what their histories say."""

import pytest


@pytest.fixture(scope="module")
def results(script):
  return script("results")


def test_every_table_is_what_its_script_makes_of_the_files(results):
  computed, missing = [], []
  for table in results.tables():
    try:
      text = table.text()
    except ValueError as error:  # of a package that is not here
      missing.append(str(error))
      continue
    assert table.wrong(text) == [], f"{table.file}: run benchmarks/results.py"
    computed.append(table.file)
  assert len(computed) >= 9
  assert all("pip install" in error for error in missing)


@pytest.mark.parametrize("file", ["table.md", "README.md"])
def test_a_changed_figure_is_found(results, file, tmp_path, monkeypatch):
  monkeypatch.setattr(results, "RESULTS", tmp_path)
  text = "| a | 1.25 |\n| b | 2.50 |\n"
  table = results.Table(file, lambda: text)
  table.path.write_text(text)
  assert table.wrong(text) == []
  table.path.write_text(text.replace("1.25", "1.26"))
  assert table.wrong(text) == ["| a | 1.25 |"]


def test_a_row_too_many_is_found_in_a_table_of_its_own(
  results, tmp_path, monkeypatch
):
  monkeypatch.setattr(results, "RESULTS", tmp_path)
  table = results.Table("table.md", lambda: "| a | 1 |\n")
  table.path.write_text("| a | 1 |\n| b | 2 |\n")
  assert len(table.wrong(table.text())) == 1


def test_a_readme_may_stress_figures(results, tmp_path, monkeypatch):
  monkeypatch.setattr(results, "RESULTS", tmp_path)
  table = results.Table("README.md", lambda: "| a | 1 |")
  table.path.write_text("What came out:\n\n| a | **1** |\n")
  assert table.wrong(table.text()) == []
