"""What to do with a run, as commands for that very run."""

from nasnet_jax.report import full_size, page, runs
from nasnet_jax.report.commands import command, folder_beside, place


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
  if not run.result:
    return []
  if run.kind == "scale":
    full = full_size.scaled(run)
    words = "Train the largest network, with the coefficients that won"
    return [(words, full)] if full else []
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
  full = full_size.train(run) if run.kind == "search" else ""
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
        f"--workdir={folder_beside(run, 'tuned')}",
      ),
    )
  )
  return steps
