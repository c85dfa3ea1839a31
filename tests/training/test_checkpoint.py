"""Checkpoints: strict, whole, and no more of them than asked for."""

import errno

import jax.numpy as jnp
import numpy as np
import pytest

from nasnet_jax.training import checkpoint


def _tree(value=1.0):
  return {
    "params": {"kernel": jnp.full((3, 4), value), "bias": jnp.zeros(4)},
    "count": np.array(2**40, np.int64),
    "flags": np.array([True, False]),
  }


def test_what_is_saved_comes_back_with_its_types(tmp_path):
  checkpoint.save(tmp_path, 7, _tree())
  step, tree = checkpoint.restore(tmp_path, _tree(0.0))
  assert step == 7
  np.testing.assert_array_equal(tree["params"]["kernel"], np.ones((3, 4)))
  assert tree["count"] == 2**40
  assert tree["count"].dtype == np.int64
  assert tree["flags"].dtype == bool


def test_only_the_newest_are_kept(tmp_path):
  for step in (1, 2, 3, 10):
    checkpoint.save(tmp_path, step, _tree(step), keep=2)
  assert checkpoint.steps(tmp_path) == [3, 10]
  assert {p.name for p in tmp_path.iterdir()} == {"3", "10"}


def test_an_empty_or_missing_folder_holds_no_checkpoint(tmp_path):
  assert checkpoint.restore(tmp_path, _tree()) is None
  assert checkpoint.restore(tmp_path / "none", _tree()) is None


def test_missing_and_unexpected_names_are_listed(tmp_path):
  checkpoint.save(tmp_path, 1, _tree())
  other = _tree()
  other["params"]["scale"] = other["params"].pop("bias")
  with pytest.raises(
    checkpoint.CheckpointError,
    match=r"missing: params.scale; unexpected: params.bias$",
  ):
    checkpoint.restore(tmp_path, other)


def test_another_shape_is_named(tmp_path):
  checkpoint.save(tmp_path, 1, _tree())
  other = {**_tree(), "flags": np.zeros(3, bool)}
  with pytest.raises(
    checkpoint.CheckpointError, match=r"flags \(2,\) instead of \(3,\)"
  ):
    checkpoint.restore(tmp_path, other)


def test_what_a_killed_save_left_is_no_checkpoint_and_is_removed(tmp_path):
  checkpoint.save(tmp_path, 1, _tree())
  left = tmp_path / "3.orbax-checkpoint-tmp"
  left.mkdir()
  assert checkpoint.restore(tmp_path, _tree())[0] == 1
  checkpoint.save(tmp_path, 2, _tree())
  assert not left.exists()


def test_one_bit_in_a_large_array_is_noticed(tmp_path):
  # Orbax has checksums for its index, not for the arrays' own bytes.
  weights = {"kernel": np.random.default_rng(0).random(100_000, np.float32)}
  checkpoint.save(tmp_path, 1, weights)
  files = [f for f in tmp_path.rglob("d/*") if f.is_file()]
  largest = max(files, key=lambda file: file.stat().st_size)
  content = bytearray(largest.read_bytes())
  content[len(content) // 2] ^= 1
  largest.write_bytes(content)
  with pytest.raises(checkpoint.DamagedError):
    checkpoint.read(tmp_path / "1", weights)


def test_a_checkpoint_that_is_not_there_is_said_to_be_so(tmp_path):
  with pytest.raises(
    checkpoint.CheckpointError, match=r"weights is not there$"
  ):
    checkpoint.read(tmp_path / "weights", _tree())


def test_if_all_are_damaged_there_is_none(tmp_path, caplog):
  for step in (1, 2):
    checkpoint.save(tmp_path, step, _tree())
    for file in (tmp_path / str(step)).rglob("*"):
      if file.is_file():
        file.write_bytes(b"")
  assert checkpoint.restore(tmp_path, _tree()) is None
  assert caplog.text.count("is damaged") == 2


def test_a_full_disk_is_told_as_one(tmp_path, monkeypatch):
  def full(*_, **__):
    raise ValueError("INTERNAL: [OS error 28: No space left on device]")

  monkeypatch.setattr(checkpoint.ocp.StandardCheckpointer, "save", full)
  with pytest.raises(OSError, match="No space") as caught:
    checkpoint.save(tmp_path, 1, _tree())
  assert caught.value.errno == errno.ENOSPC
