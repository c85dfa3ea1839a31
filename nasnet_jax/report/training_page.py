"""The pages of jobs that train one network: a classifier, or a detector; and of
weights that were trained elsewhere."""

import html
from typing import Any

from nasnet_jax.report import (
  answer_sections,
  page,
  progress,
  runs,
  search_page,
  search_sections,
  training_charts,
  winner_sections,
  winners,
)


def sections(run: runs.Run, files: bool) -> list[str]:
  """HTML of the sections, the most important first.

  Args:
    files: whether figures are also written into the run's folder.
  """
  (chart, *_) = search_sections.written(run, [_chart(run)], files) or [""]
  detector = run.kind == "detect"
  table = _classes_found(run) if detector else ""
  wrong = "" if detector else answer_sections.mistakes(run, chart)
  training = ""
  if chart and not wrong:
    training = page.section(
      "The training", f'<div class="figures">{chart}{table}</div>'
    )
  return [
    _detector(run) if detector else _classifier(run),
    answer_sections.boxes(run),
    wrong,
    training,
    winner_sections.drawings(run, network_of(run), files),
    answer_sections.sample(run),
  ]


def below(run: runs.Run) -> str:
  """The line below the title: how far it is, and what is trained on what."""
  kind = {
    "detect": "a detector",
    "import": "weights that were trained elsewhere",
  }.get(run.kind, "a training")
  if _checkpoint(run):
    kind += f", from {_checkpoint(run)}"
  at = progress.of(run)
  words = [
    kind,
    "" if run.result else at.words,
    "" if run.result else progress.to_go(at),
    search_page.named("data", search_page.data_name(run)),
  ]
  return ", ".join(filter(None, words))


def _checkpoint(run: runs.Run) -> str:
  model = run.config.get("model")
  return str(model.get("checkpoint") or "") if isinstance(model, dict) else ""


def network_of(run: runs.Run) -> winners.Winner | None:
  """What is trained; a running training has its cells in the config."""
  won = winners.winner_of(run)
  if won is not None or not isinstance(run.config.get("cells"), dict):
    return won
  nan = float("nan")
  return winners.Winner(-1, run.config["cells"], nan, nan, False)


def _chart(run: runs.Run):
  if not run.curves:
    return "training", "", None
  detector = run.kind == "detect"
  score = "AP50" if detector else ""
  curves = [("training", curve) for curve in run.curves]
  return (
    "training",
    f"Loss and {score or 'accuracy'} by epoch",
    training_charts.training_figure(curves, score),
  )


def _last(run: runs.Run, name: str) -> float:
  values = getattr(run.curves[-1], name) if run.curves else ()
  return float(values[-1]) if len(values) else float("nan")


def _percent(value) -> str | None:
  return page.decimal(value, ".2%")


def _both(run: runs.Run) -> list[tuple]:
  """Facts of any training."""
  data = run.result.get("data") or {}
  train = run.config.get("train")
  train = train if isinstance(train, dict) else {}
  done = _last(run, "epoch")
  asked = runs.number(train.get("epochs"))
  early = done == done and asked == asked and done < asked and run.result
  cost = run.result.get("cost") or {}
  return [
    (
      "Epochs",
      None if done != done else f"{done:g}",
      f"of {asked:g}{', stopped early' if early else ''}"
      if asked == asked
      else "",
    ),
    ("Time", page.duration(runs.number(cost.get("total_seconds"))), ""),
    ("Data", data.get("name"), data.get("note") or ""),
  ]


def _classifier(run: runs.Run) -> str:
  result, won = run.result, network_of(run)
  accuracy = winners.test_accuracy(result) or (None, "")
  valid = _last(run, "valid_accuracy")
  if result:
    valid = result.get("valid_accuracy")
  facts = [
    ("Test accuracy", *accuracy),
    ("Validation accuracy", _percent(valid), ""),
    ("Mean per class", _percent(result.get("test_mean_per_class")), "tested"),
    ("Training loss", page.decimal(_last(run, "loss"), ".4f"), "the last"),
    ("Parameters", page.count(won.params) if won else None, ""),
    ("Multiply-adds per image", page.count(won.macs) if won else None, ""),
    *_both(run),
  ]
  return _summary(run, facts)


