"""Writes the report of a run anew, or one page that sets several side by side:

  python launch/report.py runs/digits
  python launch/report.py runs/ppo runs/evolution --out=comparison.html

Runs may be finished, interrupted or under way. Of one run, report.html and
figures/ in its folder are written; of several, the file --out and figures/
beside it.
"""

from absl import flags

from nasnet_jax import report
from nasnet_jax.cli import entry
from nasnet_jax.data import paths

_OUT = flags.DEFINE_string("out", "comparison.html", "the page of several runs")


def main(argv: list[str]) -> None:
  folders = [paths.local(folder) for folder in argv[1:]]
  if not folders:
    raise entry.UsageError("give the folder of a run, or of several")
  try:
    if len(folders) == 1:
      print(report.write_report(folders[0]))
      print(report.summary_text(folders[0]))
    else:
      print(report.write_comparison(folders, paths.local(_OUT.value)))
  except (FileNotFoundError, ValueError) as error:
    raise entry.UsageError(str(error)) from error


if __name__ == "__main__":
  entry.run(main)
