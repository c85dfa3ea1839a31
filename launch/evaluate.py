"""Tests the network of a finished run again, in a process of its own:

  python launch/evaluate.py --workdir=runs/digits

Rebuilds it from result.json and its weights alone, and exits with 1 unless it
answers as many test images as result.json says.
"""

from absl import flags

from nasnet_jax.cli import entry
from nasnet_jax.training import mesh

_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run")
_DATA_DIR = flags.DEFINE_string(
  "data_dir", None, "where the data lies now, if it was moved"
)


def main(argv: list[str]) -> int:
  del argv
  if not _WORKDIR.value:
    raise entry.UsageError("give --workdir=runs/...")
  mesh.prepare_host()
  from nasnet_jax.jobs import results  # only now may JAX start

  found = results.load(_WORKDIR.value)
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


if __name__ == "__main__":
  entry.run(main)
