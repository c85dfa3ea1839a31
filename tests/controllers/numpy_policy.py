"""The LSTM policy in plain NumPy: one child, one step, one cell at a time."""

import math

import numpy as np

from nasnet_jax.controllers import policy


def as_float64(params):
  return policy.Params(*(np.asarray(x, np.float64) for x in params))


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def evaluate(params, decisions, num_choices):
  """(log_prob, entropy), both float64[n, D]."""
  units = params.hidden_kernel.shape[1] // 4
  layers = params.hidden_kernel.shape[0] // units
  log_prob, entropy = [], []
  for row in decisions:
    hidden, cell = np.zeros((2, layers, units))
    previous = 0
    for t, choices in enumerate(num_choices):
      below = params.embedding[t, previous]
      for k in range(layers):
        rows = slice(k * units, (k + 1) * units)
        gates = below @ params.input_kernel[rows]
        gates = gates + hidden[k] @ params.hidden_kernel[rows]
        gates = gates + params.bias[4 * k * units : 4 * (k + 1) * units]
        enter, forget, new, leave = gates.reshape(4, units)
        cell[k] = sigmoid(forget) * cell[k] + sigmoid(enter) * np.tanh(new)
        below = hidden[k] = sigmoid(leave) * np.tanh(cell[k])
      logits = below @ params.head_kernel[t] + params.head_bias[t]
      odds = np.exp(logits[:choices])
      p = odds / odds.sum()
      log_prob.append(math.log(p[row[t]]))
      entropy.append(-sum(q * math.log(q) for q in p))
      previous = row[t]
  return np.reshape(log_prob, decisions.shape), np.reshape(
    entropy, decisions.shape
  )


def gradient(loss, params):
  """Central differences of loss(params), in the form of float64 params."""
  slopes = policy.Params(*(np.zeros_like(leaf) for leaf in params))
  for leaf, slope in zip(params, slopes):
    for place in np.ndindex(leaf.shape):
      value, ends = leaf[place], []
      for step in (1e-5, -1e-5):
        leaf[place] = value + step
        ends.append(loss(params))
      leaf[place] = value
      slope[place] = (ends[0] - ends[1]) / 2e-5
  return slopes
