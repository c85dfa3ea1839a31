"""Faster R-CNN (Ren et al. 2015) on the networks of `nasnet_jax.models`.

From images to boxes all shapes are static: absent boxes are rows that a mask
leaves out. Boxes are (y1, x1, y2, x2) in pixels of the image, everywhere.
"""
