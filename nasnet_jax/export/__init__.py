"""Weights to and from other frameworks. Each is imported where it is used."""

import sys

from nasnet_jax import CallableModule

# The package is called, too: nas.export(run, "onnx"), see CallableModule.
sys.modules[__name__].__class__ = CallableModule
