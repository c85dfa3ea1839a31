"""Flags that make no sense, in one line that says what was meant."""

import ast
import difflib
import re
from collections.abc import Iterator
from typing import Any

import ml_collections
from absl import flags
from ml_collections.config_flags import config_path

from nasnet_jax.cli import shipped

_CONFIG = re.compile(r"--?config(=|$)")
_FIELD = re.compile(r"--?(?:no)?config\.([^=]*)")
_MOST = 3  # fields that a line names

# Types of fields and flags, in words, with an example.
_WORDS = {
  "int": "a whole number, such as 5",
  "float": "a number, such as 0.1",
  "bool": "true or false",
  "tuple": "a tuple in quotes, such as '(1, 2)' or \"('a', 'b')\"",
  "str": "text",
}


def in_order(arguments: list[str]) -> list[str]:
  """The same with --config before its fields, which it must be for them to be
  known; a ~ or $VARIABLE in its value in place."""
  end = arguments.index("--") if "--" in arguments else len(arguments)
  for i, word in enumerate(arguments[:end]):
    match = _CONFIG.match(word)
    if match is None:
      continue
    size = 1 if match[1] else 2  # `--config x`
    value = (
      word[match.end() :] if match[1] else "".join(arguments[i + 1 : i + 2])
    )
    chosen = [f"--config={_expanded(value)}"]
    return [*chosen, *arguments[:i], *arguments[i + size :]]
  return arguments


def _expanded(config: str) -> str:
  from nasnet_jax.data import paths

  file, colon, variant = config.partition(":")
  return f"{paths.expanded(file)}{colon}{variant}"


def explain(error: BaseException, arguments: list[str]) -> str:
  """Why a command line was refused, and what may have been meant.

  Args:
    error: of absl, of ml_collections, or of a config's file.
    arguments: without the program.
  """
  if isinstance(error, SyntaxError):
    return f"{error.filename} is no config: line {error.lineno}: {error.msg}"
  config = _config_of(arguments)
  if isinstance(error, flags.UnrecognizedFlagError):
    return _unknown_flag(error, config, arguments)
  if isinstance(error, flags.IllegalFlagValueError):
    return _wrong_value(error, config, arguments)
  if isinstance(_innermost(error), AttributeError | KeyError):
    for field in _fields_in(arguments):
      if config is not None and not _has(config, field):
        return (
          f"the config has no field {field}: {_hint(config, field, arguments)}"
        )
  return last_line(error)


def last_line(error: BaseException) -> str:
  lines = [line.strip() for line in str(error).splitlines() if line.strip()]
  return lines[-1] if lines else type(error).__name__


def _innermost(error: BaseException) -> BaseException:
  while error.args and isinstance(error.args[0], BaseException):
    error = error.args[0]
  return error


def _config_of(arguments: list[str]) -> Any:
  """The config that is named, without what the command line changes; None:
  there is none that can be read."""
  for i, word in enumerate(arguments):
    match = _CONFIG.match(word)
    if match:
      value = word[match.end() :] if match[1] else arguments[i + 1 :][:1]
      try:
        return shipped.config("".join(value))
      except Exception:  # what is wrong with it is said elsewhere
        return None
  return None


def _fields_in(arguments: list[str]) -> Iterator[str]:
  for word in arguments:
    match = _FIELD.match(word)
    if match:
      yield match[1]


def _names(group, prefix: str = "") -> Iterator[str]:
  """Dotted names of all fields."""
  for key in group:
    value = group.get_ref(key) if group.is_type_safe else group[key]
    value = value.get() if hasattr(value, "get") else value
    if isinstance(value, ml_collections.ConfigDict):
      yield from _names(value, f"{prefix}{key}.")
    else:
      yield f"{prefix}{key}"


def _has(config, field: str) -> bool:
  for key in field.split("."):
    if not isinstance(config, ml_collections.ConfigDict) or key not in config:
      return False
    config = config[key]
  return True


