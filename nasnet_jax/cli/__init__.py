"""The programs' outer layer: commands, their errors, what is shipped beside
the package, and the check of a machine. Nothing here imports JAX."""
