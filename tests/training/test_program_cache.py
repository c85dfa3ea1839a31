"""What one process compiled, the next one reads; never the wrong thing."""

import os
import subprocess
import sys
import threading
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from nasnet_jax.training import program_cache
from nasnet_jax.training.mesh import make_mesh

X = np.arange(4, dtype=np.float32)


@pytest.fixture
def folder(tmp_path):
  """An empty cache folder of JAX's, which keeps no small program itself: what
  it had read there could not be written again."""
  settings = {
    "jax_compilation_cache_dir": str(tmp_path / "cache"),
    "jax_persistent_cache_min_compile_time_secs": 10.0,
  }
  before = {name: jax.config.values[name] for name in settings}
  for name, value in settings.items():
    jax.config.update(name, value)
  yield tmp_path / "cache"
  for name, value in before.items():
    jax.config.update(name, value)


def _plus(number, about="", asked=None):
  """x + number as a program; `asked` notes that it was compiled."""

  def arguments():
    if asked is not None:
      asked.append(number)
    return {"plus": (X,)}

  functions = {"plus": jax.jit(lambda x: x + number)}
  return program_cache.compile_all(
    functions, arguments, jax.devices()[:1], about
  )["plus"]


def _files(folder):
  return sorted(folder.glob("*.program"))


def test_a_second_call_reads_the_program_and_compiles_nothing(folder):
  asked = []
  for _ in range(2):
    np.testing.assert_array_equal(_plus(1, "one", asked)(X), X + 1)
  assert asked == [1]
  assert len(_files(folder)) == 1


