"""Lines of code for five jobs, with nasnet_jax and with a peer.

  python examples/peers/count.py

A line counts if a token of code is on it: blank lines, comments and docstrings
are none. All files are formatted by ruff, at 80 columns. They are run by
tests/examples/test_peers.py, where the peers are installed.
"""

import io
import pathlib
import tokenize

FOLDER = pathlib.Path(__file__).parent
# (job, our file, the peer's, its name)
JOBS = (
  (
    "a search on arrays",
    "arrays_ours",
    "arrays_optuna_keras",
    "Optuna and Keras",
  ),
  (
    "an operation of your own",
    "operation_ours",
    "operation_pyglove_keras",
    "PyGlove and Keras",
  ),
  ("an evaluator of your own", "evaluator_ours", "evaluator_optuna", "Optuna"),
  ("features of a model", "features_ours", "features_timm", "timm"),
  ("going on later", "resume_ours", "resume_optuna", "Optuna"),
)
_SKIPPED = (
  tokenize.COMMENT,
  tokenize.NL,
  tokenize.NEWLINE,
  tokenize.INDENT,
  tokenize.DEDENT,
  tokenize.ENDMARKER,
)


def lines_of_code(text: str) -> int:
  """Lines with a token that is no comment and no docstring."""
  found, start = set(), True
  for token in tokenize.generate_tokens(io.StringIO(text).readline):
    if token.type in _SKIPPED:
      start = start or token.type == tokenize.NEWLINE
      continue
    if not (start and token.type == tokenize.STRING):  # a statement alone
      found.update(range(token.start[0], token.end[0] + 1))
    start = False
  return len(found)


def table() -> str:
  """Markdown."""
  rows = ["| | nasnet_jax | peer |", "|---|---|---|"]
  for job, ours, theirs, peer in JOBS:
    counts = [
      lines_of_code((FOLDER / f"{name}.py").read_text())
      for name in (ours, theirs)
    ]
    rows.append(f"| {job} | {counts[0]} | {counts[1]}, {peer} |")
  return "\n".join(rows) + "\n"


if __name__ == "__main__":
  print(table(), end="")
