"""Architectures of blocks: JSON, and what is no architecture."""

import json

import pytest

from nasnet_jax import spaces, zoo
from nasnet_jax.spaces.blocks import BLOCKS, Architecture, Group


@pytest.mark.parametrize("name", zoo.blocks.ARCHITECTURES)
def test_architectures_survive_json(name):
  arch = zoo.blocks.architecture(name)
  text = json.dumps(BLOCKS.to_json(arch))
  assert BLOCKS.from_json(json.loads(text)) == arch
  assert hash(arch)  # a module holds it


def test_the_space_is_found_by_its_name():
  assert spaces.get("blocks", **BLOCKS.options) is BLOCKS


@pytest.mark.parametrize(
  ("make", "words"),
  [
    (lambda: Group("mbcon", 1, 8), "kind 'mbcon' is not one of: mbconv"),
    (lambda: Group("mbconv", 0, 8), "repeats of a group is 0: give 1 or more"),
    (lambda: Group("mbconv", 1, 8, squeeze=4), "squeeze is 4: give a share"),
    (lambda: Architecture(8, ()), "at least one group"),
    (
      lambda: Architecture(8, (Group("basic", 1, 8),), activation="gelu"),
      "activation 'gelu' is not one of: relu",
    ),
    (
      lambda: Architecture(8, (Group("basic", 1, 8),), fixed=("tail",)),
      "fixed has 'tail', not one of: stem",
    ),
    (lambda: BLOCKS.from_json({"cells": {}}), "no architecture of blocks"),
  ],
)
def test_what_is_no_architecture_gets_one_clear_line(make, words):
  with pytest.raises(ValueError, match=words) as error:
    make()
  assert "\n" not in str(error.value)


def test_unknown_names_are_named_with_those_known():
  with pytest.raises(ValueError, match="'b0' is not one of: efficientnet_b0"):
    zoo.blocks.network("b0")
  with pytest.raises(ValueError, match="'vgg' is not one of: efficientnet"):
    zoo.blocks.architecture("vgg")
