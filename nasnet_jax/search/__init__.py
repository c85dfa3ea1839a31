"""The search job: rounds of ask, train, tell; then the final stage.

`job.run` is the recipe, `load_winner` gives back what it found.
"""

from nasnet_jax.jobs.results import load as load_winner
from nasnet_jax.search.job import run

__all__ = ["load_winner", "run"]