def _hint(config, field: str, arguments: list[str]) -> str:
  value = _value_of(f"config.{field}", arguments)
  return _did_you_mean(config, field, value)


def _did_you_mean(config, field: str, value: str = "") -> str:
  near = nearest_fields(config, field)
  if not near:
    return "--show prints its fields"
  return (
    "did you mean "
    + ", or ".join(f"--config.{name}{value}" for name in near)
    + "?"
  )


def nearest_fields(config, field: str) -> list[str]:
  """Dotted names of fields that may be meant, the likeliest first: of the same
  last part, wherever they stand, or of a similar name."""
  names = list(_names(config))
  last = field.split(".")[-1]
  same = [name for name in names if name.split(".")[-1] == last]
  job = str(config.get("job", ""))
  same.sort(key=lambda name: (name.count("."), not name.startswith(f"{job}.")))
  if "." not in field and same:
    return same[:_MOST]
  if same:
    return [max(same, key=lambda name: _likeness(name, field))]
  if "." not in field:
    lasts = {name.split(".")[-1]: name for name in reversed(names)}
    close = difflib.get_close_matches(field, lasts, 1, 0.75)
    return [lasts[name] for name in close]
  return difflib.get_close_matches(field, names, 1, 0.75)


def _likeness(a: str, b: str) -> float:
  return difflib.SequenceMatcher(None, a, b).ratio()


def _value_of(name: str, arguments: list[str]) -> str:
  """ "=5" for a flag that is given as --name=5, else ""."""
  for word in reversed(arguments):
    flag, equals, value = word.partition("=")
    if flag.lstrip("-") == name:
      return f"{equals}{value}"
  return ""


def _unknown_flag(error, config, arguments: list[str]) -> str:
  """A flag that no program has; it may be a field without its place."""
  name = error.flagname
  if config is not None and nearest_fields(config, name):
    hint = _did_you_mean(config, name, _value_of(name, arguments))
    return f"there is no flag --{name}: {hint}"
  return last_line(error)


def _wrong_value(error, config, arguments: list[str]) -> str:
  """A value of another type than the field's or the flag's."""
  match = re.match(r"flag --([^=]*)=", str(error))
  name = match[1] if match else ""
  kind, value = _type_of(name, config), _value_of(name, arguments)
  if kind == "group":
    return (
      f"--{name} is a group of fields: name one, such as {_first(name, config)}"
    )
  if kind not in _WORDS or _is_of(kind, value[1:]):  # out of its bounds
    return last_line(error)
  return f"--{name}{value} is {_said(kind, value[1:])}: give {_WORDS[kind]}"


def _is_of(kind: str, value: str) -> bool:
  """Whether a text is a number of a type."""
  read = {"int": int, "float": float}.get(kind)
  if read is None:
    return False
  try:
    read(value)
  except ValueError:
    return False
  return True


def _first(name: str, config) -> str:
  group = name.partition(".")[2]
  names = (n for n in _names(config) if n.startswith(f"{group}."))
  return f"--config.{next(names, group)}"


def _said(kind: str, value: str) -> str:
  """What is wrong with it, as far as its text tells."""
  try:
    read = ast.literal_eval(value)
  except (ValueError, SyntaxError):
    read = None
  if kind == "int" and isinstance(read, float):
    return "no whole number"
  return {
    "int": "no number",
    "float": "no number",
    "bool": "neither true nor false",
  }.get(kind, "not of its type")


def _type_of(name: str, config) -> str:
  """The type of a flag's value, "" where it is not known."""
  group, _, field = name.partition(".")
  if group == "config" and field and config is not None:
    try:
      kind = config_path.get_type(field, config)
    except (AttributeError, KeyError):
      return ""
    if isinstance(kind, type) and issubclass(kind, ml_collections.ConfigDict):
      return "group"
    return getattr(kind, "__name__", "")
  if name in flags.FLAGS:
    return flags.FLAGS[name].flag_type()
  return ""
