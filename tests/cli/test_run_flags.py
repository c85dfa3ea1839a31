"""One name for a run, and the other one understood."""

import pytest
from absl import flags

from nasnet_jax.cli import entry, run_flags


def _take(*words, pictures=False):
  given = flags.FlagValues()
  made = run_flags.RunFlags(
    *(
      flags.DEFINE_string(name, None, "", flag_values=given)
      for name in run_flags.NAMES
    )
  )
  return made.take(given(["program", *words])[1:], pictures)


@pytest.fixture
def run(tmp_path):
  (tmp_path / "result.json").write_text("{}")
  return str(tmp_path)


def test_a_run_goes_by_either_flag_or_by_a_plain_word(run):
  for word in (f"--checkpoint={run}", f"--workdir={run}", run):
    assert _take(word) == (run, [])
    assert _take(word, "a.png", pictures=True) == (run, ["a.png"])
  assert _take() == ("", [])


def test_a_picture_is_not_taken_for_the_run():
  assert _take("a.png", pictures=True) == ("", ["a.png"])


def test_two_runs_are_refused_but_one_may_be_given_twice(run):
  flag = f"--workdir={run}"
  assert _take(flag, f"--checkpoint={run}/") == (f"{run}/", [])
  with pytest.raises(entry.UsageError, match="name two runs"):
    _take(flag, "--checkpoint=other")
  with pytest.raises(entry.UsageError, match=r"other.*one word too many"):
    _take(flag, "other")
