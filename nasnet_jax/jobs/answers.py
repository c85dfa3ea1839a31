"""answers.csv and answers.json: what a network said of many pictures."""

import csv
import json
import pathlib
from typing import Any

from nasnet_jax.training import workdir

Row = dict[str, Any]


def write(folder, table: list[Row], tree: list[Row]) -> list[pathlib.Path]:
  """The new files, answers_2 and so on where some are there already.

  Args:
    table: rows of the CSV file, of equal columns.
    tree: of the JSON file, one per picture.
  """
  as_csv = workdir.new_file(folder, "answers", ".csv")
  # A name that is not in UTF-8 is kept, escaped.
  with as_csv.open(
    "w", encoding="utf-8", errors="backslashreplace", newline=""
  ) as file:
    rows = csv.DictWriter(file, list(table[0]) if table else ["file"])
    rows.writeheader()
    rows.writerows(table)
  as_json = workdir.new_file(folder, "answers", ".json")
  text = json.dumps(tree, indent=2, ensure_ascii=False) + "\n"
  as_json.write_text(text, encoding="utf-8", errors="backslashreplace")
  return [as_csv, as_json]
