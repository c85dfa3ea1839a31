"""Weights of a model repository on Hugging Face's hub, by huggingface_hub."""

import hashlib
import importlib
import json
import logging
import pathlib
import re
from typing import Any, NamedTuple

from nasnet_jax.training.checkpoint import CheckpointError

_log = logging.getLogger(__name__)

PREFIX = "hub:"
_FORM = re.compile(
  r"hub:(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[^#]+))?(#(?P<sha256>.+))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FILES = ("model.safetensors", "pytorch_model.bin")


class Fetched(NamedTuple):
  """What a repository holds.

  Attributes:
    address: hub:OWNER/NAME@COMMIT#SHA256, which gives just these weights again.
    weights: the file of them.
    config: of config.json; {} without one.
  """

  address: str
  weights: pathlib.Path
  config: dict[str, Any]


def fetch(address: str) -> Fetched:
  """Downloads weights, or takes them from the hub's own cache on this machine.

  Args:
    address: hub:OWNER/NAME, with @COMMIT (or a branch or tag) and #SHA256 of
      the file of weights behind it, if they are known.

  Raises:
    ValueError: one line: no such form.
    CheckpointError: one line: no huggingface_hub, no network, no such
      repository or file, or other weights than #SHA256 says.
  """
  match = _FORM.fullmatch(address)
  if match is None:
    raise ValueError(
      f"weights={address!r} is no address on the hub: write"
      " hub:OWNER/NAME@COMMIT, as in hub:timm/tf_efficientnet_lite0.in1k"
    )
  repo, revision, sha256 = match.group("repo", "revision", "sha256")
  if sha256 and not _SHA256.fullmatch(sha256):
    raise ValueError(
      f"weights={address!r}: behind # stands the SHA-256 of the weights' file,"
      " 64 digits from 0 to f"
    )
  weights = _weights(address, repo, revision)
  # Of the same commit: a branch may move between two downloads.
  commit = weights.parent.name
  found = _digest(weights)
  # The cache names large files by what the hub says is their SHA-256.
  told = weights.resolve().name
  expected = sha256 or (told if _SHA256.fullmatch(told) else found)
  if found != expected:
    raise CheckpointError(
      f"{weights} has the SHA-256 {found}, and {expected} was to come:"
      " delete it, and it is downloaded again, or correct the address"
    )
  config = _download(repo, "config.json", commit)
  exact = f"{PREFIX}{repo}@{commit}#{found}"
  if not (revision and _COMMIT.fullmatch(revision)):
    _log.warning(
      "%s may change; these weights, for ever, are weights=%r", address, exact
    )
  return Fetched(exact, weights, _read(config) if config else {})


def _weights(address: str, repo: str, revision: str | None) -> pathlib.Path:
  """The first of `_FILES` that can be had."""
  missed = None
  for file in _FILES:
    try:
      found = _download(repo, file, revision)
    except CheckpointError as error:  # offline, the next may be in the cache
      missed = missed or error
    else:
      if found:
        return found
  raise missed or CheckpointError(
    f"{address} has neither of {', '.join(_FILES)}"
  )


def _download(repo: str, file: str, revision: str | None):
  """The file's path; None if the repository has no such file."""
  try:
    hub = importlib.import_module("huggingface_hub")
    errors = importlib.import_module("huggingface_hub.errors")
  except ImportError:
    raise CheckpointError(
      "weights of the hub take the package huggingface_hub, which is not there:"
      " pip install 'nasnet_jax[hub]', or give a file of weights"
    ) from None
  try:
    return pathlib.Path(hub.hf_hub_download(repo, file, revision=revision))
  except errors.LocalEntryNotFoundError as error:  # an EntryNotFoundError, too
    # None: nothing is known. A path or a mark that there is no such file.
    known = hub.try_to_load_from_cache(repo, file, revision=revision)
    if known is not None and not isinstance(known, str):
      return None
    raise CheckpointError(
      f"{file} of {repo} is not on this machine and cannot be downloaded: is"
      " there a network? Else fetch it elsewhere, and give the file as weights="
    ) from error
  except errors.EntryNotFoundError:
    return None
  except Exception as error:  # of many kinds: names, rights, the network
    first = str(error).strip().splitlines() or [type(error).__name__]
    raise CheckpointError(
      f"{repo} on the hub could not give {file}: {first[0]}"
    ) from error


def _digest(path: pathlib.Path) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: pathlib.Path) -> dict[str, Any]:
  try:
    found = json.loads(path.read_text())
  except (OSError, ValueError) as error:
    raise CheckpointError(f"{path} is no JSON: {error}") from None
  return found if isinstance(found, dict) else {}
