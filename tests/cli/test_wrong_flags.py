"""A command line that cannot be, told in a line that says what was meant."""

import pytest
from absl import flags
from ml_collections import config_flags

from nasnet_jax.cli import shipped, wrong_flags

DIGITS = "--config=search_digits:tiny"


def _explained(monkeypatch, *words) -> str:
  """What a program with a config and two flags says; "" if nothing is wrong."""
  given = flags.FlagValues()
  config_flags.DEFINE_config_file("config", flag_values=given)
  flags.DEFINE_string("workdir", None, "", flag_values=given)
  arguments = wrong_flags.in_order([DIGITS, *words])
  chosen = arguments[0].partition("=")[2]
  arguments[0] = f"--config={shipped.path(chosen)}"
  monkeypatch.setattr("sys.argv", ["program", *arguments])
  try:
    given(["program", *arguments])
  except Exception as error:
    return wrong_flags.explain(error, arguments)
  return ""


@pytest.mark.parametrize(
  ("word", "meant"),
  [
    (
      "--config.seed=1",
      "mean --config.search.seed=1, or --config.data.seed=1?",
    ),
    (
      "--children=5",
      "no flag --children: did you mean --config.search.children=5?",
    ),
    ("--config.chid.epochs=3", "mean --config.child.epochs=3?"),
    ("--config.child.epohcs=3", "mean --config.child.epochs=3?"),
    ("--config.childen=3", "mean --config.search.children=3?"),
    ("--wrkdir=x", "Did you mean: workdir"),
    ("--config.bananas=1", "no field bananas: --show prints its fields"),
    (
      "--config.search=1",
      "a group of fields: name one, such as --config.search.",
    ),
    ("--config.search.children=abc", "=abc is no number: give a whole number"),
    ("--config.search.children=1.5", "=1.5 is no whole number: give a whole"),
    (
      "--config.child.learning_rate=x",
      "learning_rate=x is no number: give a num",
    ),
    ("--config.search.asynchronous=x", "neither true nor false"),
    ("--config.space.operations=('a',", "give a tuple in quotes"),
    ("--config.data.options.image_size=x", "image_size=x is no number"),
  ],
)
def test_the_field_that_is_meant_is_named(monkeypatch, word, meant):
  said = _explained(monkeypatch, word)
  assert meant in said
  assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
  "word", ["--config.search.seed=1", "--noconfig.search.asynchronous"]
)
def test_what_is_right_is_left_alone(monkeypatch, word):
  assert _explained(monkeypatch, word) == ""


def test_a_number_out_of_its_bounds_is_not_called_none():
  values = flags.FlagValues()
  flags.DEFINE_integer("images", 300, "", 1, flag_values=values)
  with pytest.raises(flags.IllegalFlagValueError) as error:
    values(["program", "--images=0"])
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(flags, "FLAGS", values)
    said = wrong_flags.explain(error.value, ["--images=0"])
  assert "0 is not a positive integer" in said


def test_fields_may_stand_before_the_config():
  fields = ["--config.a=1", "--workdir=x"]
  for config in (
    ["--config=c:tiny"],
    ["--config", "c:tiny"],
    ["-config=c:tiny"],
  ):
    assert wrong_flags.in_order([*fields, *config]) == [
      "--config=c:tiny",
      *fields,
    ]
  assert wrong_flags.in_order([*fields, "--", "--config=c"]) == [
    *fields,
    "--",
    "--config=c",
  ]
  assert wrong_flags.in_order(fields) == fields


def test_a_config_in_the_home_folder_is_found(monkeypatch, tmp_path):
  monkeypatch.setenv("HOME", str(tmp_path))
  assert wrong_flags.in_order(["--config=~/mine.py:small"]) == [
    f"--config={tmp_path}/mine.py:small"
  ]


def test_a_word_is_suggested_only_if_it_is_near():
  from nasnet_jax import controllers, spaces
  from nasnet_jax.search import rewards

  space = spaces.get("nasnet")
  with pytest.raises(ValueError, match=r"'bananas'; \(") as error:
    controllers.make("bananas", space)
  assert "did you mean" not in str(error.value)
  with pytest.raises(ValueError, match=r"'f1'; \(accuracy"):
    rewards._check_name("kind", "f1", ["accuracy", "mnasnet_soft"])
