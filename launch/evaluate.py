"""Tests the network of a finished run again, in a process of its own:

  python launch/evaluate.py --checkpoint=runs/digits

Rebuilds it from result.json and its weights alone, and exits with 1 unless it
answers as many test images as result.json says. With --images, on pictures of
your own, a folder per class; imported weights, too:

  python launch/evaluate.py --checkpoint=runs/lite0 --images=PICTURES

Prints top 1, top 5, the accuracy of each class and which classes are taken for
which; --out=FILE.csv writes that matrix, --out=FILE.json everything.
"""

from absl import flags

from nasnet_jax.cli import entry, run_flags
from nasnet_jax.training import mesh

_RUN = run_flags.define()
_DATA_DIR = flags.DEFINE_string(
  "data_dir", None, "where the run's data lies now, if it was moved"
)
_IMAGES = flags.DEFINE_string("images", None, "a folder with one per class")
_OUT = flags.DEFINE_string("out", None, "a .csv or .json of these answers")
_BATCH = flags.DEFINE_integer("batch_size", 32, "pictures at once")


def main(argv: list[str]) -> int:
  run, _ = _RUN.take(argv[1:])
  if not run:
    raise entry.UsageError("give --checkpoint=runs/... of one run")
  for name in ("out",) if _IMAGES.value is None else ("data_dir",):
    if flags.FLAGS[name].value is not None:
      other = "without" if name == "data_dir" else "with"
      raise entry.UsageError(f"--{name} is for tests {other} --images")
  mesh.prepare_host()
  from nasnet_jax.jobs import results  # only now may JAX start

  found = results.load(run)
  return _on_test(found) if _IMAGES.value is None else _on_folder(found)


def _on_test(found) -> int:
  from nasnet_jax.jobs import results

  images = results.test_images(found.result, _DATA_DIR.value)
  score = results.evaluate(found, images)
  said = found.result["test_correct"]
  print(
    f"test accuracy {score.accuracy:.6f}: {score.correct} of {score.examples};"
    f" result.json says {said}"
  )
  mean = found.result.get("test_mean_per_class")
  if mean is not None:
    print(
      f"mean accuracy per class {score.mean_per_class:.6f}; result.json says"
      f" {mean:.6f}"
    )
  return 0 if score.correct == said else 1


def _on_folder(found) -> int:
  from nasnet_jax.jobs import labelled

  out = labelled.check_out(_OUT.value) if _OUT.value else None
  matched = labelled.match(_IMAGES.value, found.result["data"]["classes"])
  print(f"{len(matched.folders)} classes of {_IMAGES.value}, {matched.how}")
  broken: list[str] = []
  score = labelled.score(found, matched, _BATCH.value, broken)
  for line in labelled.lines(score):
    print(line)
  if out:
    labelled.write(score, out)
    print(f"written: {out}")
  return entry.tell_broken(broken, int(score.totals.sum()) + len(broken))


if __name__ == "__main__":
  entry.run(main)
