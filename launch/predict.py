"""Says what is on pictures, by a trained network:

  python launch/predict.py --checkpoint=runs/lite0 photo.jpg folder/ list.txt

Prints the five likeliest classes of each image file, of each in a folder and of
each in a list (.txt, a path a line). --out=folder also draws them on copies of
the pictures and writes all of them to answers.csv and answers.json. Files that
cannot be read are named at the end; the exit code is then 1.
"""

import contextlib

from absl import flags

from nasnet_jax.cli import entry, run_flags
from nasnet_jax.data import places
from nasnet_jax.training import mesh

_RUN = run_flags.define()
_OUT = flags.DEFINE_string("out", None, "folder for pictures with answers")
_BATCH = flags.DEFINE_integer("batch_size", 32, "images at once")
_TOP = flags.DEFINE_integer("top", 5, "classes per image")


def main(argv: list[str]) -> int:
  run, pictures = _RUN.take(argv[1:], pictures=True)
  if not run or not pictures:
    raise entry.UsageError("give --checkpoint=runs/... and images or folders")
  to = places.sent(_OUT.value) if _OUT.value else contextlib.nullcontext()
  with to as out:
    return _answer(run, pictures, out)


def _answer(run: str, pictures: list[str], out) -> int:
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
    if out:
      print(f"  drawn: {places.shown(predict.draw(answer, out))}")
  if out:
    for path in predict.write(answers, broken, out):
      print(f"all answers: {places.shown(path)}")
  return entry.tell_broken(broken, len(images))


if __name__ == "__main__":
  entry.run(main)
