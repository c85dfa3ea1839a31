"""Operations, spaces and strategies out of a user's own file."""

import subprocess
import sys

import flax.linen as nn
import jax
import numpy as np
import pytest

import nasnet_jax as nas
from nasnet_jax import controllers, spaces
from nasnet_jax.cli import own_files
from nasnet_jax.controllers import random_search
from nasnet_jax.models import ops
from nasnet_jax.models.kernels import pools
from nasnet_jax.models.layers import BatchNorm, Numerics, PointwiseConv
from nasnet_jax.training import own_parts, program_cache

_NAME = "mixed_pool_3x3"


class MixedPool(nn.Module):
  """Half the sum of both pools, 1x1 and batch norm."""

  numerics: Numerics
  features: int
  stride: int = 1

  @nn.compact
  def __call__(self, x, train):
    x = pools.max_pool(x, 3, self.stride) + pools.avg_pool(x, 3, self.stride)
    x = PointwiseConv(self.numerics, self.features, name="conv")(x / 2)
    return BatchNorm(self.numerics, name="norm")(x, train)


class Narrow(MixedPool):
  """Forgets its width."""

  @nn.compact
  def __call__(self, x, train):
    return pools.max_pool(x, 3, self.stride)


class Weighted(MixedPool):
  """Has weights of another name."""

  @nn.compact
  def __call__(self, x, train):
    x = MixedPool.__call__.__wrapped__(self, x, train)
    return x * self.param("weight", nn.initializers.ones, (self.features,))


@pytest.fixture(autouse=True)
def _forget():
  yield
  for name in {*ops.OPERATIONS} - nas_parts().OURS["operation"]:
    del ops.OPERATIONS[name]
  for name in {*controllers.CONTROLLERS} - nas_parts().OURS["strategy"]:
    del controllers.CONTROLLERS[name]
  program_cache._own.clear()
  own_parts.forget()


def nas_parts():
  from nasnet_jax.api import parts

  return parts


def test_an_operation_of_ones_own_is_sound_and_in_a_space():
  assert nas.operation(_NAME)(MixedPool) is MixedPool
  assert "strides 1 and 2" in nas.check(_NAME)
  space = nas.cells(["identity", _NAME], blocks=2)
  assert spaces.get(space.name, **space.options) == space
  assert nas.cells(["identity"], reduction=False).cells == ("cell",)


def test_what_is_no_such_operation_is_refused():
  nas.operation("narrow")(Narrow)
  with pytest.raises(ValueError, match=r"makes \[2, 5, 5, 6\] of"):
    nas.check("narrow")
  with pytest.raises(ValueError, match="has no field 'numerics'"):
    nas.operation("dense")(nn.Dense)
  with pytest.raises(ValueError, match="is the library's"):
    nas.operation("identity")
  with pytest.raises(ValueError, match="no operation is called 'mixd'"):
    nas.cells(["identity", "mixd"])
  with pytest.raises(ValueError, match="--import=FILE"):
    ops.OPERATIONS["mixd"]


def test_weights_that_a_search_cannot_draw_are_refused():
  nas.operation("weighted")(Weighted)
  with pytest.raises(ValueError, match="weights called 'weight'"):
    nas.check("weighted")


def test_a_strategy_of_ones_own_searches(tmp_path):
  nas.strategy("mine")(random_search.random_search)
  assert "12 children" in nas.check("mine")
  study = nas.Study(tmp_path, space=[3, 3], strategy="mine")
  study.run(lambda child: sum(child.decisions), children=3)
  assert len(study.children) == 3


def test_a_strategy_that_draws_out_of_nowhere_is_found():
  rng = np.random.default_rng(0)

  @nas.strategy("loose")
  def loose(space):
    real = random_search.random_search(space)

    def ask(state, key, n):
      return real.ask(state, jax.random.key(rng.integers(1 << 30)), n)

    return real._replace(ask=ask)

  with pytest.raises(ValueError, match="has to come from the key"):
    nas.check("loose")


def _part_of(folder, text: str) -> str | None:
  """The digest of a file's part that uses what another file has."""
  (folder / "nas_parts_b.py").write_text(text)
  (folder / "nas_parts_a.py").write_text(
    "from nas_parts_b import SIZE\nimport nas_parts_b\nclass Part: pass\n"
  )
  code = (
    f"import sys; sys.path.insert(0, {str(folder)!r});"
    "from nas_parts_a import Part;"
    "from nasnet_jax.training import program_cache as p;"
    "p.note(Part); print(p._own_source())"
  )
  done = subprocess.run(
    [sys.executable, "-c", code], check=True, capture_output=True, text=True
  )
  return done.stdout


def test_a_changed_file_never_meets_a_kept_program(tmp_path):
  first = _part_of(tmp_path, "SIZE = 3\n")
  assert first != _part_of(tmp_path, "SIZE = 5\n")


def test_a_part_that_is_in_no_file_has_no_index():
  assert program_cache._own_source() == ""
  part = type("Part", (), {"__module__": "a_notebook"})
  program_cache.note(part)
  assert program_cache._own_source() is None


def test_a_command_takes_a_file(tmp_path):
  file = tmp_path / "nas_own_parts.py"
  file.write_text(
    "import nasnet_jax as nas\n"
    "from nasnet_jax.models.ops import Identity\n"
    "nas.operation('my_identity')(Identity)\n"
  )
  own_files.load(str(file))
  assert "my_identity" in ops.OPERATIONS
  file.write_text("1 / 0\n")
  with pytest.raises(ValueError, match="called nas_own_parts already"):
    own_files.load(str(file))
  (tmp_path / "nas_wrong.py").write_text("1 / 0\n")
  with pytest.raises(ValueError, match="ZeroDivisionError"):
    own_files.load(str(tmp_path / "nas_wrong.py"))
  with pytest.raises(ValueError, match="no such file"):
    own_files.load("nas_parts.txt")
