"""A separable convolution as one kernel per layer and direction, for TPU.

XLA runs the convolution, the product, the sums of the batch norm and the
normalisation one after the other, with maps in memory between them, and has no
fast form of a depthwise convolution. Here a layer is one Pallas kernel: the
normalisation and ReLU before it, the depthwise convolution on the vector unit,
the product on the matrix unit, and the sums that the batch norm after it needs.

Maps are [H, W, N, C]: with N a multiple of 8 and C of 128 a pixel is whole
vector registers, and a shift by a pixel is another address.

`separable` is for callers, `module` for `models.ops`. `geometry` says which
pixels meet, `forward` and `backward` are the kernels of a layer, `norm` is what
they do for the batch norms between layers.
"""
