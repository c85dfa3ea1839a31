"""The fields of configs: one function per group, with the values of the papers
and where they stand; a config says what differs (docs/extending.md).

  from nasnet_jax import fields

  config = fields.jobs.training(
    fields.networks.trained_cells(),
    fields.recipes.nasnet_cifar(),
    fields.images.in_memory("cifar10"),
  )
  config.train.epochs = 30

A comment belongs to the assignment on its line, or below it; `--show` prints it
beside the field. Nothing here imports more than ml_collections.
"""

from nasnet_jax.fields import (
  images,
  jobs,
  networks,
  pictures,
  recipes,
  spaces,
  strategies,
)

__all__ = [
  "images",
  "jobs",
  "networks",
  "pictures",
  "recipes",
  "spaces",
  "strategies",
]
