"""`nasnet-jax COMMAND ...`: the programs of `launch/` under one name.

A command is a program and, where none is given, a config and a folder for the
run. The program takes over the process, so signals and exit codes are its own;
it is told what was typed, for the run's page. Nothing here imports JAX: help
and completion answer at once.
"""

import ast
import difflib
import os
import pathlib
import sys
import textwrap
from typing import NamedTuple

from nasnet_jax import __version__
from nasnet_jax.cli import completion, pipe, shipped, starting, typed

_CONFIG, _WORKDIR = "--config", "--workdir"
_RUN = ("--config=", "--workdir=", "--show", "--seeds=")


class Command(NamedTuple):
  """A command.

  Attributes:
    script: of `launch/`.
    says: what it does, in a line.
    flags: of its program, as completion writes them.
    examples: without the "nasnet-jax" in front.
    config: taken where none is given; "" where one must be.
    job: of its configs; "" for any.
    other: a second program, taken where --checkpoint or pictures are given.
  """

  script: str
  says: str
  flags: tuple[str, ...]
  examples: tuple[str, ...]
  config: str = ""
  job: str = ""
  other: str = ""


_CHECKPOINT = ("--checkpoint=", "--workdir=", "--out=")
COMMANDS = {
  "search": Command(
    "main.py",
    "search cells, and train what won",
    _RUN,
    (
      "search",
      "search --config=search_cifar:small --workdir=runs/cifar",
      "search --config=search_cifar:small --show",
      "search --config=search_pnas --config.search.seed=1 --workdir=runs/pnas",
      "search --seeds=0,1,2 --workdir=runs/digits",
    ),
    "search_digits",
    "search",
  ),
  "finish": Command(
    "finish.py",
    "end a search with the children there are",
    ("--checkpoint=", "--workdir="),
    ("finish runs/search_digits",),
  ),
  "train": Command(
    "main.py",
    "train a published network, or a cell that was found",
    _RUN,
    (
      "train --config=train_cifar --workdir=runs/nasnet_a",
      "train --config=train_cifar \\\n"
      "    --config.model.genotype=runs/search_digits \\\n"
      "    --workdir=runs/winner",
      "train --config=train_efficientnet:efficientnet_b0 --workdir=runs/b0",
    ),
    "train_cifar",
    "train",
  ),
  "finetune": Command(
    "main.py",
    "go on from trained weights on other images",
    _RUN,
    (
      "finetune --config.model.checkpoint=runs/winner \\\n"
      "    --config.data.source=folder --config.data.options.path=PICTURES \\\n"
      "    --workdir=runs/tuned",
    ),
    "finetune",
    "train",
  ),
  "scale": Command(
    "main.py",
    "find how depth, width and resolution should grow together",
    _RUN,
    ("scale --config=scale_grid:tiny --workdir=runs/scale",),
    "scale_grid",
    "scale",
  ),
  "detect": Command(
    "main.py",
    "train a detector; with --checkpoint, find things on pictures",
    (*_RUN, "--checkpoint=", "--out=", "--min_score="),
    (
      "detect --config=detect_voc --workdir=runs/voc",
      "detect --checkpoint=runs/voc photo.jpg --out=found",
    ),
    "detect_voc",
    "detect",
    "detect.py",
  ),
  "predict": Command(
    "predict.py",
    "say what is on pictures",
    (*_CHECKPOINT, "--batch_size=", "--top="),
    ("predict --checkpoint=runs/winner photo.jpg folder/ --out=answers",),
  ),
  "evaluate": Command(
    "evaluate.py",
    "test a finished run's network again, or on a folder of pictures",
    (*_CHECKPOINT, "--images=", "--data_dir=", "--batch_size="),
    (
      "evaluate --checkpoint=runs/search_digits",
      "evaluate --checkpoint=runs/winner --images=PICTURES --out=answers.csv",
    ),
  ),
  "export": Command(
    "export.py",
    "write a trained network for another framework",
    (
      *_CHECKPOINT,
      "--format=",
      "--preprocess",
      "--sides=",
      "--tolerance=",
      "--python=",
      "--verify",
      "--calibration=",
      "--calibration_images=",
      "--int8_io",
      "--static=",
      "--opset=",
      "--images=",
      "--features",
      "--data_dir=",
    ),
    (
      "export --checkpoint=runs/search_digits --format=onnx",
      "export --checkpoint=runs/winner --format=torch,keras --preprocess",
      "export --checkpoint=runs/winner --format=onnx --static=1x3x224x224",
    ),
  ),
  "import": Command(
    "import_weights.py",
    "go on here with weights that left by export",
    ("--weights=", "--workdir="),
    ("import --weights=exports/winner/torch --workdir=runs/again",),
  ),
  "report": Command(
    "report.py",
    "write a run's report anew, or one page of several runs",
    _CHECKPOINT,
    (
      "report runs/search_digits",
      "report runs/ppo runs/evolution --out=comparison.html",
    ),
  ),
  "watch": Command(
    "watch.py",
    "show runs in a browser here, and follow them",
    ("--port=",),
    ("watch runs", "watch runs/ppo runs/evolution --port=0"),
  ),
  "preflight": Command(
    "preflight.py",
    "plan a TPU slice without holding it",
    (
      "--config=",
      "--topology=",
      "--json=",
      "--fit",
      "--brief",
      "--top=",
      "--show",
    ),
    ("preflight --config=search_digits:tiny --topology=v5e:2x2",),
  ),
  "doctor": Command(
    "doctor.py",
    "look for what would stop a run here",
    ("--workdir=", "--data_dir="),
    ("doctor", "doctor --workdir=runs/cifar --data_dir=DATA"),
  ),
}

