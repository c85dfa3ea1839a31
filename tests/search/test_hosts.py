"""A search whose children are spread over two processes."""


def test_two_hosts_write_the_history_of_one(start_hosts, rows_of, tmp_path):
  script = "tests/search/host_harness.py"
  alone = start_hosts(1, script, tmp_path / "alone")
  together = start_hosts(2, script, tmp_path / "together")
  for process in (*alone, *together):
    code, output = process.end()
    assert code == 0, output
  for name in ("history.jsonl", "journal.jsonl"):
    found, wanted = (
      rows_of(tmp_path / run / name) for run in ("together", "alone")
    )
    assert found == wanted
    assert len(found) > 3
  assert not (tmp_path / "together" / "round.jsonl").exists()
