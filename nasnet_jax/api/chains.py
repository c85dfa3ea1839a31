"""`nas.chain(nas.one_of(A(), B()), nas.one_of(C(), D()))`: a space of one's own
modules, beyond cells."""

import dataclasses

import flax.linen as nn

from nasnet_jax.spaces import module_chain
from nasnet_jax.spaces.module_chain import ChainSpace
from nasnet_jax.training import own_parts, program_cache


def one_of(*modules: nn.Module) -> tuple[nn.Module, ...]:
  """What one layer of a chain can be.

  Args:
    *modules: Linen modules, each called with (x, train): [N, H, W, C] ->
      [N, H', W', C'], the same shape of all. Weights are called kernel, scale
      or bias; batch norm is `nasnet_jax.models.layers.BatchNorm`.

  Raises:
    ValueError: one line, for what is no module, or for none.
  """
  if not modules:
    raise ValueError("one_of() has nothing to choose: give modules")
  for module in modules:
    if not isinstance(module, nn.Module):
      raise ValueError(
        f"one_of: {module!r} is no Linen module: give instances, such as"
        " nn.Sequential-like modules of your own, called with (x, train)"
      )
  return modules


def chain(*layers: tuple[nn.Module, ...]) -> ChainSpace:
  """The space of networks whose layers are chosen one by one; a mean over the
  map and a classifier follow.

  Args:
    *layers: of `one_of`; a module alone is a layer without a choice.

  Raises:
    ValueError: one line, for a chain that is none.
  """
  found = tuple(
    one_of(layer) if isinstance(layer, nn.Module) else one_of(*layer)
    for layer in layers
  )
  names = tuple(tuple(map(_name, modules)) for modules in found)
  space = module_chain.make(names, found)
  for layer_names, modules in zip(names, found, strict=True):
    for name, module in zip(layer_names, modules, strict=True):
      own_parts.note("operation", name, type(module))
      program_cache.note(type(module))
  return space


def _name(module: nn.Module) -> str:
  """A module as one would write it: "Conv(features=8)"."""
  fields = [
    f"{field.name}={getattr(module, field.name)!r}"
    for field in dataclasses.fields(module)
    if field.name not in ("parent", "name")
    and getattr(module, field.name) != _default(field)
  ]
  return f"{type(module).__name__}({', '.join(fields)})"


def _default(field: dataclasses.Field):
  if field.default_factory is not dataclasses.MISSING:
    return field.default_factory()
  return field.default
