"""What runs for some children only, held to NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasnet_jax.models.layers import Numerics
from nasnet_jax.models.ops import OPERATIONS
from nasnet_jax.population import mixed, switches


def _double(index, states, changed, factor):
  """Where the index is set, a stack gets what two stacks hold, times factor."""
  ((other, place),), (stack, places) = states, changed

  def turn(_, carry):
    stack, _ = carry
    value = factor * (other[place] + stack[places[1]])
    return stack.at[places[0]].add(value), value.sum()

  zero = jnp.zeros(())
  return jax.lax.fori_loop(0, index.astype(jnp.int32), turn, (stack, zero))


@pytest.mark.parametrize(
  "shared", [(), ("index",), ("place", "other"), ("stack",)]
)
def test_stacks_change_in_place_also_under_vmap_of_vmap(shared):
  rng = np.random.default_rng(0)
  args = {
    "index": rng.random((2, 3)) < 0.5,
    "other": rng.normal(size=(2, 3, 4, 5)).astype(np.float32),
    "place": rng.integers(0, 4, (2, 3)),
    "stack": rng.normal(size=(2, 3, 4, 5)).astype(np.float32),
    "places": rng.integers(0, 4, (2, 3, 2)),
    "factor": rng.normal(size=(2, 3)).astype(np.float32),
  }
  run = switches.unbatched_in_place(_double)

  def function(index, other, place, stack, places, factor):
    return run(index, ((other, place),), (stack, places), factor)

  given = [a[0] if name in shared else a for name, a in args.items()]
  axes = tuple(None if name in shared else 0 for name in args)
  found, sums = jax.jit(jax.vmap(jax.vmap(function), in_axes=axes))(*given)
  for name in shared:
    args[name] = np.stack([args[name][0]] * 2)
  for where in np.ndindex(2, 3):
    row = {name: a[where] for name, a in args.items()}
    expected, total = row["stack"].copy(), 0.0
    if row["index"]:
      value = row["other"][row["place"]] + row["stack"][row["places"][1]]
      expected[row["places"][0]] += row["factor"] * value
      total = row["factor"] * value.sum()
    np.testing.assert_allclose(found[where], expected, rtol=1e-6)
    np.testing.assert_allclose(sums[where], total, rtol=1e-5)


def test_running_statistics_of_all_edges_are_those_of_each_module():
  """Edges of several operations, one that is left out, batches in parts."""
  numerics = Numerics(bn_decay=0.75, bn_parts=2)
  mix = mixed.make(
    ("sep_conv_3x3", "conv_1x1", "identity"), (((4, 4, 3), 1),), 3, numerics
  )
  rng = np.random.default_rng(0)
  x = rng.normal(size=(4, 4, 4, 3)).astype(np.float32)
  banks = {
    name: rng.normal(size=(4, size)).astype(np.float32)
    for name, size in mix.params.items()
  }
  stats = {
    name: rng.uniform(1, 2, (4, size)).astype(np.float32)
    for name, size in mix.stats.items()
  }
  branch = np.array([0, 1, 2, mix.inactive])
  forward = functools.partial(
    jax.vmap(mix.forward, in_axes=(0, None, 0)), branch, ((x[None], 0),)
  )
  _, moments = jax.jit(forward)(banks)
  found = mixed.running_stats(mix, 0.75, branch, stats, moments)
  for edge, number in enumerate(branch):
    row = {name: bank[edge] for name, bank in stats.items()}
    expected = row
    if number != mix.inactive:
      made = mix.branches[number]
      params = {name: bank[edge] for name, bank in banks.items()}
      variables = {
        "params": mixed.read_view(made.params, params),
        "batch_stats": mixed.read_view(made.stats, row),
      }
      _, new = made.module.apply(variables, x, True, mutable=["batch_stats"])
      front = mixed.write_view(made.stats, new["batch_stats"], mix.stats)
      expected = (
        {
          name: np.concatenate([bank[:stop], row[name][stop:]])
          for name, bank in front.items()
          for stop in [made.stats[name][-1].stop]
        }
        if made.stats
        else row
      )
    for name in row:
      np.testing.assert_allclose(found[name][edge], expected[name], rtol=1e-6)


def test_a_batch_norm_with_a_decay_of_its_own_is_refused():
  """`running_stats` would use that of the network."""
  other = OPERATIONS["conv_1x1"](Numerics(bn_decay=0.5), 3)
  with pytest.raises(ValueError, match=r"DenseConv .* bn_decay .*0\.9"):
    mixed.of_modules((other,), (((4, 4, 3), 1),), 3, Numerics(bn_decay=0.9))
