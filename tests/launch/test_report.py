"""launch/report.py."""

import json


def _write_run(folder, controller):
  folder.mkdir()
  config = {"space": {"name": "pnas"}, "search": {"controller": controller}}
  (folder / "config.json").write_text(json.dumps(config))
  lines = [
    {"id": i, "decisions": [], "reward": reward, "status": "ok", "seconds": 1}
    for i, reward in enumerate((0.2, 0.3))
  ]
  text = "".join(json.dumps(line) + "\n" for line in lines)
  (folder / "history.jsonl").write_text(text)
  return folder


def test_one_run_gets_its_report_and_several_one_page(launch, tmp_path):
  folders = [_write_run(tmp_path / name, name) for name in ("ppo", "evolution")]
  done = launch("report.py", folders[0])
  assert done.returncode == 0, done.stderr
  assert "best reward: 0.3000 (child 1)" in done.stdout
  assert (folders[0] / "report.html").exists()
  out = tmp_path / "both.html"
  done = launch("report.py", *folders, f"--out={out}")
  assert done.returncode == 0, done.stderr
  assert done.stdout.split() == [str(out)]
  assert "evolution" in out.read_text()


def test_a_folder_that_is_not_there_is_one_line(launch, tmp_path):
  done = launch("report.py", tmp_path / "nowhere")
  assert done.returncode == 2
  assert done.stderr.strip().endswith(f"no such folder: {tmp_path}/nowhere")
  assert len(done.stderr.strip().splitlines()) == 1
  done = launch("report.py")
  assert done.returncode == 2 and "give the folder" in done.stderr
