"""The names of ImageNet's 1000 classes, as package data with its licences."""

import functools
import importlib.resources
import json

SYNSET_LENGTH = len("n01440764")


@functools.cache
def classes() -> dict[str, str]:
  """{WordNet synset: short name}, in the order of a network's logits."""
  path = importlib.resources.files("nasnet_jax.zoo") / "imagenet.json"
  return json.loads(path.read_text())["classes"]


def names() -> tuple[str, ...]:
  """The short names, each another one, in the order of the logits."""
  return tuple(classes().values())


def synset(text: str) -> str | None:
  """The synset that a folder's name begins with: "n01440764" itself, or
  "n01440764_tench"."""
  start, rest = text[:SYNSET_LENGTH], text[SYNSET_LENGTH:]
  if start in classes() and not rest[:1].isalnum():
    return start
  return None
