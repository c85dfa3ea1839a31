"""`--show`: the manual of a config, its fields, and what stands beside them."""

import subprocess
import sys

import pytest

from nasnet_jax.cli import commands, shipped, show

_MINE = '''"""My config.

Paper: none.
"""

from ml_collections import ConfigDict


def get_config(variant=""):
  config = ConfigDict()
  config.job = "train"
  config.train = ConfigDict()
  config.train.epochs = 20  # appendix A
  # Above,
  # in two lines.
  config.train.rate = 0.1
  config.train.sides = (
    1,
    2,
  )  # of two
  config.train.update(
    {
      "decay": 0.5,  # in a dict
      "keep": 0.9,
    }
  )
  config.train.update(seed=3)  # by a keyword
  if variant:
    config.train.epochs = 2  # a short one
    config.train.rate = 0.2
    config.extra = 1
  return config
'''


def _lines(name, change=None):
  config = shipped.config(name)
  config.update_from_flattened_dict(change or {})
  lines = show.text(name, config).splitlines()
  return [" ".join(line.split()) for line in lines]


@pytest.fixture
def mine(tmp_path) -> str:
  path = tmp_path / "mine.py"
  path.write_text(_MINE)
  return str(path)


def test_the_header_comes_first_then_fields_in_order_with_their_comments(mine):
  assert _lines(mine) == [
    "My config.",
    "",
    "Paper: none.",
    "",
    "* changed by the variant or on the command line",
    "",
    "job = 'train'",
    "",
    "train.epochs = 20 # appendix A",
    "train.rate = 0.1 # Above, in two lines",
    "train.sides = (1, 2) # of two",
    "train.decay = 0.5 # in a dict",
    "train.keep = 0.9",
    "train.seed = 3 # by a keyword",
  ]


def test_what_the_variant_changed_is_marked_and_has_its_default(mine):
  lines = _lines(f"{mine}:short")
  assert "* train.epochs = 2 # a short one; default 20: appendix A" in lines
  assert "* train.rate = 0.2 # default 0.1: Above, in two lines" in lines
  assert "extra = 1" in lines  # it has no default
  assert "train.seed = 3 # by a keyword" in lines


def test_what_the_command_line_changed_is_marked_and_has_its_default(mine):
  lines = _lines(mine, {"train.seed": 4})
  assert "* train.seed = 4 # default 3: by a keyword" in lines
  lines = _lines(f"{mine}:short", {"train.epochs": 9, "train.rate": 0.1})
  assert "* train.epochs = 9 # default 20; 2: a short one" in lines
  assert "train.rate = 0.1 # Above, in two lines" in lines  # as without both


@pytest.mark.parametrize(
  "name",
  [
    *shipped.names(),
    "search_mnasnet:small",
    "detect_voc:tiny",
    "scale_grid:small_cell",
    "finetune:pets",
  ],
)
def test_every_field_is_there_once_with_its_value(name):
  config = shipped.config(name)
  flat = config.items()
  while any(hasattr(value, "items") for _, value in flat):
    flat = [
      pair
      for field, value in flat
      for pair in (
        [(f"{field}.{key}", inner) for key, inner in value.items()]
        if hasattr(value, "items")
        else [(field, value)]
      )
    ]
  text = show.text(name, config)
  shown = [
    line[2:].partition("  # ")[0].strip()
    for line in text.partition(show.LEGEND)[2].splitlines()
    if line
  ]
  assert sorted(shown) == sorted(f"{f} = {value!r}" for f, value in flat)


def test_values_of_the_groups_come_with_their_papers():
  lines = _lines("search_pnas:small")
  assert (
    "* child.learning_rate = 0.1 # few steps, so larger ones; default 0.01;"
    " 0.025: not in the paper; slim, cifar_config" in lines
  )
  assert "child.momentum = 0.9 # Zoph et al. 2018, appendix A" in lines


def _program(script, *words):
  """Runs it, without any import of JAX."""
  code = (
    "import runpy, sys\n"
    f"sys.argv = [{script!r}, *{words!r}]\n"
    "try:\n"
    f"  runpy.run_path({script!r}, run_name='__main__')\n"
    "except SystemExit as error:\n"
    "  assert not error.code, error\n"
    "assert 'jax' not in sys.modules\n"
  )
  done = subprocess.run(
    [sys.executable, "-c", code],
    capture_output=True,
    text=True,
    timeout=120,
    cwd=shipped.home(),
  )
  assert done.returncode == 0, done.stderr
  return done.stdout


@pytest.mark.parametrize("script", ["launch/main.py", "launch/preflight.py"])
def test_a_program_shows_the_config_with_its_flags_and_starts_no_jax(script):
  flags = ("--config=configs/search_digits.py:tiny", "--config.search.seed=7")
  out = _program(script, *flags, "--show")
  assert out.startswith("Searches cells for scikit-learn's digits")
  assert "* search.seed = 7 " in out


@pytest.mark.parametrize(
  "name", [n for n, c in commands.COMMANDS.items() if c.job]
)
def test_every_command_of_a_config_shows_it_by_the_programs_flag(name):
  script, *flags = commands.command(name, ["--show"])
  assert script.endswith("launch/main.py")
  assert "--show" in flags
