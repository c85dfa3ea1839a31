"""Convolutions, pools and batch normalisation with a lowering per platform.

TPU and GPU get plain `lax` convolutions and window reductions. XLA:CPU runs
those 20 to 100 times slower than it could where they are grouped, pooled
backwards, or stand in a loop, so on CPU they become shifted multiply-adds and
matrix products. `jax.lax.platform_dependent` chooses when the program is
lowered, so a TPU program compiled on a laptop gets the TPU form.

`convolutions`, `pools` and `norms` are for callers, and of `memory` what is not
for CPUs alone. `windows` is what the lowerings for CPU share.

Shapes: images [N, H, W, C]; all padding is TensorFlow's SAME: at stride 2 the
odd pixel of padding goes to the bottom and right.
"""
