"""Prints the mean reward of four children: true labels, then shuffled ones.

In a process of its own, so that it finds the program that the tiny digits
search has compiled.
"""

import harness
import numpy as np

from nasnet_jax import inputs
from nasnet_jax.search import setup


def main():
  config = harness.load_config("search_digits", "tiny")
  config.child.epochs = 6
  space = setup.get_space(config)
  images = setup.load_images(config)
  aug = inputs.get_augmentation(config.data, images)
  decisions = space.sample(np.random.default_rng(0), 4)
  for shown in (images, inputs.shuffled_labels(images, 0)):
    evaluator = setup.get_evaluator(config, space, shown, aug)
    outcomes = evaluator.evaluate(
      decisions, np.arange(4, dtype=np.uint32), np.ones(4, np.float32)
    )
    print(np.mean([o.reward for o in outcomes]))


if __name__ == "__main__":
  main()
