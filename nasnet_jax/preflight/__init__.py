"""What a job takes on a TPU slice that one does not hold.

`plans.py` finds the very step that a config's job would run, `program.py`
compiles it for a topology, `hlo.py` and `costs.py` read the compiled text,
`figures.py` makes figures of it and `words.py` one page.
"""

from nasnet_jax.preflight.job import run
from nasnet_jax.preflight.words import page

__all__ = ["page", "run"]
