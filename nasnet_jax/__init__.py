"""Neural architecture search in the NASNet line, in JAX.

A child network is data: one compiled program trains any cell of a space.
Start with `docs/architecture.md`; the jobs live under `launch/`.
"""

__version__ = "0.1.0.dev0"
