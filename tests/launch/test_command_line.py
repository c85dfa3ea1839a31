"""`nasnet-jax`: names for what `launch/` does."""

import ast
import contextlib
import os
import pathlib
import pty
import shutil
import subprocess
import sys
import zipfile

import pytest

from nasnet_jax.cli import commands, run_flags, shipped

ROOT = pathlib.Path(__file__).parents[2]
SCRIPTS = {c.script for c in commands.COMMANDS.values()}


def _run(*arguments, **options):
  line = [sys.executable, "-m", "nasnet_jax.cli.commands", *arguments]
  return subprocess.run(
    line, capture_output=True, text=True, timeout=120, cwd=ROOT, **options
  )


def _defined(script: str) -> set[str]:
  """Flags that a program defines, as completion writes them."""
  tree = ast.parse((ROOT / "launch" / script).read_text())
  calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call)]
  found = set()
  for call in calls:
    kind = getattr(call.func, "attr", "")
    if kind.startswith("DEFINE_"):
      ending = "" if kind == "DEFINE_bool" else "="
      found.add(f"--{call.args[0].value}{ending}")
    elif ast.unparse(call) == "run_flags.define()":
      found |= {f"--{name}=" for name in run_flags.NAMES}
  return found


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_completion_knows_the_flags_of_the_program_and_no_others(name):
  found = commands.COMMANDS[name]
  defined = _defined(found.script)
  if found.other:
    defined |= _defined(found.other)
  assert set(found.flags) == defined


def test_every_program_of_launch_has_a_command():
  others = {c.other for c in commands.COMMANDS.values()}
  programs = {file.name for file in (ROOT / "launch").glob("*.py")}
  assert others - {""} | SCRIPTS == programs


def test_every_example_names_a_command_and_its_flags():
  for name, found in commands.COMMANDS.items():
    for example in found.examples:
      words = example.replace("\\\n", " ").split()
      assert words[0] == name
      for word in words[1:]:
        flag = word.partition("=")[0]
        if flag.startswith("--config."):
          continue
        if flag.startswith("--"):
          assert flag in {f.removesuffix("=") for f in found.flags}


def test_a_run_without_flags_gets_the_config_and_the_folder_of_its_name():
  script, *flags = commands.command("search", [])
  assert script == str(ROOT / "launch" / "main.py")
  assert flags == [
    f"--config={ROOT}/configs/search_digits.py",
    "--workdir=runs/search_digits",
  ]


@pytest.mark.parametrize(
  "given",
  [
    ["--config=search_cifar:small"],
    ["--config", "search_cifar:small"],
    ["-config=search_cifar:small"],
    ["--config=configs/search_cifar.py:small"],
  ],
)
def test_a_shipped_config_goes_by_its_name_from_anywhere(
  given, monkeypatch, tmp_path
):
  monkeypatch.chdir(tmp_path)
  _, *flags = commands.command("search", [*given, "--config.x.y=1"])
  assert flags == [
    f"--config={ROOT}/configs/search_cifar.py:small",
    "--config.x.y=1",
    "--workdir=runs/search_cifar_small",
  ]


