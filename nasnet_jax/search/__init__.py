"""The search job: rounds of ask, train, tell; then the final stage.

`job.run` is the recipe, `load_winner` gives back what it found.
"""

from nasnet_jax.search.job import run
from nasnet_jax.trained import load as load_winner

__all__ = ["load_winner", "run"]
