"""The model card of an exported network: README.md in its folder."""

import pathlib
import zipfile
from typing import Any

from nasnet_jax.export.check import SPLIT

_FENCE = "```"


def about(result: dict[str, Any]) -> str:
  """What a network is, in a few words."""
  data, name = result["data"], result["space"]
  network = {"blocks": "blocks", "mnasnet": "blocks", "stages": "stages"}
  kind = network.get(name, "cells")
  return (
    f"A network of {kind} of the space {name} for {len(data['classes'])}"
    f" classes of {data['name']}"
  )


def whitening(result: dict[str, Any]) -> str:
  """The formula of the input, for one pixel."""
  aug = result["augmentation"]
  mean, std = (_numbers(aug[k]) for k in ("mean", "std"))
  return f"(pixel / 255 - {mean}) / {std}"


def _numbers(values) -> str:
  values = [f"{value:.6g}" for value in values]
  return values[0] if len(values) == 1 else f"[{', '.join(values)}]"


def text(source, name: str, kind, folder, note: str) -> str:
  """The card.

  Args:
    source: an `artifact.Source`.
    name: of the format.
    kind: the `artifact.Format`.
    folder: that has the files, for their list.
    note: what the images of examples.npz are.
  """
  result = source.result
  snippet = kind.snippet.replace("logits", source.output)
  parts = [
    f"# {source.about}",
    f"Exported as {name} by nasnet_jax {result['version']}.",
    "## Use",
    f"{_FENCE}python\n{snippet.strip()}\n{_FENCE}",
    _input(source),
    kind.also(source) if kind.also else "",
    "## What it is",
    _origin(result),
    _accuracy(result),
    "## Files",
    _files(folder, note),
    "## Limits",
    _limits(source),
    "## Licence",
    "The code in this folder is of nasnet_jax, Apache-2.0. Weights are of"
    " whoever trained them; what the images they were trained on allow holds"
    " for them too.",
  ]
  return "\n\n".join(part for part in parts if part) + "\n"


def _input(source) -> str:
  result, (h, w, c) = source.result, source.image_shape
  formula = whitening(result)
  if source.options.preprocess:
    how = (
      f"Images are pixels, uint8 from 0 to 255; the network whitens them:"
      f" {formula}."
    )
  else:
    how = f"Images are float32, whitened: {formula} for pixels from 0 to 255."
  classes = result["data"]["classes"]
  some = ", ".join(classes[:12]) + (", ..." if len(classes) > 12 else "")
  center = result["data"].get("load", result["data"])
  center = center.get("stream", center).get("center")
  cut = (
    f" Photographs are cut to the middle {center:.4g} of their shorter side and"
    " scaled bicubically."
    if center
    else ""
  )
  trained = f"{how} It was trained with {h} x {w} pixels and {c} channel(s)."
  if source.cut:
    return (
      f"{trained} It answers with features: the map before its last reduction,"
      f" one for {source.cut.stride} pixels."
    )
  return (
    f"{trained}{cut} The {len(classes)} logits are, in order: {some}; all names"
    " are in config.json, `classes`. A softmax makes probabilities of them."
  )


def _origin(result: dict[str, Any]) -> str:
  lines = []
  winner = result["winner"]
  if "params" in winner:
    lines.append(
      f"{winner['params']:,} parameters, {winner['macs']:,} multiply-adds per"
      " image."
    )
  if "controller" in result:
    lines.append(
      f"Its architecture was found by a search ({result['controller']}) and"
      " then trained again."
    )
  if "command" in result:
    data = result["data"]
    lines.append(
      f"Trained on {data['name']}, fingerprint {data['fingerprint']}, seed"
      f" {result['seed']}, by"
    )
    lines = [" ".join(lines)]
    lines.append(f"    {result['command']}")
    return "\n\n".join(lines)
  lines.append("Its weights were trained elsewhere and imported.")
  return " ".join(lines)


def _accuracy(result: dict[str, Any]) -> str:
  if result.get("job") == "detect":
    found = ", ".join(
      f"{name} {value:.4g}"
      for name, value in (result.get("test") or {}).items()
      if isinstance(value, int | float)
    )
    return f"The detector that it is a part of was tested: {found}."
  if "test_accuracy" not in result:
    return "It was not tested by whoever exported it."
  note = result["data"].get("note")
  return (
    f"Test accuracy {result['test_accuracy']:.4f}: {result['test_correct']:,}"
    f" of the {result['test_examples']:,} test images of"
    f" {result['data']['name']}{f' ({note})' if note else ''} are right, one"
    " training of one seed."
  )


_WHAT = {
  "config.json": "architecture, training, classes and whitening, as JSON",
  "examples.npz": "images as the network takes them, with our answers",
  "network.py": "the network as readable code",
  "weights.safetensors": "its weights; config.json as metadata `nasnet_jax`",
  "network.onnx": "architecture and weights; config.json as metadata"
  " `nasnet_jax`",
  "network.keras": "architecture and weights; `unzip` finds config.json in it"
  " as nasnet_jax.json",
  "network.tflite": "architecture and weights; `unzip` finds {} in it",
  "network_int8.tflite": "the same with weights and activations of 8 bits",
  "saved_model": "architecture and weights; config.json in assets.extra",
}


def _files(folder, note: str) -> str:
  """A line for each file and folder that is there; config.json and the
  examples always are."""
  folder = pathlib.Path(folder)
  lines = []
  for path in sorted(folder.iterdir()):
    name, what = path.name, _WHAT.get(path.name, "")
    if "{}" in what:
      what = what.format(_listed(zipfile.ZipFile(path).namelist()))
    if name.endswith(".stablehlo"):
      what = "the network for images of this side, for cpu, cuda and tpu"
    more = f" ({note})" if name == "examples.npz" else ""
    lines.append(f"- `{name}`: {what}{more}" if what else f"- `{name}`")
  return "\n".join(lines)


def _listed(names: list[str]) -> str:
  """The files at the end of a TFLite one: ours is config.json."""
  ours = {"nasnet_jax.json": "config.json as nasnet_jax.json"}
  return " and ".join(ours.get(name, name) for name in names)


def _limits(source) -> str:
  h, w, _ = source.image_shape
  limits = [
    "- Any batch."
    " Other sides of images work where its format says nothing else, and were"
    f" not tested for accuracy: it was trained at {h} x {w}."
  ]
  if source.fixed:
    size, *side = source.fixed
    limits = [
      f"- Batches of {size} of {side[0]} x {side[1]} pixels and no others; it"
      f" was trained at {h} x {w}."
    ]
  if not source.cut:
    limits.append(
      "- It answers with one of its classes whatever the picture shows."
    )
  return "\n".join(limits)


def with_check(source, text: str, difference: float, notes, needs) -> str:
  """The card with what the comparison found."""
  images, *more = notes
  cases = "in batches of 1, 3 and 8 and at another side"
  if source.fixed:
    size, *side = source.fixed
    cases = f"in batches of {size} at {side[0]} x {side[1]}"
  lines = [
    f"The lines above ran in a process of their own ({', '.join(needs)}): the"
    f" largest difference of a logit from nasnet_jax was {difference:.2g} on"
    f" {images}, {cases}.",
    *more,
  ]
  return text.replace(
    "## What it is", "\n\n".join([*lines, "## What it is"]), 1
  )


def snippet_of(text: str) -> str:
  """The lines of a card that load and run the network."""
  snippet = text.partition(f"{_FENCE}python\n")[2].partition(f"\n{_FENCE}")[0]
  if SPLIT not in snippet:
    raise ValueError("the card has no lines that set `images`")
  return snippet + "\n"
