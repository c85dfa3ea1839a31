"""Says what is on pictures, by a trained network:

  python launch/predict.py --checkpoint=runs/lite0 photo.jpg folder/ list.txt

Prints the five likeliest classes of each image file, of each in a folder and of
each in a list (.txt, a path a line). --out=folder also draws them on copies of
the pictures and writes all of them to answers.csv and answers.json. Files that
cannot be read are named at the end; the exit code is then 1.
"""

from absl import flags

from nasnet_jax.cli import entry, run_flags
from nasnet_jax.data import paths
from nasnet_jax.training import mesh

_RUN = run_flags.define()
_OUT = flags.DEFINE_string("out", None, "folder for pictures with answers")
_BATCH = flags.DEFINE_integer("batch_size", 32, "images at once")
_TOP = flags.DEFINE_integer("top", 5, "classes per image")


def main(argv: list[str]) -> int:
  run, pictures = _RUN.take(argv[1:], pictures=True)
  if not run or not pictures:
    raise entry.UsageError("give --checkpoint=runs/... and images or folders")
  if _OUT.value:
    paths.local(_OUT.value)  # refuses what is none before anything is done
  mesh.prepare_host()
  from nasnet_jax.jobs import (  # only now may JAX start
    predict,
    preparation,
    results,
  )

  images = preparation.find_images(pictures)
  network = results.load(run)
  answers, broken = [], []
  for answer in predict.classify(
    network, images, _BATCH.value, _TOP.value, broken
  ):
    answers.append(answer)
    print(answer.path)
    for name, probability in answer.classes:
      print(f"  {100 * probability:5.1f} %  {name}")
    if _OUT.value:
      print(f"  drawn: {predict.draw(answer, _OUT.value)}")
  if _OUT.value:
    for path in predict.write(answers, broken, _OUT.value):
      print(f"all answers: {path}")
  return entry.tell_broken(broken, len(images))


if __name__ == "__main__":
  entry.run(main)
