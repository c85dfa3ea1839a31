"""Fields that were given on the command line and that nothing reads.

A config has the fields of every schedule, optimizer and strategy; of those that
are not chosen, a value means nothing.
"""

import fnmatch
from collections.abc import Callable, Iterable, Iterator
from typing import Any

# Fields (as of a shell's patterns), the field that rules them out, and the test
# of its value by which they are read.
_Rule = tuple[tuple[str, ...], str, Callable[[Any], Any]]


def lines(config, changed: Iterable[str]) -> list[str]:
  """A line on each field of `changed`, by its path, that has no effect."""
  flat = dict(_leaves(config))
  return [
    f"{field} is not used: {ruler} is {flat[ruler]!r}"
    for field in sorted(changed)
    for ruler in _rulers(field, flat)
  ]


def _rulers(field: str, flat: dict[str, Any]) -> Iterator[str]:
  """The fields whose values leave this one without effect."""
  before, _, strategy = field.partition("search.controller_options.")
  if not before and strategy.partition(".")[0] != flat.get("search.controller"):
    yield "search.controller"
  of_network = field.startswith("network.") and field != "network.remat"
  if of_network and flat["job"] == "detect" and flat["model.checkpoint"]:
    yield "model.checkpoint"  # whose sizes are the network's
  part = field.partition(".")[0]
  for names, ruler, is_read in _RULES:
    ruler = ruler.format(part)
    patterns = [name.format(part) for name in names]
    if ruler not in flat or is_read(flat[ruler]):
      continue
    if any(fnmatch.fnmatchcase(field, pattern) for pattern in patterns):
      yield ruler


def _leaves(config, path: str = "") -> Iterator[tuple[str, Any]]:
  for name, value in config.items():
    if hasattr(value, "items"):
      yield from _leaves(value, f"{path}{name}.")
    else:
      yield f"{path}{name}", value


def _one_of(*values: str) -> Callable[[Any], bool]:
  return lambda value: value in values


def _is_off(value) -> bool:
  return not value


# {} is the part of the config in which the field stands.
_RULES: tuple[_Rule, ...] = (
  (("{}.decay_epochs",), "{}.schedule", _one_of("exponential")),
  (("{}.decay_factor",), "{}.schedule", _one_of("exponential", "piecewise")),
  (("{}.decay_at",), "{}.schedule", _one_of("piecewise")),
  (("{}.rms_decay", "{}.rms_epsilon"), "{}.optimizer", _one_of("rmsprop")),
  (("{}.drop_path_version",), "{}.drop_path_keep", lambda keep: keep < 1),
  (("train.aux_weight",), "network.aux", bool),
  (("final.aux_weight",), "final.network.aux", bool),
  (("model.keep_head",), "model.checkpoint", bool),
  (
    ("data.augmentation.layers", "data.augmentation.magnitude"),
    "data.augmentation.policy",
    _one_of("randaugment"),
  ),
  (("data.sizes.shorter", "data.sizes.longer"), "data.sizes.stretch", _is_off),
  (("search.halving.min_epochs",), "search.halving.eta", bool),
  (
    tuple(
      f"search.reward.{name}" for name in ("cost", "target", "alpha", "beta")
    ),
    "search.reward.kind",
    lambda kind: kind != "accuracy",
  ),
)