_EXIT_CODES = """\
Exit codes: 0 done; 1 it did not work; 2 wrong flags; 130 Ctrl-C and 143 SIGTERM
(the same command goes on). Errors are one line; --traceback shows the rest."""


class WrongJobError(ValueError):
  """A config that a command does not run; the message is one line."""


def main(argv: list[str] | None = None) -> int:
  """The console script; returns only where no program took over."""
  with pipe.quiet():
    return _main(argv)


def _main(argv: list[str] | None) -> int:
  words = sys.argv[1:] if argv is None else argv
  if not words or words[0] in ("help", "-h", "--help", "--helpfull"):
    print(_help(words[1:]))
    return 0
  name, arguments = words[0], words[1:]
  if name == "--version":
    print(f"nasnet_jax {__version__}")
    return 0
  if name == "completion":
    return completion.show(arguments, COMMANDS)
  if name not in COMMANDS:
    print(f"error: {_unknown(name)}", file=sys.stderr)
    return 2
  if any(word in ("-h", "--help", "--helpfull") for word in arguments):
    print(_help([name]))
    return 0
  starting.say(arguments)
  try:
    line = command(name, arguments)
  except ValueError as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  words = [name, *arguments]
  if COMMANDS[name].config and not _has(words, _WORKDIR):
    words += [word for word in line if _dashes(word).startswith(_WORKDIR)]
  typed.tell(["nasnet-jax", *words])
  sys.stdout.flush()
  starting.hand_over()
  os.execv(sys.executable, [sys.executable, *line])


def command(name: str, arguments: list[str]) -> list[str]:
  """What Python is called with: the program, and its arguments completed.

  A config may be the name of a shipped one, such as search_cifar:small. Without
  --workdir, a run's folder is runs/ and the config's name.

  Raises:
    NotShippedError: for a config that is not there.
    WrongJobError: for one of another job.
  """
  found = COMMANDS[name]
  if found.other and _asks(arguments):
    return [str(shipped.home() / "launch" / found.other), *arguments]
  if found.config and not _has(arguments, _CONFIG):
    arguments = [f"{_CONFIG}={found.config}", *arguments]
  arguments = _joined(arguments)
  config = ""
  for i, word in enumerate(arguments):
    flag, _, value = word.partition("=")
    if _dashes(flag) == _CONFIG:
      config = value
      arguments[i] = f"{_CONFIG}={shipped.path(value)}"
  if found.job:
    _check_job(name, config)
  if found.config and not _has(arguments, _WORKDIR):
    path, _, variant = config.partition(":")
    run = "_".join(filter(None, (pathlib.Path(path).stem, variant)))
    arguments.append(f"--workdir=runs/{run}")
  return [str(shipped.home() / "launch" / found.script), *arguments]


