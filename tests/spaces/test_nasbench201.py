"""NAS-Bench-201's space: strings, and which cells compute the same."""

import itertools

import numpy as np
import pytest

from nasnet_jax import spaces
from nasnet_jax.spaces import base
from nasnet_jax.spaces import nasbench201 as nb

SPACE = spaces.get("nasbench201")
CELLS = nb.all_cells()
WIDTH, LENGTH = 2, 5


def test_a_cell_is_written_as_in_the_papers_code():
  text = (
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|"
    "+|skip_connect~0|none~1|nor_conv_1x1~2|"
  )
  assert SPACE.decode([3, 3, 4, 1, 0, 2]) == text
  assert SPACE.encode(text).tolist() == [3, 3, 4, 1, 0, 2]


def test_decode_and_encode_are_inverse_for_every_cell():
  texts = SPACE.decode(CELLS)
  assert len(set(texts.tolist())) == 15_625
  np.testing.assert_array_equal(SPACE.encode(texts), CELLS)
  pairs = CELLS[:6].reshape(2, 3, 6)
  assert SPACE.decode(pairs).shape == (2, 3)
  np.testing.assert_array_equal(SPACE.encode(SPACE.decode(pairs)), pairs)


@pytest.mark.parametrize(
  "text",
  [
    "",
    "|none~0|",
    "|none~0|+|none~0|none~1|+|none~0|none~1|none~3|",
    "|none~0|+|none~0|none~1|+|none~0|none~1|none~2",
    "|none~0|+|none~1|none~0|+|none~0|none~1|none~2|",
    "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|+|none~0|",
  ],
)
def test_another_string_is_refused(text):
  with pytest.raises(ValueError, match="no cell of NAS-Bench-201"):
    SPACE.encode(text)


def test_an_unknown_operation_is_named():
  text = "|none~0|+|none~0|conv_9x9~1|+|none~0|none~1|none~2|"
  with pytest.raises(ValueError, match="'conv_9x9' is not one of: none, skip"):
    SPACE.encode(text)


def test_it_is_a_search_space_by_name_and_has_no_options():
  assert isinstance(SPACE, base.SearchSpace)
  assert len(SPACE.decision_names) == len(SPACE.num_choices) == 6
  with pytest.raises(ValueError, match="'nasbench201' has no blocks"):
    spaces.get("nasbench201", num_blocks=2)


# A second implementation: cells on random numbers, [LENGTH, WIDTH]. The
# convolutions take ReLUs, kernels of 1 or 3 and a bias; a batch norm's scale
# changes nothing here.


def _weights(rng):
  kernels = rng.normal(size=(3, WIDTH, WIDTH))
  return kernels, rng.normal(size=WIDTH)


def _conv(x, op, weights):
  kernels, bias = weights
  x = np.maximum(x, 0)
  if op == nb.CONV_1X1:
    return x @ kernels[1] + bias
  padded = np.pad(x, ((1, 1), (0, 0)))
  shifts = [padded[i : i + LENGTH] @ kernels[i] for i in range(3)]
  return sum(shifts) + bias


def _pool(x):
  padded = np.pad(x, ((1, 1), (0, 0)))
  count = np.convolve(np.ones(LENGTH), np.ones(3), "same")
  return sum(padded[i : i + LENGTH] for i in range(3)) / count[:, None]


def _output(cell, x, weights):
  """weights: for each edge those of its convolution."""
  nodes = [x] + [np.zeros_like(x) for _ in range(3)]
  for (to, source), op, edge_weights in zip(nb.EDGES, cell, weights):
    if op == nb.SKIP:
      nodes[to] = nodes[to] + nodes[source]
    elif op == nb.POOL:
      nodes[to] = nodes[to] + _pool(nodes[source])
    elif op in (nb.CONV_1X1, nb.CONV_3X3):
      nodes[to] = nodes[to] + _conv(nodes[source], op, edge_weights)
  return nodes[3]


def _can_equal(a, b) -> bool:
  """Whether some weights make cell b compute what a does with random ones."""
  rng = np.random.default_rng(0)
  x = rng.normal(size=(LENGTH, WIDTH))
  weights = [_weights(rng) for _ in nb.EDGES]
  want = _output(a, x, weights)
  convs = np.flatnonzero(np.isin(b, (nb.CONV_1X1, nb.CONV_3X3)))
  for order in itertools.permutations(weights, len(convs)):
    mine = dict(zip(convs.tolist(), order))
    found = _output(b, x, [mine.get(i) for i in range(len(nb.EDGES))])
    if np.allclose(found, want):
      return True
  return False


def test_cells_with_one_canonical_form_compute_the_same():
  rng = np.random.default_rng(1)
  cells = CELLS[rng.permutation(len(CELLS))]
  forms = SPACE.canonical(cells)
  changed = (cells != forms).any(-1)
  assert 0.6 < changed.mean() < 0.7  # 10,391 of 15,625 are another's equal
  for cell, form in list(zip(cells[changed], forms[changed]))[:40]:
    assert _can_equal(cell, form), (cell, form)


def test_cells_with_different_canonical_forms_do_not_compute_the_same():
  rng = np.random.default_rng(2)
  tried = 0
  for cell in CELLS[rng.permutation(len(CELLS))]:
    # A permutation of the edges' operations: as like it as cells get.
    other = rng.permutation(cell)
    if (SPACE.canonical([cell])[0] != SPACE.canonical([other])[0]).any():
      assert not _can_equal(cell, other), (cell, other)
      tried += 1
    if tried == 30:
      return


def test_cells_of_equal_functions_agree_where_kernels_share_their_weights():
  rng = np.random.default_rng(3)
  x = rng.normal(size=(LENGTH, WIDTH))
  shared = [_weights(rng)] * len(nb.EDGES)
  chosen = rng.permutation(len(CELLS))[:1000]
  forms = SPACE.canonical(CELLS[chosen])
  for cell, form in zip(CELLS[chosen], forms):
    np.testing.assert_allclose(
      _output(cell, x, shared), _output(form, x, shared), atol=1e-9
    )


def test_one_convolution_read_twice_is_not_two_of_the_same_kind():
  once = [3, 0, 1, 0, 3, 1]  # conv(conv'(x)) + conv'(x), one conv'
  twice = [3, 3, 0, 0, 3, 1]  # conv(conv'(x)) + conv"(x)
  assert (SPACE.canonical([once]) != SPACE.canonical([twice])).any()
  assert not _can_equal(twice, once)


@pytest.mark.parametrize(
  ("cell", "same"),
  [
    ([3, 0, 0, 1, 0, 0], [0, 0, 0, 1, 0, 0]),  # an edge that leads nowhere
    ([0, 0, 3, 0, 0, 1], [0, 0, 2, 0, 0, 1]),  # a norm of nothing is a bias
    ([1, 0, 0, 0, 3, 0], [0, 0, 0, 3, 0, 0]),  # a skip is its source
    ([2, 4, 0, 0, 3, 1], [4, 2, 0, 0, 1, 3]),  # nodes 1 and 2 swapped
  ],
)
def test_what_does_not_matter_is_left_out(cell, same):
  np.testing.assert_array_equal(
    SPACE.canonical([cell]), SPACE.canonical([same])
  )
  assert _can_equal(cell, same)


def test_the_canonical_form_is_the_first_of_its_cells_and_its_own_form():
  forms = SPACE.canonical(CELLS)
  np.testing.assert_array_equal(SPACE.canonical(forms), forms)
  assert (nb.row_number(forms) <= np.arange(len(CELLS))).all()
  assert len(np.unique(forms, axis=0)) == 5234
