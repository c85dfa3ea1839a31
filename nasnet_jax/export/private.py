"""What leaves with a network tells nothing of the machine it was trained on.

Commands, configs and errors of a run name files and folders by their whole
path, which holds the names of users and projects. Of each such path only its
last name stays.
"""

import re

# From the root of a system or somebody's home on. Words before it that make it
# something else: https://..., and/or, 1/255, results/speed.
_START = r"(?:~[\w.-]*[\\/]|/(?=[\w.~@-])|[A-Za-z]:[\\/])"
_BEFORE = r"(?<![\w.:/\\~*)\]])"
_QUOTED = re.compile(rf"(?<=['\"`])({_START}[^'\"`\n]*)(?=['\"`])")
_PLAIN = re.compile(rf"{_BEFORE}({_START}[^\s'\"`,;()\[\]<>]*)")
_FILE = re.compile(r"file://(?=/)")


def without_paths(value):
  """A text, or JSON with texts at any depth, with the last name in place of
  each absolute path."""
  if isinstance(value, str):
    return _in_text(value)
  if isinstance(value, dict):
    return {key: without_paths(inner) for key, inner in value.items()}
  if isinstance(value, list | tuple):
    return type(value)(without_paths(inner) for inner in value)
  return value


def _in_text(text: str) -> str:
  text = _FILE.sub("", text)
  if re.fullmatch(rf"{_START}[^\n'\"`,]*", text):  # a path and nothing else
    return _last_name(text)
  text = _QUOTED.sub(lambda found: _last_name(found[1]), text)
  return _PLAIN.sub(lambda found: _last_name(found[1]), text)


def _last_name(path: str) -> str:
  """Without a sentence's end, which is kept."""
  bare = path.rstrip(".:!?")
  end = path[len(bare) :]
  names = [name for name in re.split(r"[\\/]", bare) if name]
  return (names[-1] if names and names[-1] != "~" else "~") + end
