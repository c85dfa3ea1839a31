"""The journal: what a controller was asked and told, in order.

One JSON line per event, float32 rewards exactly, so `replay` rebuilds the
controller's state bit for bit:

    {"ask": 8, "key": [12, 34], "came": 8, "checksum": 912559}
    {"tell": [0, 1], "rewards": [0.8999999761581421, "nan"], "status": [0, 1]}

A strategy of several objectives has a list of rewards for each child.

Decisions are not in it: they follow from the state and the key, and the
checksum notices if they no longer do. (What a reader wants to know about
children is in the run's `history.jsonl`.) After a crash a job may take either
a saved state or the replayed one; both are equal.
"""

import json
import logging
import os
import zlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

from nasnet_jax.controllers import base

_log = logging.getLogger(__name__)


class Ask(NamedTuple):
  """One call of `ask`.

  Attributes:
    key: uint32[k], the rng's key data.
    n: int, proposals asked for.
    came: int, proposals that came.
    checksum: int, CRC-32 of their ids, decisions and budgets.
  """

  key: Any
  n: int
  came: int
  checksum: int


class Tell(NamedTuple):
  """One call of `tell`.

  Attributes:
    id: int64[m], the proposals that are answered, in the order told.
    rewards: f32[m], or f32[m, k] of k objectives.
    status: int32[m].
  """

  id: Any
  rewards: Any
  status: Any


class Replayed(NamedTuple):
  """What a journal leads to.

  Attributes:
    state: the controller's state.
    pending: proposals that came and were not yet told, by id.
  """

  state: Any
  pending: base.Proposals


def record_ask(path, rng, n: int, proposals: base.Proposals) -> None:
  """Appends an ask, after it was carried out, and waits for the disk."""
  key = np.asarray(jax.random.key_data(rng)).tolist()
  came, check = len(proposals), checksum(proposals)
  _append(path, {"ask": n, "key": key, "came": came, "checksum": check})


def record_tell(path, proposals: base.Proposals, rewards, status) -> None:
  """Appends a tell and waits for the disk.

  Args:
    path: the journal.
    proposals: of m children, as they are told to the controller.
    rewards: f32[m], or f32[m, k] of k objectives.
    status: int[m].
  """
  base.succeeded(proposals, rewards, status, base.objectives_of(rewards))
  event = {
    "tell": np.asarray(proposals.id).tolist(),
    "rewards": _to_json(np.asarray(rewards, np.float32)),
    "status": np.asarray(status).tolist(),
  }
  _append(path, event)


def read(path) -> list[Ask | Tell]:
  """All events of a journal; none if there is no such file.

  A last line without its end (the process was killed while writing) is left
  out with a notice in the log; the next record takes its place.

  Raises:
    ValueError: naming the line, if any other line is not a journal's.
  """
  if not os.path.exists(path):
    return []
  with open(path, "rb") as file:
    *lines, tail = file.read().split(b"\n")
  if tail:
    _log.warning(
      "%s: dropped line %d, cut short while it was written",
      path,
      len(lines) + 1,
    )
  events = []
  for number, line in enumerate(lines, 1):
    try:
      events.append(_parse(json.loads(line)))
    except (ValueError, KeyError, TypeError, OverflowError) as error:
      raise ValueError(
        f"{path}, line {number}: not a line of a journal: {line[:60]!r}"
      ) from error
  return events


def replay(
  controller: base.Controller,
  rng,
  events: Iterable[Ask | Tell],
  pending: base.Proposals | None = None,
  progress: Callable[[int], None] = lambda number: None,
) -> Replayed:
  """Repeats a journal's calls.

  Args:
    controller: made as it was for the journal.
    rng: the key that `init` was given.
    events: as `read` returns them.
    pending: proposals that were under way before the first of them.
    progress: called after each event with how many are done.

  Raises:
    ValueError: naming the event, if the controller proposes something else
      than it did then, or an answer belongs to no pending proposal.
  """
  state = controller.init(rng)
  impl = jax.random.key_impl(rng)
  if pending is None:
    pending, _ = controller.ask(state, rng, 0)
  for number, event in enumerate(events, 1):
    if isinstance(event, Ask):
      key = jax.random.wrap_key_data(np.asarray(event.key), impl=impl)
      proposals, state = controller.ask(state, key, event.n)
      if (len(proposals), checksum(proposals)) != (event.came, event.checksum):
        raise ValueError(
          f"journal event {number}: the controller now proposes other"
          " children; its options, the space, the seed or a library's version"
          " differ from the journal's"
        )
      pending = base.join([pending, proposals])
    else:
      answered, pending = _take(pending, event.id, number)
      state = controller.tell(state, answered, event.rewards, event.status)
    progress(number)
  return Replayed(state, pending)


def checksum(proposals: base.Proposals) -> int:
  """CRC-32 of ids, decisions and budgets."""
  result = 0
  for array, dtype in (
    (proposals.id, "<i8"),
    (proposals.decisions, "<i4"),
    (proposals.budget, "<f4"),
  ):
    result = zlib.crc32(np.ascontiguousarray(array, dtype).tobytes(), result)
  return result


def _take(pending: base.Proposals, ids, number: int):
  """Splits pending proposals in those of the ids, in order, and the rest."""
  place = {int(k): row for row, k in enumerate(pending.id)}
  try:
    chosen = np.array([place.pop(int(k)) for k in ids], np.int64)
  except KeyError as error:
    raise ValueError(
      f"journal event {number}: child {error} is answered but not pending"
    ) from None
  rest = np.array(list(place.values()), np.int64)
  return pending.rows(chosen), pending.rows(rest)


def _parse(event) -> Ask | Tell:
  if "ask" in event:
    return Ask(
      np.asarray(event["key"], np.uint32),
      int(event["ask"]),
      int(event["came"]),
      int(event["checksum"]),
    )
  tell = Tell(
    np.asarray(event["tell"], np.int64),
    np.asarray(_from_json(event["rewards"]), np.float32),
    np.asarray(event["status"], np.int32),
  )
  if not len(tell.id) == len(tell.rewards) == len(tell.status):
    raise ValueError("a tell's lists differ in length")
  return tell


def _to_json(reward: np.ndarray) -> float | str | list:
  """Numbers that read back to the same float32; JSON has no NaN or inf."""
  if reward.ndim:
    return [_to_json(r) for r in reward]
  return float(reward) if np.isfinite(reward) else str(float(reward))


def _from_json(reward) -> float | list:
  if isinstance(reward, list):
    return [_from_json(r) for r in reward]
  return float(reward)


def _append(path, event: dict) -> None:
  """Writes one line behind the last whole one, and waits for the disk."""
  line = json.dumps(event, allow_nan=False).encode() + b"\n"
  is_new = not os.path.exists(path)
  with open(path, "ab") as file:
    _cut_broken_tail(path, file)
    file.write(line)
    file.flush()
    os.fsync(file.fileno())
  if is_new:
    _sync_folder(path)


def _cut_broken_tail(path, file) -> None:
  """Cuts off what a killed process left after the last line's end."""
  size = file.seek(0, os.SEEK_END)
  if not size:
    return
  with open(path, "rb") as journal:
    journal.seek(size - 1)
    if journal.read(1) == b"\n":
      return
    journal.seek(0)
    whole = journal.read().rfind(b"\n") + 1
  _log.warning("%s: cut off a last line that was cut short", path)
  file.truncate(whole)
  file.seek(0, os.SEEK_END)


def _sync_folder(path) -> None:
  """A new file survives a power cut only once its folder is on the disk."""
  folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
  try:
    os.fsync(folder)
  finally:
    os.close(folder)
