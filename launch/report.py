"""Writes the report of a run anew, or one page that sets several side by side:

  python launch/report.py runs/digits
  python launch/report.py runs/ppo runs/evolution --out=comparison.html

Runs may be finished, interrupted or under way. Of one run, report.html and
figures/ in its folder are written; of several, the file --out (comparison.html
here) and figures/ beside it.
"""

from absl import flags

from nasnet_jax import report
from nasnet_jax.cli import entry, run_flags
from nasnet_jax.data import places

_RUN = run_flags.define()
_OUT = flags.DEFINE_string(
  "out", None, "the page of several runs; comparison.html"
)


def main(argv: list[str]) -> None:
  words = [*filter(None, [_RUN.given()]), *argv[1:]]
  if not words:
    raise entry.UsageError("give the folder of a run, or of several")
  if len(words) == 1 and _OUT.value:
    raise entry.UsageError(
      "--out is for the page of several runs: that of one run is report.html"
      " in its folder"
    )
  try:
    folders = [places.fetched(word) for word in words]
    if len(folders) == 1:
      print(places.shown(report.write_report(folders[0])))
      print(report.summary_text(folders[0]))
    else:
      print(report.write_comparison(folders, _OUT.value or "comparison.html"))
  except (FileNotFoundError, ValueError) as error:
    raise entry.UsageError(str(error)) from error


if __name__ == "__main__":
  entry.run(main)
