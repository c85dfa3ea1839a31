"""What to do with a run, as commands for that very run."""

import os
import pathlib
import shlex

from nasnet_jax.data import places
from nasnet_jax.report import page, runs
from nasnet_jax.spaces.cells import CellSpace

_PROGRAMS = {
  "train": "main.py",
  "finetune": "main.py",
  "detect": "detect.py",
  "predict": "predict.py",
  "evaluate": "evaluate.py",
  "export": "export.py",
}
_FULL_SIZE = "train_cifar"  # trains the cells of any space of cells


def section(run: runs.Run) -> str:
  """HTML of the commands for a finished run; "" if there is none."""
  steps = commands(run)
  parts = [
    f"<div><p>{words}</p>{page.code(line)}</div>" for words, line in steps
  ]
  if not parts:
    return ""
  return page.section(
    "Next steps", f'<div class="steps">{"".join(parts)}</div>'
  )


def commands(run: runs.Run) -> list[tuple[str, str]]:
  """(what it does, the command) of a finished run."""
  if not run.result or run.kind == "scale":
    return []
  here = f"--checkpoint={place(run)}"
  if run.kind == "detect":
    return [
      (
        "Find things on pictures",
        command(run, "detect", here, "PICTURES", "--out=found"),
      )
    ]
  steps = [
    (
      "Say what is on pictures: files or folders",
      command(run, "predict", here, "PICTURES"),
    )
  ]
  if "load" in (run.result.get("data") or {}):
    steps.append(("Test the network again", command(run, "evaluate", here)))
  steps += [
    (
      "Test it on a folder of your own, a folder per class",
      command(run, "evaluate", here, "--images=FOLDER"),
    ),
    (
      "Write it for another framework: onnx, torch, keras, tflite, ...",
      command(run, "export", here, "--format=onnx"),
    ),
  ]
  full = train(run) if run.kind == "search" else ""
  if full:
    steps.append(("Train the winner at the size of the papers", full))
  steps.append(
    (
      "Go on from its weights on other images",
      command(
        run,
        "finetune",
        "--config=finetune",
        f"--config.model.checkpoint={place(run)}",
        "--config.data.source=folder",
        "--config.data.options.path=FOLDER",
        f"--workdir={_folder(run, 'tuned')}",
      ),
    )
  )
  return steps


def train(run: runs.Run, child: int | None = None) -> str:
  """The command that trains a child at full size, or the winner; "" where no
  config trains what this space has."""
  if not isinstance(runs.space_of(run), CellSpace):
    return ""
  whose = "" if child is None else f"#{child}"
  name = "full" if child is None else f"child_{child}"
  return command(
    run,
    "train",
    f"--config={_FULL_SIZE}",
    f"--config.model.genotype={place(run)}{whose}",
    *_sizes(run),
    *_data(run),
    f"--workdir={_folder(run, name)}",
  )


def _sizes(run: runs.Run) -> list[str]:
  """What small images make necessary: as in the final stage of this run."""
  try:
    fields = run.config["final"]["network"]
    reductions, aux = fields["num_reductions"], fields["aux"]
  except (KeyError, TypeError):
    return []
  found = []
  if reductions != 2:
    found.append(f"--config.network.num_reductions={reductions}")
  if not aux:
    found.append("--config.network.aux=False")
  return found


_NOT_DATA = ("note", "max_broken", "download")


def _data(run: runs.Run) -> list[str]:
  """The images of this run, as flags; the config has CIFAR-10."""
  data = run.config.get("data")
  if not isinstance(data, dict) or "source" not in data:
    return []
  options = data.get("options") or {}
  given = {f"options.{k}": v for k, v in options.items() if k not in _NOT_DATA}
  given |= {k: data.get(k) for k in ("data_dir", "num_valid", "valid_fraction")}
  augment = data.get("augmentation") or {}
  given |= {f"augmentation.{k}": augment.get(k) for k in ("pad", "flip")}
  if data["source"] == "cifar10":
    given = {"data_dir": data.get("data_dir")}
  return [f"--config.data.source={data['source']}"] * (
    data["source"] != "cifar10"
  ) + [f"--config.data.{k}={v}" for k, v in given.items() if v is not None]


def place(run: runs.Run) -> str:
  """The run's folder as it is to be typed: from where the job was started, if
  it lies below, else from the root."""
  folder = run.path.resolve()
  if places.shown(folder) != str(folder):
    return places.shown(folder)
  below = os.path.relpath(folder)
  return folder.as_posix() if below.startswith("..") else below


def _folder(run: runs.Run, name: str) -> str:
  """A folder for another run, beside this one."""
  return f"{place(run)}_{name}"


def command(run: runs.Run, name: str, *arguments: str) -> str:
  """A command in the form in which this run's own was typed: nasnet-jax, or
  the programs in launch/."""
  given = str(run.result.get("command") or run.config.get("command") or "")
  words = shlex.split(given) if given else []
  program = pathlib.PurePath(words[1]) if len(words) > 1 else None
  if program is None or program.name != "main.py" or program.is_absolute():
    return _line(["nasnet-jax", name, *arguments])
  configs = program.parent.parent / "configs"
  arguments = [_as_file(word, configs) for word in arguments]
  script = program.with_name(_PROGRAMS[name]).as_posix()
  return _line([words[0], script, *arguments])


def _as_file(word: str, configs: pathlib.PurePath) -> str:
  flag, _, value = word.partition("=")
  if flag != "--config":
    return word
  return f"{flag}={(configs / value).as_posix()}.py"


def _line(words: list[str]) -> str:
  """The words, each quoted if a shell would read it otherwise. A shell takes a
  # within a word as it is."""
  return " ".join(
    word
    if "#" in word
    and shlex.quote(word.replace("#", "")) == word.replace("#", "")
    else shlex.quote(word)
    for word in words
  )