def _check_job(name: str, config: str):
  """Raises WrongJobError for a config of another job."""
  try:
    job = shipped.config(config).job
  except Exception:  # the program says what is wrong with it
    return
  fits = [n for n, c in COMMANDS.items() if c.job == job]
  if fits and name not in fits:
    raise WrongJobError(
      f"{config} is for nasnet-jax {' or '.join(fits)}, not {name}: its job is"
      f" {job!r}"
    )


def _dashes(flag: str) -> str:
  """absl takes one dash for two."""
  return f"--{flag.lstrip('-')}" if flag.startswith("-") else flag


def _has(arguments: list[str], flag: str) -> bool:
  return any(_dashes(word.partition("=")[0]) == flag for word in arguments)


def _asks(arguments: list[str]) -> bool:
  """Whether a trained network is asked about pictures: trainings take no plain
  words."""
  if _has(arguments, "--checkpoint"):
    return True
  pairs = zip(["", *arguments], arguments)
  return any(
    not word.startswith("-") and not _takes_word(before)
    for before, word in pairs
  )


def _takes_word(flag: str) -> bool:
  """Whether the next word is this flag's value, as in `--config x`."""
  switch = flag.lstrip("-") in ("show", "traceback")
  return flag.startswith("-") and "=" not in flag and not switch


def _joined(arguments: list[str]) -> list[str]:
  """`--config x` as `--config=x`."""
  words: list[str] = []
  for word in arguments:
    if words and _dashes(words[-1]) == _CONFIG:
      words[-1] += f"={word}"
    else:
      words.append(word)
  return words


def _unknown(name: str) -> str:
  near = difflib.get_close_matches(name, COMMANDS, n=1)
  hint = f"did you mean {near[0]}?" if near else f"only {', '.join(COMMANDS)}"
  return f"nasnet-jax has no command {name!r}: {hint}"


def _help(words: list[str]) -> str:
  if not words:
    lines = ["nasnet-jax COMMAND ...", ""]
    width = max(map(len, [*COMMANDS, "completion"]))
    lines += [f"  {n:{width}}  {c.says}" for n, c in COMMANDS.items()]
    lines += [
      f"  {'completion':{width}}  bash or zsh: how to complete these words",
      "",
      "`nasnet-jax COMMAND --help` shows examples. Configs that are shipped:",
      textwrap.fill(", ".join(shipped.names()), 80, **_indented("  ")),
      "",
      _EXIT_CODES,
    ]
    return "\n".join(lines)
  if words[0] not in COMMANDS:
    return _unknown(words[0])
  found = COMMANDS[words[0]]
  lines = [f"nasnet-jax {words[0]}: {found.says}", ""]
  lines += [f"  nasnet-jax {example}" for example in found.examples]
  if found.config:
    lines += [
      "",
      f"Without --config it takes {found.config}, without --workdir"
      " runs/ and its name.",
      "--config.a.b=value changes a field; --show prints the config's manual,"
      " and each",
      "field with its value and its comment. Configs of this command:",
      *(f"  {name}: {_title(name)}" for name in shipped.of_jobs()[found.job]),
    ]
  for script in filter(None, (found.script, found.other)):
    lines += ["", f"launch/{script}", textwrap.indent(_doc(script), "  ")]
  return "\n".join([*lines, "", _EXIT_CODES])


def _indented(by: str) -> dict[str, str]:
  return {"initial_indent": by, "subsequent_indent": by}


def _doc(script: str) -> str:
  return _docstring(shipped.home() / "launch" / script)


def _title(config: str) -> str:
  return _docstring(shipped.home() / "configs" / f"{config}.py").splitlines()[0]


def _docstring(file: pathlib.Path) -> str:
  return ast.get_docstring(ast.parse(file.read_text())) or ""


if __name__ == "__main__":
  sys.exit(main())
