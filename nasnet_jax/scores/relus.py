"""Which ReLUs are on, read out of any function of JAX while it runs.

`agreement(f)` walks through the program of f, also into its loops, switches and
derivative rules, and at each `jax.nn.relu` counts for each pair of examples the
units that are on, or off, in both. The function needs no hooks: what it is made
of does not matter, as long as its ReLUs are `jax.nn.relu` (`flax.linen.relu` is
the same) and their first axis is the batch.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp
from jax import lax

Array = jax.Array
# Primitives that call one program, by the parameter that holds it. Of a rule
# for derivatives or for batches only the function itself is run here.
_CALLS = {
  "jit": "jaxpr",
  "closed_call": "call_jaxpr",
  "remat": "jaxpr",
  "remat2": "jaxpr",
  "checkpoint": "jaxpr",
  "custom_jvp_call": "call_jaxpr",
  "custom_vjp_call": "call_jaxpr",
  "custom_vmap_call": "call",
}


def agreement(
  function: Callable, batch: int, results: bool = False
) -> Callable:
  """Of a function's arguments, f32[batch, batch]: over all ReLUs that it runs,
  how many units any two examples have in the same state.

  Args:
    results: whether to give (what the function gives, that matrix).

  Raises:
    ValueError: when traced, for a ReLU whose first axis is not the batch.
  """

  def run(*args):
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
    count = jnp.zeros((batch, batch))
    leaves = jax.tree.leaves(args)
    found, count = _run(closed.jaxpr, closed.consts, leaves, count)
    if not results:
      return count
    return jax.tree.unflatten(jax.tree.structure(shapes), found), count

  return run


def same_state(x: Array) -> Array:
  """f32[N, N] of the inputs [N, ...] of one ReLU."""
  on = (x.reshape(len(x), -1) > 0).astype(jnp.float32)
  both = jnp.matmul(on, on.T, precision="highest")
  each = on.sum(-1)
  return 2 * both - each[:, None] - each + on.shape[-1]


def _run(jaxpr, consts, args, count) -> tuple[list[Any], Array]:
  """(its results, the count after it)."""
  values = dict(zip(jaxpr.constvars, consts, strict=True))
  values |= dict(zip(jaxpr.invars, args, strict=True))

  def read(atom):
    return atom.val if isinstance(atom, jex.Literal) else values[atom]

  for equation in jaxpr.eqns:
    inputs = [read(atom) for atom in equation.invars]
    if _has_relu(equation):
      found, count = _step(jaxpr, equation, inputs, count)
    else:
      found = _bind(jaxpr, equation, inputs)
    values |= dict(zip(equation.outvars, found, strict=True))
  return [read(atom) for atom in jaxpr.outvars], count


def _bind(jaxpr, equation, inputs) -> list[Any]:
  """Its results, by the way JAX itself takes; what a primitive is called with
  differs between versions."""
  atoms = zip(equation.invars, inputs, strict=True)
  read = {a: x for a, x in atoms if not isinstance(a, jex.Literal)}
  alone = jaxpr.replace(
    constvars=(),
    invars=[*read],
    outvars=equation.outvars,
    eqns=[equation],
    effects=equation.effects,
  )
  return jex.jaxpr_as_fun(jex.ClosedJaxpr(alone, ()))(*read.values())


def _is_relu(equation) -> bool:
  return equation.params.get("name") == "relu" and len(equation.invars) == 1


def _has_relu(equation) -> bool:
  if _is_relu(equation):
    return True
  inner = jax.tree.leaves(equation.params, is_leaf=_is_program)
  return any(
    _has_relu(one) for p in inner if _is_program(p) for one in _plain(p).eqns
  )


def _is_program(value) -> bool:
  return isinstance(value, jex.Jaxpr | jex.ClosedJaxpr)


def _plain(program):
  return program.jaxpr if isinstance(program, jex.ClosedJaxpr) else program


def _open(program) -> tuple[Any, list[Any]]:
  if isinstance(program, jex.ClosedJaxpr):
    return program.jaxpr, program.consts
  return program, []


def _step(jaxpr, equation, inputs, count):
  """The results of an equation with a ReLU in it, and the count."""
  name, params = equation.primitive.name, equation.params
  if _is_relu(equation):
    (x,) = inputs
    if x.shape[:1] != count.shape[:1]:
      raise ValueError(
        f"a ReLU of {x.shape} has no first axis of {len(count)} examples"
      )
    return _bind(jaxpr, equation, inputs), count + same_state(x)
  if name in _CALLS:
    return _run(*_open(params[_CALLS[name]]), inputs, count)
  if name in _LOOPS:
    return _LOOPS[name](params, inputs, count)
  raise ValueError(f"no ReLUs are counted inside of {name!r}")


def _cond(params, inputs, count):
  index, *rest = inputs

  def way(branch):
    return lambda args, count: _run(*_open(branch), args, count)

  return lax.switch(index, [*map(way, params["branches"])], rest, count)


def _scan(params, inputs, count):
  fixed, carried = params["num_consts"], params["num_carry"]
  consts, first = inputs[:fixed], inputs[fixed : fixed + carried]

  def body(state, row):
    carry, count = state
    out, count = _run(*_open(params["jaxpr"]), [*consts, *carry, *row], count)
    return (out[:carried], count), out[carried:]

  (last, count), rows = lax.scan(
    body,
    (first, count),
    inputs[fixed + carried :],
    length=params["length"],
    reverse=params["reverse"],
  )
  return [*last, *rows], count


def _while(params, inputs, count):
  of_cond, of_body = params["cond_nconsts"], params["body_nconsts"]
  cond_consts = inputs[:of_cond]
  body_consts = inputs[of_cond : of_cond + of_body]

  def goes_on(state):
    args = [*cond_consts, *state[0]]
    return _run(*_open(params["cond_jaxpr"]), args, state[1])[0][0]

  def body(state):
    args = [*body_consts, *state[0]]
    return _run(*_open(params["body_jaxpr"]), args, state[1])

  return lax.while_loop(goes_on, body, (inputs[of_cond + of_body :], count))


_LOOPS = {"cond": _cond, "scan": _scan, "while": _while}