def _detector(run: runs.Run) -> str:
  result = run.result
  test = result.get("test") or {}
  coco = test.get("coco") or {}
  valid = (
    result.get("valid_voc_ap50") if result else _last(run, "valid_accuracy")
  )
  images = test.get("images")
  facts = [
    (
      "AP50, as VOC counts",
      _percent(test.get("voc_ap50")),
      f"{images:,} test images" if isinstance(images, int) else "",
    ),
    ("AP, as COCO counts", _percent(coco.get("ap")), "over IoUs 0.5 to 0.95"),
    ("AP75", _percent(coco.get("ap75")), ""),
    ("Recall, 100 boxes", _percent(coco.get("ar_100")), "as COCO counts"),
    ("Validation AP50", _percent(valid), ""),
    ("Training loss", page.decimal(_last(run, "loss"), ".4f"), "the last"),
    ("Parameters", page.count(runs.number(result.get("params"))), ""),
    *_both(run),
  ]
  return _summary(run, facts)


def _summary(run: runs.Run, facts) -> str:
  bar = "" if run.result else progress.html_of(progress.of(run))
  if not run.curves and not run.result:
    words = "There is nothing to show yet: the training has just begun."
    return page.section("Summary", f"<p>{words}</p>{bar}")
  load = search_page.how_to_load(run)
  return page.section("Summary", page.facts(facts) + bar + load)


def _classes_found(run: runs.Run) -> str:
  """A table of each class: AP50, precision and recall."""
  by_class = (run.result.get("test") or {}).get("voc_ap50_by_class") or {}
  if not by_class:
    return ""
  counts = {row["name"]: row for row in run.tested.get("by_class") or ()}
  body = [
    page.row([html.escape(str(name)), *_found(ap, counts.get(name))])
    for name, ap in by_class.items()
  ]
  head = ["class", "AP50"]
  note = ""
  if counts:
    head += ["precision", "recall", "boxes"]
    note = (
      '<p class="sub">On the test images, at an IoU of 0.5; precision and'
      f" recall of boxes with a score of {run.tested.get('score')} or more.</p>"
    )
  table = page.table(head, "".join(body), "Average precision by class", "named")
  return f"<div><h3>By class</h3>{note}{table}</div>"


def _found(ap, counts: dict[str, Any] | None) -> list[str]:
  cells = [_percent(ap) or "none there"]
  if counts is not None:
    found, right, true = (counts[name] for name in ("found", "right", "true"))
    cells += [
      f"{right / found:.2%}" if found else "none found",
      f"{right / true:.2%}" if true else "none there",
      f"{true:,}",
    ]
  return cells


def text(run: runs.Run) -> list[str]:
  """The lines of `summary_text`."""
  lines, won = [below(run)], network_of(run)
  accuracy = winners.test_accuracy(run.result)
  test = run.result.get("test") or {}
  if accuracy:
    lines.append(f"test accuracy: {accuracy[0]} ({accuracy[1]})")
  if "voc_ap50" in test:
    lines.append(f"test AP50 (VOC): {_percent(test['voc_ap50'])}")
  if test.get("coco"):
    lines.append(f"test AP (COCO): {_percent(test['coco']['ap'])}")
  if not run.result:
    valid = _percent(_last(run, "valid_accuracy"))
    lines += [f"validation: {valid}"] if valid else []
  params = run.result.get("params", won.params if won else None)
  if page.count(runs.number(params)) != "?":
    size = f"{page.count(params)} parameters"
    if won and won.macs == won.macs:
      size += f", {page.count(won.macs)} multiply-adds"
    lines.append(size)
  return lines + (winners.genotype_lines(won.genotype) if won else [])
