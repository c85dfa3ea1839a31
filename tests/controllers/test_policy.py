"""The LSTM policy against its definition in plain NumPy."""

import importlib.util
import itertools
import pathlib

import jax
import numpy as np
import pytest

from nasnet_jax.controllers import policy

_spec = importlib.util.spec_from_file_location(
  "numpy_policy", pathlib.Path(__file__).with_name("numpy_policy.py")
)
numpy_policy = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(numpy_policy)

CHOICES = (2, 3, 1, 4)
both_depths = pytest.mark.parametrize("layers", [1, 2])


def key(i):
  return jax.random.fold_in(jax.random.key(11), i)


@pytest.mark.smoke
@both_depths
def test_log_probabilities_are_those_of_a_plain_lstm(layers):
  params = policy.init_params(key(0), CHOICES, 7, 1.0, layers)
  decisions, log_prob = policy.propose(params, key(1), 50, CHOICES)
  plain = numpy_policy.as_float64(params)
  expected, entropy = numpy_policy.evaluate(plain, decisions, CHOICES)
  np.testing.assert_allclose(log_prob, expected, atol=2e-6)
  again = policy.evaluate(params, decisions, CHOICES)
  np.testing.assert_allclose(again[0], expected, atol=2e-6)
  np.testing.assert_allclose(again[1], entropy, atol=2e-6)


@both_depths
def test_probabilities_of_all_architectures_sum_to_one(layers):
  params = policy.init_params(key(0), CHOICES, 7, 1.0, layers)
  everything = np.array(list(itertools.product(*map(range, CHOICES))), np.int32)
  log_prob, _ = policy.evaluate(params, everything, CHOICES)
  assert np.exp(log_prob.sum(-1)).sum() == pytest.approx(1, abs=1e-5)


def test_samples_come_as_often_as_their_probability_says():
  params = policy.init_params(key(0), CHOICES, 7, 1.0)
  n = 20_000
  decisions, log_prob = policy.propose(params, key(1), n, CHOICES)
  rows, where, counts = np.unique(
    decisions, axis=0, return_index=True, return_counts=True
  )
  assert len(rows) == 24
  p = np.exp(log_prob[where].sum(-1))
  assert (np.abs(counts / n - p) < 5 * np.sqrt(p / n)).all()


def test_batches_beyond_the_largest_program_do_not_repeat_themselves():
  params = policy.init_params(key(0), CHOICES, 7, 1.0)
  n = policy.LARGEST_BATCH
  decisions, log_prob = policy.propose(params, key(1), n + 40, CHOICES)
  assert decisions.shape == log_prob.shape == (n + 40, len(CHOICES))
  assert (decisions[:40] != decisions[n:]).any()


@both_depths
def test_matrix_products_are_exact_on_accelerators_too(layers):
  params = policy.init_params(key(0), CHOICES, 3, 1.0, layers)
  jaxpr = str(
    jax.make_jaxpr(policy.sample, static_argnums=(2, 3))(
      params, key(1), 4, CHOICES
    )
  )
  assert jaxpr.count("dot_general[") == 2 * layers + 1
  assert jaxpr.count("precision=(Precision.HIGHEST") == 2 * layers + 1
