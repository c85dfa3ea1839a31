"""Finds things on pictures, by a trained detector:

  python launch/detect.py --checkpoint=runs/detect_voc photo.jpg folder/

Prints what it finds on each image file, of each in a folder and of each in a
list (.txt, a path a line), and writes to --out copies of the pictures with
boxes, labels and scores, each with a .json beside it, and all boxes to
answers.csv and answers.json. Files that cannot be read are named at the end;
the exit code is then 1.
"""

from absl import flags

from nasnet_jax.cli import entry, run_flags
from nasnet_jax.data import places
from nasnet_jax.training import mesh

_RUN = run_flags.define()
_OUT = flags.DEFINE_string("out", "detections", "folder for pictures and JSON")
_SCORE = flags.DEFINE_float("min_score", 0.5, "boxes below are left out")


def main(argv: list[str]) -> int:
  run, pictures = _RUN.take(argv[1:], pictures=True)
  if not run or not pictures:
    raise entry.UsageError("give --checkpoint=runs/... and images or folders")
  with places.sent(_OUT.value) as out:
    return _answer(run, pictures, out)


def _answer(run: str, pictures: list[str], out) -> int:
  mesh.prepare_host()
  from nasnet_jax.jobs import (  # only now may JAX start
    predict_boxes,
    preparation,
  )

  images = preparation.find_images(pictures)
  detector = predict_boxes.load(run)
  names = detector.result["data"]["classes"]
  answers, broken = [], []
  for answer in predict_boxes.find(detector, images, _SCORE.value, broken):
    answers.append(answer)
    print(answer.path)
    for row in answer.to_json(names)["detections"]:
      box = ", ".join(f"{side:.0f}" for side in row["box"])
      print(f"  {row['score']:.2f} {row['class']} ({box})")
    drawn = predict_boxes.draw(answer, names, out)
    print(f"  drawn: {places.shown(drawn)}")
  for path in predict_boxes.write(answers, names, broken, out):
    print(f"all answers: {places.shown(path)}")
  return entry.tell_broken(broken, len(images))


if __name__ == "__main__":
  entry.run(main)