def test_a_config_file_of_ones_own_stays_what_it_is(monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  for name in ("mine.py", "search_cifar"):  # the second like a shipped one
    (tmp_path / name).write_text("")
    _, *flags = commands.command("train", [f"--config={name}"])
    assert flags[0] == f"--config={name}"


def test_a_config_by_its_name_is_the_one_of_its_file_and_locked():
  config = shipped.config("search_digits:tiny")
  assert config.data.source == "digits"
  with pytest.raises(AttributeError, match="epochs"):
    config.child.epohcs = 3
  with pytest.raises(shipped.NotShippedError, match="search_digits"):
    shipped.config("search_digit")


def test_detect_with_a_checkpoint_asks_a_trained_detector():
  script, *flags = commands.command(
    "detect", ["--checkpoint=runs/voc", "a.jpg"]
  )
  assert script == str(ROOT / "launch" / "detect.py")
  assert flags == ["--checkpoint=runs/voc", "a.jpg"]


@pytest.mark.parametrize(
  ("flags", "script"),
  [
    (["runs/voc", "a.jpg"], "detect.py"),
    (["--workdir=runs/voc", "a.jpg"], "detect.py"),
    (["--workdir", "runs/voc"], "main.py"),
    (["--config", "detect_voc", "--show"], "main.py"),
  ],
)
def test_detect_asks_where_pictures_are_given_and_trains_where_not(
  flags, script
):
  line = commands.command("detect", flags)
  assert line[0] == str(ROOT / "launch" / script)


def test_a_wrong_command_is_one_line_with_the_nearest_right_one():
  done = _run("serach")
  assert done.returncode == 2
  assert done.stderr.splitlines() == [
    "error: nasnet-jax has no command 'serach': did you mean search?"
  ]


def test_a_misspelt_config_is_one_line_with_the_nearest_name():
  done = _run("search", "--config=search_digit:tiny")
  assert done.returncode == 2
  assert done.stderr.splitlines() == [
    "error: no config is called 'search_digit': did you mean search_digits?"
  ]


@pytest.mark.parametrize(
  ("name", "config", "right"),
  [
    ("search", "train_cifar", "train or finetune"),
    ("train", "search_digits:tiny", "search"),
    ("scale", "detect_voc", "detect"),
  ],
)
def test_a_config_of_another_job_is_one_line_with_the_right_command(
  name, config, right
):
  with pytest.raises(commands.WrongJobError) as error:
    commands.command(name, [f"--config={config}"])
  assert f"{config} is for nasnet-jax {right}, not {name}" in str(error.value)


def test_help_names_the_configs_that_the_command_runs(capsys):
  commands.main(["search", "--help"])
  out = capsys.readouterr().out
  assert "search_pnas: Progressive search" in out
  assert "train_cifar" not in out
  commands.main(["finetune", "--help"])
  assert "transfer_imagenet: Trains" in capsys.readouterr().out


@pytest.mark.parametrize(
  "line",
  [
    ["-m", "nasnet_jax.cli.commands", "--help"],
    ["launch/main.py", "--config=configs/search_cifar.py", "--show"],
  ],
)
def test_output_that_nobody_reads_ends_without_a_word(line):
  reader, writer = os.pipe()
  os.close(reader)
  done = subprocess.run(
    [sys.executable, *line],
    stdout=writer,
    stderr=subprocess.PIPE,
    text=True,
    timeout=120,
    cwd=ROOT,
  )
  os.close(writer)
  assert done.stderr == ""
  assert done.returncode == 141


@pytest.mark.parametrize("name", shipped.names())
def test_a_variant_that_is_not_there_is_told_by_the_config_that_was_asked(name):
  with pytest.raises(ValueError, match=f"^{name} has no variant 'huge'"):
    shipped.config(f"{name}:huge")


def test_the_program_takes_over_with_its_own_exit_code():
  done = _run("search", "--config=search_digits:huge")
  assert done.returncode == 2
  assert "no variant 'huge'" in done.stderr
  assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("words", [["--help"], [], ["search", "--help"]])
def test_help_shows_examples_and_starts_no_jax(words):
  code = (
    "import sys; from nasnet_jax.cli import commands as c;"
    f" c.main({words}); sys.exit('jax' in sys.modules)"
  )
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
  )
  assert done.returncode == 0, done.stderr
  assert "Exit codes: 0 done" in done.stdout
  assert "search_digits" in done.stdout
  if "search" in words:
    assert "nasnet-jax search --config=search_cifar:small" in done.stdout


def _complete(*words) -> list[str]:
  """What bash offers for the last of these words."""
  script = _run("completion", "bash").stdout
  listed = " ".join(f"'{word}'" for word in words)
  script += (
    f"COMP_WORDS=({listed}); COMP_CWORD={len(words) - 1}\n"
    "compopt() { :; }; _nasnet_jax; printf '%s\\n' \"${COMPREPLY[@]}\"\n"
  )
  done = subprocess.run(
    ["bash", "-c", script], capture_output=True, text=True, cwd=ROOT
  )
  assert done.returncode == 0, done.stderr
  return done.stdout.split()


