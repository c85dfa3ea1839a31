"""The study of cheap search: its budget and its table."""

import pytest


@pytest.fixture(scope="module")
def cheap(script):
  return script("cheap_search")


def _rows(*epochs: int, **more):
  """A history in rounds of two children that trained so many of 8 epochs."""
  whole = {"budget": 1.0, "status": "ok", "horizon": 8, "seconds": 1.0, **more}
  return [
    {"id": i, "round": i // 2, "steps": trained, **whole}
    for i, trained in enumerate(epochs)
  ]


def test_a_mark_takes_whole_rounds_that_fit(cheap):
  within, rows = cheap._children_within, _rows(8, 8, 8, 8, 8, 8)
  assert within(rows, 48) == 6
  assert within(rows, 33) == within(rows, 32) == 4
  assert within(rows, 31) == 2
  assert within(_rows(2, 2, 8, 8), 4) == 2


def test_who_shares_weights_is_judged_by_all_of_its_children(cheap):
  rows = _rows(8, 8, 8, 8, shared_epochs=cheap.EPOCHS)
  assert cheap._children_within(rows, cheap.EPOCHS) == 4
  assert [name for name, way in cheap.WAYS.items() if way.is_shared] == [
    "shared"
  ]


def _search(run: int, *tests: tuple[float, float]):
  marks = [
    {
      "share": share,
      "children": 10,
      "seconds": 5.0,
      "tests": list(found),
      "params": 1000,
    }
    for share, found in zip((1 / 3, 1.0), tests)
  ]
  return {"run": run, "marks": marks}


def test_the_table_compares_means_of_both_trainings_mark_by_mark(cheap):
  found = {
    "random_search": [
      _search(0, (0.9, 0.92), (0.94, 0.94)),
      _search(1, (0.9, 0.9), (0.9, 0.9)),
    ],
    "evolution": [
      _search(0, (0.92, 0.92), (0.94, 0.96)),
      _search(1, (0.92, 0.92), (0.92, 0.92)),
    ],
  }
  _, _, *lines = cheap.table(found).splitlines()
  assert [line.split(" | ")[1] for line in lines] == ["0.33", "1.00"] * 2
  # 1 and 2 points at both marks: Student's t of one degree is 12.706.
  against = [line.split(" | ")[6] for line in lines]
  assert against == ["-", "-", *["1.50 [-4.85, 7.85]"] * 2]
