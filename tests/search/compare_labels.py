"""Prints the mean reward of four children: true labels, then shuffled ones.

In a process of its own, so that it finds the program that the tiny digits
search has compiled.
"""

import harness
import numpy as np

from nasnet_jax.jobs import job_config
from nasnet_jax.search import search_config


def main():
  config = harness.load_config("search_digits", "tiny")
  config.child.epochs = 6
  space = search_config.get_space(config)
  images = search_config.load_images(config)
  aug = job_config.get_augmentation(config.data, images)
  decisions = space.sample(np.random.default_rng(0), 4)
  for shown in (images, job_config.shuffled_labels(images, 0)):
    evaluator = search_config.get_evaluator(config, space, shown, aug)
    outcomes = evaluator.evaluate(
      decisions, np.arange(4, dtype=np.uint32), np.ones(4, np.float32)
    )
    print(np.mean([o.reward for o in outcomes]))


if __name__ == "__main__":
  main()