def test_bash_completes_commands_flags_configs_and_files():
  assert _complete("nasnet-jax", "se") == ["search"]
  assert _complete("nasnet-jax", "preflight", "--t") == [
    "--topology=",
    "--top=",
    "--traceback",
  ]
  words = ("nasnet-jax", "search", "--config", "=")
  assert _complete(*words, "search_d") == ["search_digits"]
  assert "search_pnas" in _complete(*words)
  assert "scale_grid" not in _complete(*words)  # of another job
  words = ("nasnet-jax", "preflight", "--config", "=")
  assert "scale_grid" in _complete(*words)
  assert _complete("nasnet-jax", "search", "--workdir", "=", "laun") == [
    "launch"
  ]
  assert _complete("nasnet-jax", "report", "READ") == ["README.md"]


_ZSH_SETUP = """
PS1= RPS1=
autoload -Uz compinit; compinit -u -d "$ZDOTDIR/dump"
eval "$({python} -m nasnet_jax.cli.commands completion zsh)"
tell() {{ print -r -- "$BUFFER" >> "$ZDOTDIR/lines"; BUFFER= }}
zle -N tell; bindkey '^G' tell; bindkey '^I' complete-word
"""


def _complete_in_zsh(folder, *lines) -> list[str]:
  """What becomes of each line when Tab is pressed at its end."""
  (folder / ".zshrc").write_text(_ZSH_SETUP.format(python=sys.executable))
  env = {**os.environ, "ZDOTDIR": str(folder), "PYTHONPATH": str(ROOT)}
  ours, theirs = pty.openpty()
  typed = "".join(f"{line}\t\a" for line in lines) + "exit\n"
  os.write(ours, typed.encode())
  shell = subprocess.Popen(
    ["zsh", "-i"],
    env={**env, "TERM": "dumb"},
    stdin=theirs,
    stdout=theirs,
    stderr=theirs,
    cwd=ROOT,
    start_new_session=True,
  )
  os.close(theirs)
  with contextlib.suppress(OSError):  # the shell has gone
    while os.read(ours, 4096):
      pass
  os.close(ours)
  assert shell.wait(60) == 0
  return (folder / "lines").read_text().splitlines()


@pytest.mark.skipif(not shutil.which("zsh"), reason="needs zsh")
def test_zsh_completes_commands_flags_configs_and_files(tmp_path):
  expected = {
    "se": "search ",
    "preflight --top": "preflight --topology=",
    "preflight --br": "preflight --brief ",
    "search --config=search_d": "search --config=search_digits ",
    "search --config search_d": "search --config search_digits ",
    "search --config=trai": "search --config=trai",
    "scale --config=configs/scale_": "scale --config=configs/scale_grid.py ",
    "search --workdir=laun": "search --workdir=launch/",
    "report READ": "report README.md ",
    "completion z": "completion zsh ",
  }
  found = _complete_in_zsh(tmp_path, *(f"nasnet-jax {x}" for x in expected))
  assert found == [f"nasnet-jax {line}" for line in expected.values()]


def test_a_shell_without_completion_is_told_in_a_line():
  done = _run("completion", "fish")
  assert done.returncode == 2
  assert done.stderr.startswith("error: give a shell")


@pytest.mark.slow  # pip makes an environment to build in
def test_a_wheel_has_the_programs_and_the_configs(tmp_path):
  subprocess.run(
    [sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", tmp_path, ROOT],
    check=True,
    capture_output=True,
    timeout=600,
  )
  (wheel,) = tmp_path.glob("*.whl")
  names = zipfile.ZipFile(wheel).namelist()
  (launch,) = (name for name in names if name.endswith("launch/main.py"))
  share = launch.removesuffix("launch/main.py")
  assert share.endswith("data/share/nasnet_jax/")
  for folder in ("launch", "configs"):
    for file in (ROOT / folder).glob("*.py"):
      assert f"{share}{folder}/{file.name}" in names
