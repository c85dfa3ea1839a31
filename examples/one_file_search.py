"""Architecture search on one page: eight different networks, one program.

A cell, the small graph that a network repeats, is an array of integers, and an
*argument* of the program that trains the network. So different networks train
side by side under `jax.vmap`, and a search compiles once, whatever it proposes.

One thing stands in the way: where the index of a `lax.switch` differs between
children, `vmap` makes it a select, and every child computes every operation.
Part 2 gives the switch a batching rule of its own: each runs what it chose.

nasnet_jax is this page grown up; its tests hold the page to its own numbers.
Run it: python examples/one_file_search.py
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import custom_vmap
from sklearn.datasets import load_digits

CHILDREN, ROUNDS, POPULATION, SAMPLE = 8, 8, 16, 4
BLOCKS, FEATURES, STEPS, BATCH, RATE = 2, 8, 40, 32, 0.5


# 1. Two operations, [N, 8, 8, F] -> [N, 8, 8, F]. One of them has weights.
def windows(x):  # the nine pixels around each; zeros surround the image
  x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  return [x[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3)]


def dense(x, layer):  # a 1x1 convolution, then batch norm by this very batch
  kernel, scale, bias = layer
  x = x @ kernel
  x = (x - x.mean((0, 1, 2))) * lax.rsqrt(x.var((0, 1, 2)) + 1e-5)
  return x * scale + bias


def conv_3x3(x, layer):
  return dense(jnp.concatenate(windows(jax.nn.relu(x)), -1), layer)


def avg_pool_3x3(x, _):  # pixels outside of the image do not count
  return sum(windows(x)) / sum(windows(jnp.ones_like(x)))


# 2. The mixed operation: a switch that runs one branch per child, under `vmap`.
def run_one(branches):
  @custom_vmap
  def switch(index, *operands):
    return lax.switch(index, branches, *operands)

  @switch.def_vmap
  def child_by_child(size, own, *args):
    def child(i):  # alone, its index is a scalar, and the switch stays a switch
      return switch(*jax.tree.map(lambda x, b: x[i] if b else x, [*args], own))

    ys = lax.map(child, jnp.arange(size))
    return ys, jax.tree.map(lambda _: True, ys)

  return switch


OPS = [conv_3x3, avg_pool_3x3]
forward = run_one(OPS)
backward = run_one([lambda x, w, g, f=f: jax.vjp(f, x, w)[1](g) for f in OPS])
# The gradient is another switch by the same index; it runs its operation again.
mixed = jax.custom_vjp(forward)
mixed.defvjp(lambda *a: (forward(*a), a), lambda a, g: (None, *backward(*a, g)))

# 3. A child. Its cell is int32[BLOCKS, 2, 2]: a block adds up two edges, each a
# state and the operation on it. States 0 and 1 are the outputs of the last two
# cells, or of the stem; 2 + b is block b. CHOICES: how many for each number.
CHOICES = np.array([[[2 + b, len(OPS)]] * 2 for b in range(BLOCKS)])


def init(rng):  # of all children; a pool has weights too, and leaves them alone
  def layer(*shape):
    unit = rng.standard_normal((CHILDREN, *shape), np.float32)
    ones = np.ones((CHILDREN, *shape[:-2], shape[-1]), np.float32)
    return unit * (2 / shape[-2]) ** 0.5, ones, 0 * ones

  def cell(width):
    pairs = [layer(2, 9 * FEATURES, FEATURES) for _ in range(BLOCKS)]
    return layer(width, FEATURES), pairs

  wide = BLOCKS * FEATURES
  return layer(9, FEATURES), [cell(FEATURES), cell(wide)], layer(wide, 10)


def predict(params, cell, images):
  stem, cells, (kernel, _, bias) = params
  last = before = conv_3x3(images, stem)
  for fit, blocks in cells:
    states = [dense(jax.nn.relu(last), fit), before]
    for (inputs, ops), layers in zip(cell.swapaxes(1, 2), blocks):
      ys = jax.vmap(mixed)(ops, jnp.stack(states)[inputs], layers)
      states.append(ys.sum(0))
    # The output is what no block reads, side by side; zeros stand for the rest.
    loose = jnp.ones(len(states)).at[cell[..., 0]].set(0)
    output = [x * is_loose for x, is_loose in zip(states, loose)][2:]
    last, before = jnp.concatenate(output, -1), last
  return jax.nn.relu(last).mean((1, 2)) @ kernel + bias


# 4. Training: written for one child, mapped over eight.
def train_step(params, cell, batch, rate):
  def loss_of(params):
    scores = jax.nn.log_softmax(predict(params, cell, batch[0]))
    return -jnp.take_along_axis(scores, batch[1][:, None], 1).mean()

  loss, grads = jax.value_and_grad(loss_of)(params)
  return jax.tree.map(lambda p, g: p - rate * g, params, grads), loss


@jax.jit
def accuracies(params, cells, batches, train, valid):  # this is compiled, once
  def update(params, step):
    rate = RATE * (1 - step / STEPS)
    batch = [array[batches[step]] for array in train]
    return jax.vmap(train_step, (0, 0, None, None))(params, cells, batch, rate)

  params, _ = lax.scan(update, params, jnp.arange(STEPS))
  logits = jax.vmap(predict, (0, 0, None))(params, cells, valid[0])
  return (logits.argmax(-1) == valid[1]).mean(-1)


# 5. The search: regularised evolution (Real et al. 2019).
if __name__ == "__main__":
  rng, history = np.random.default_rng(0), []
  images, labels = load_digits(return_X_y=True)
  images = np.float32(images / 16).reshape(-1, 8, 8, 1)
  train, valid = (images[300:], labels[300:]), (images[:300], labels[:300])
  for number in range(ROUNDS):
    cells = rng.integers(CHOICES, size=(CHILDREN, *CHOICES.shape))
    alive = history[-POPULATION:]  # the oldest die, however good they are
    for child in cells if len(alive) == POPULATION else []:
      drawn = [alive[i] for i in rng.integers(POPULATION, size=SAMPLE)]
      child[:] = max(drawn, key=lambda member: member[0])[1]
      place = tuple(rng.integers(CHOICES.shape))
      child[place] = rng.integers(CHOICES[place])
    batches = rng.integers(len(train[1]), size=(STEPS, BATCH))
    found = accuracies(init(rng), cells, batches, train, valid)
    history += zip(found.tolist(), cells)
    print(f"round {number:2}: mean {found.mean():.3f}, best {found.max():.3f}")
  best, cell = max(history, key=lambda member: member[0])
  print(f"best cell, {best:.1%} of the validation images right:")
  for b, edges in enumerate(cell):
    left, right = (f"{OPS[op].__name__}(state {i})" for i, op in edges)
    print(f"  state {b + 2} = {left} + {right}")
