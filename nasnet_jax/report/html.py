"""One HTML file per run: what came of it, how it looks, how it went.

The file needs no network; without its script, only what drawings say under a
pointer is missing. It is written anew from the run's folder each time, so it
serves a job under way as well as a finished one.
"""

import html
import json
import pathlib

from nasnet_jax.data import paths, places
from nasnet_jax.report import (
  hover,
  next_steps,
  page,
  runs,
  scalings,
  search_page,
  training_page,
)

_PAGES = {
  "search": search_page,
  "scale": scalings,
  "train": training_page,
  "detect": training_page,
  "import": training_page,
}


def write_report(run_dir, files: bool = True) -> pathlib.Path:
  """Writes `report.html` and `figures/` into a run's folder.

  Works on a running job too. Files are replaced whole, so a reader never sees
  half of one.

  Args:
    files: whether `figures/` is written, too.

  Returns:
    the path of report.html.

  Raises:
    FileNotFoundError: in one line, if there is no run.
  """
  run = _read(run_dir)
  text = page_of(run, files)
  path = runs.write_atomic(run.path / "report.html", text)
  places.send_pages(run.path)
  return path


def _read(run_dir) -> runs.Run:
  run = runs.read_run(run_dir)
  if run.kind not in _PAGES:
    raise FileNotFoundError(
      f"no run has begun in {run.path}: give the folder that was a job's"
      " --workdir"
    )
  return run


def page_of(run: runs.Run, files: bool = False) -> str:
  """The page of a run, as HTML.

  Args:
    files: whether figures are also written into the run's folder.
  """
  of = _PAGES[run.kind]
  below = html.escape(of.below(run)) + _state(run)
  body = [*of.sections(run, files), next_steps.section(run), _reproduce(run)]
  return page.page(
    run.path.resolve().name,
    below,
    "".join(body),
    refresh=not run.result,
    css=hover.CSS,
    script=hover.SCRIPT,
  )


def finish_report(run_dir) -> pathlib.Path:
  """The report of a finished run, written unless there is one that is as new as
  the run's result and knows of it: a page that still followed the run when it
  ended does not."""
  folder = paths.local(run_dir)
  page_file, result = folder / "report.html", folder / "result.json"
  if (
    page_file.exists()
    and page_file.stat().st_mtime_ns >= result.stat().st_mtime_ns
    and page.REFRESH not in page_file.read_text()
  ):
    return page_file
  return write_report(folder)


def summary_text(run_dir) -> str:
  """The run in a few lines for a terminal: what came of it, and how good."""
  run = _read(run_dir)
  lines = _PAGES[run.kind].text(run)
  if run.result.get("how_to_load"):
    lines += ["", str(run.result["how_to_load"])]
  return "\n".join(lines)


def _state(run: runs.Run) -> str:
  if run.result:
    return ""
  if not run.changed:
    return ". Nothing has finished yet."
  return f". Not finished; last written {run.changed}."


def _reproduce(run: runs.Run) -> str:
  parts = []
  command = run.result.get("command") or run.config.get("command")
  if command:
    parts.append(page.code(command))
  if "seed" in run.result:
    seed = html.escape(str(run.result["seed"]))
    parts.append(f"<p>Seed {seed}.</p>")
  for title, value in (
    ("Environment", run.result.get("environment")),
    ("Config", run.config),
    ("Data", run.result.get("data")),
  ):
    if value:
      text = json.dumps(value, indent=2, sort_keys=True)
      parts.append(page.details(title, page.code(text, wraps=False)))
  return page.section("Reproduce", "".join(parts)) if parts else ""