def test_another_process_reads_it(folder):
  code = f"""
import jax, numpy as np
jax.config.update("jax_compilation_cache_dir", {str(folder)!r})
from nasnet_jax.training import program_cache
asked = []
def arguments():
  asked.append(1)
  return {{"twice": (np.ones(3, np.float32),)}}
f = program_cache.compile_all(
  {{"twice": jax.jit(lambda x: 2 * x)}}, arguments, jax.devices()[:1], "")
print(asked, float(f["twice"](np.ones(3, np.float32)).sum()))
"""
  said = [
    subprocess.run(
      [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
    for _ in range(2)
  ]
  assert said == ["[1] 6.0", "[] 6.0"]


def test_a_program_that_jaxs_own_cache_has_is_kept_and_works(tmp_path):
  """XLA:CPU would write what it had read there without its functions."""
  code = """
import os, pathlib, sys
folder, about = sys.argv[1:]
os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
import jax, numpy as np
from nasnet_jax.training import program_cache
x = np.ones((3, 4), np.float32)
f = jax.jit(lambda x: jax.numpy.sort(x.cumsum(0) @ x.T, 0).sum(0))
if about:
  f = program_cache.compile_all(
    {"f": f}, lambda: {"f": (x,)}, jax.devices()[:1], about
  )["f"]
print(f(x).tolist(), len(list(pathlib.Path(folder).glob("*.program"))))
"""
  said = [
    subprocess.run(
      [sys.executable, "-c", code, str(tmp_path), about],
      capture_output=True,
      text=True,
      check=True,
    ).stdout.strip()
    for about in ("", "one", "one", "another")
  ]
  assert said == ["[24.0, 24.0, 24.0] 0"] + ["[24.0, 24.0, 24.0] 1"] * 3


def test_what_leaves_a_program_as_it_was_compiles_nothing(
  folder, compilations, monkeypatch
):
  asked = []
  _plus(1, "one", asked)
  assert len(compilations) == 1
  _plus(1, "another", asked)
  monkeypatch.setattr(program_cache, "_source", lambda: "an edited file")
  np.testing.assert_array_equal(_plus(1, "another", asked)(X), X + 1)
  assert asked == [1, 1, 1]
  assert len(compilations) == 1
  assert len(_files(folder)) == 1


def test_results_of_another_form_are_another_program(folder):
  for form in (list, tuple):
    program = program_cache.compile_all(
      {"f": jax.jit(lambda x, form=form: form([x, x + 1]))},
      lambda: {"f": (X,)},
      jax.devices()[:1],
      form.__name__,
    )["f"]
    assert type(program(X)) is form
  assert len(_files(folder)) == 2


def test_jaxs_own_cache_serves_again_what_is_compiled_afterwards(folder):
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
  _plus(1)
  before = set(folder.iterdir())
  jax.jit(lambda x: x * 3 - 1)(X)
  assert set(folder.iterdir()) - before


def test_what_a_program_is_made_from_is_part_of_its_name(folder):
  np.testing.assert_array_equal(_plus(1, ("recipe", 1))(X), X + 1)
  np.testing.assert_array_equal(_plus(2, ("recipe", 2))(X), X + 2)
  np.testing.assert_array_equal(_plus(1, ("recipe", 1))(X), X + 1)
  assert len(_files(folder)) == 2


@pytest.mark.parametrize(
  ("name", "value"),
  [
    ("_source", lambda: "an edited file"),
    ("_cpu_features", lambda: "another processor"),
  ],
)
def test_another_source_or_machine_compiles_again(
  folder, monkeypatch, name, value
):
  asked = []
  _plus(1, "", asked)
  monkeypatch.setattr(program_cache, name, value)
  _plus(1, "", asked)
  assert asked == [1, 1]


def test_other_flags_and_settings_compile_again(folder, monkeypatch):
  asked = []
  _plus(1, "", asked)
  monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
  _plus(1, "", asked)
  jax.config.update("jax_default_matmul_precision", "float32")
  try:
    _plus(1, "", asked)
  finally:
    jax.config.update("jax_default_matmul_precision", None)
  assert asked == [1, 1, 1]


def _truncated(content):
  return content[: len(content) // 2]


def _flipped(content):
  middle = len(content) // 2
  return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
  "damage", [_truncated, _flipped, lambda _: b"", lambda _: b"nonsense" * 9]
)
def test_a_damaged_program_is_compiled_again_and_replaced(folder, damage):
  asked = []
  _plus(1, "", asked)
  (path,) = _files(folder)
  path.write_bytes(damage(path.read_bytes()))
  np.testing.assert_array_equal(_plus(1, "", asked)(X), X + 1)
  assert asked == [1, 1]
  _plus(1, "", asked)
  assert asked == [1, 1]  # the new file is good
  assert _files(folder) == [path]


def test_a_cache_that_cannot_be_written_stops_nobody(folder):
  folder.write_text("a file in the folder's place")
  np.testing.assert_array_equal(_plus(1)(X), X + 1)


def test_without_a_cache_folder_nothing_is_kept(folder):
  jax.config.update("jax_compilation_cache_dir", None)
  asked = []
  for _ in range(2):
    np.testing.assert_array_equal(_plus(1, "", asked)(X), X + 1)
  assert asked == [1, 1]


def test_the_least_recently_used_programs_go(folder, monkeypatch):
  monkeypatch.setattr(program_cache, "_KEEP", 2)
  _plus(1, 1)
  (first,) = _files(folder)
  _plus(2, 2)
  (second,) = set(_files(folder)) - {first}
  os.utime(first, (1, 1))
  os.utime(second, (2, 2))
  _plus(1, 1)  # used: now the newest
  _plus(3, 3)
  assert first in _files(folder)
  assert second not in _files(folder)
  assert len(_files(folder)) == 2


def test_donation_and_sharding_survive(folder):
  mesh = make_mesh(8, 1)
  rows = NamedSharding(mesh, PartitionSpec("arch"))
  x = np.arange(16, dtype=np.float32)

  def build():
    functions = {
      "step": jax.jit(lambda x: x * 2, donate_argnums=0, out_shardings=rows)
    }
    start = jax.device_put(x, rows)
    return program_cache.compile_all(
      functions, lambda: {"step": (start,)}, mesh.devices.flat, ""
    )

  build()
  step = build()["step"]
  state = jax.device_put(x, rows)
  new = step(state)
  assert state.is_deleted()
  assert new.sharding.is_equivalent_to(rows, 1)
  np.testing.assert_array_equal(new, x * 2)
  with pytest.raises(TypeError):
    step(jnp.zeros(8))  # another shape is an error, not a compilation


def test_a_stop_does_not_wait_for_what_is_compiled():
  release, done = threading.Event(), threading.Event()

  def compile_one(_):
    release.wait(30)
    done.set()

  def stop():
    raise KeyboardInterrupt

  functions = {
    "long": types.SimpleNamespace(lower=lambda: None),
    "next": types.SimpleNamespace(lower=stop),
  }
  arguments = dict.fromkeys(functions, ())
  with pytest.raises(KeyboardInterrupt):
    program_cache._compile_all(functions, arguments, compile_one)
  assert not done.is_set()
  release.set()
