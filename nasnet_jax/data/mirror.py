"""A run in a bucket: a working folder on this machine, and what is sent there.

Runs append to journals and wait for the disk, which no bucket offers. So a run
works in a folder here, whose name follows from the address, and `push` sends
what changed since it last did. A machine without that folder goes on from the
bucket alone.

At any moment, whoever reads the bucket finds one state of the folder, whole.
`.mirror.json` there says which: its files by size and SHA-256. A push sends new
files under their names and changed ones into `.mirror/NUMBER/`, then replaces
`.mirror.json`, with which it has happened, then sends the changed ones under
their names, too. A state that a process left behind at any moment is one that
a run goes on from, so a push may happen between any two writes.

Files for the eye (pages, logs) are sent as they are, and counted nowhere.
"""

import contextlib
import json
import logging
import pathlib
import secrets
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from nasnet_jax.data import buckets, cache
from nasnet_jax.data.buckets import BucketError

_log = logging.getLogger(__name__)
MARK, _WAITING = ".mirror.json", ".mirror"
# For the eye, and written at any time, by threads and other processes, too.
_LOOSE = frozenset(
  {
    "figures",
    "log.txt",
    "metrics.jsonl",
    "mlruns",
    "profile",
    "report.html",
    "tensorboard",
    "wandb",
  }
)
_HALF = (".orbax-checkpoint-tmp", "removed-")  # in names of a killed process
_TRIES = 3
_SHARE = 0.05  # of the time that pushing may take
_active: list["Mirror"] = []


class _State(NamedTuple):
  """What `.mirror.json` says.

  Attributes:
    run: of which run it is; a new one in the same place has another.
    number: of the push.
    writer: the process that pushed.
    files: {name: [bytes, SHA-256]}.
    loose: names of files for the eye.
    waiting: {name: number of the push in `.mirror/` that has it, while the one
      under its own name may be older}.
  """

  run: str
  number: int = 0
  writer: str = ""
  files: dict[str, list] = {}  # noqa: RUF012 (never changed)
  loose: list[str] = []  # noqa: RUF012
  waiting: dict[str, int] = {}  # noqa: RUF012

  @property
  def push(self) -> tuple[int, str]:
    return self.number, self.writer


def place(address: str) -> pathlib.Path:
  """The folder on this machine that stands for an address."""
  return cache.place_of(str(address).rstrip("/"))


class Mirror:
  """One address and its folder."""

  def __init__(self, address: str):
    """Raises BucketError for an address that cannot be reached."""
    self.address = str(address).rstrip("/")
    self.folder = place(self.address)
    self._root = buckets.at(self.address)
    self._guard = threading.RLock()
    self._state = _State(secrets.token_hex(8))
    self._seen: dict[str, tuple[int, int]] = {}
    self._rest = 0.0  # the moment before which nothing is pushed
    self._failed = False

  # What is in the bucket comes here.

  def pull(self) -> bool:
    """Brings the folder to the bucket's state, unless it is ahead of it.

    Returns:
      whether there is anything.

    Raises:
      BucketError: where folder and bucket cannot both be right.
    """
    with buckets.told(self.address):
      there = self._read_mark()
      here = self._read_record()
      if there is None:
        return self._pull_unmarked(here)
      if here is None:
        self._check_empty(buckets.copied(self.folder))
        _log.info("%s is copied to %s", self.address, self.folder)
        self._take(there)
        return True
      known, tried = here
      if there.push in (known.push, tried):
        self._state = there
        return True
      if there.run != known.run:
        raise self._refused("has another run, and")
      if there.number <= known.number:
        raise self._refused("was put back to an older state, and")
      _log.info(
        "%s went on elsewhere: %s follows it, and what was not sent from here"
        " is given up",
        self.address,
        self.folder,
      )
      self._take(there)
      return True

  def _pull_unmarked(self, here) -> bool:
    """A place where nothing is, or a run that was copied there by hand."""
    if here is not None and here[0].number:
      raise self._refused(
        "has no run any more, and", "to begin anew or with what is there"
      )
    if here is not None:  # stopped before anything was sent
      self._state = here[0]
      return bool(self._scan())
    self._check_empty(buckets.copied(self.folder))
    found = buckets.follow(self._root, self.folder)
    names = [n for n in found if not _is_loose(n)]
    sums = buckets.many(lambda n: buckets.digest(self.folder / n), names)
    files = {n: [found[n][0], s] for n, s in zip(names, sums)}
    loose = sorted(found.keys() - files.keys())
    self._state = self._state._replace(files=files, loose=loose)
    self._note_seen()
    return bool(found)

  def _take(self, there: _State):
    """Makes the folder the bucket's."""
    for _ in range(_TRIES):
      wanted = [n for n, v in there.files.items() if not self._is_here(n, v)]
      states = [there] * len(wanted)
      differ = [*filter(None, buckets.many(self._fetch, wanted, states))]
      latest = self._read_mark()
      if not differ or latest is None or latest.push == there.push:
        break
      there = latest  # it went on meanwhile
    if differ:
      raise BucketError(
        f"{self.address}/{differ[0]} is not what the run sent there last: put"
        " it back, or remove the run"
      )
    for name in self._scan():
      if name not in there.files and name not in there.loose:
        (self.folder / name).unlink(missing_ok=True)
    buckets.many(self._fetch_loose, there.loose)
    self._state = there
    self._note_seen()
    self._write_record()

  def _is_here(self, name: str, value: list) -> bool:
    path = self.folder / name
    if not path.is_file() or path.stat().st_size != value[0]:
      return False
    return buckets.digest(path) == value[1]

  def _fetch(self, name: str, there: _State) -> str | None:
    """One file of a state; its name if neither place has it."""
    sources = [self._root / name]
    if name in there.waiting:
      sources.append(self._waiting(there.waiting[name], name))
    for source in sources:
      with contextlib.suppress(FileNotFoundError):
        sum_ = buckets.fetch(source, self.folder / name)
        if sum_ == there.files[name][1]:
          return None
    return name

  def _fetch_loose(self, name: str):
    with contextlib.suppress(FileNotFoundError):
      buckets.fetch(self._root / name, self.folder / name)

  # What is here goes into the bucket.

  @contextlib.contextmanager
  def followed(self) -> Iterator[None]:
    """While inside, the bucket follows the folder, and at the end has all.

    Raises:
      BucketError: at the start, if it cannot be written; whenever another
        process writes there; at the end, if what is left could not be sent.
    """
    self.pull()
    with buckets.told(self.address):
      self._claim()
    _log.info("%s: the run works in %s, and is sent", self.address, self.folder)
    _active.append(self)
    try:
      yield
    except BaseException:
      with contextlib.suppress(BucketError):  # the first error counts
        self._push_rest()
      raise
    finally:
      _active.remove(self)
    self._push_rest()

  def _push_rest(self):
    self.push(now=True)
    if self._failed:
      raise BucketError(
        f"{self.address} could not be reached at the end: the run is in"
        f" {self.folder}, and the same command sends what is left"
      )

  def _claim(self):
    """Makes this process the one that writes there."""
    waiting = self._state.waiting
    buckets.many(self._settle, waiting, waiting.values())
    mine = self._state._replace(
      number=self._state.number + 1, writer=secrets.token_hex(8), waiting={}
    )
    self._commit(mine)

  def _settle(self, name: str, number: int):
    """Ends what a killed push began."""
    source = self._waiting(number, name)
    if buckets.is_there(source):
      source.copy(self._root / name, overwrite=True)
      buckets.remove(source)

  def push(self, now: bool = False):
    """Sends what changed; unless it is to be `now`, only if pushing has taken
    little of the time.

    A bucket that cannot be reached is tried again at the next call.

    Raises:
      BucketError: if another process writes there.
    """
    with self._guard:
      start = time.monotonic()
      if not now and start < self._rest:
        return
      try:
        self._push()
        self._failed = False
      except _TakenError:
        raise
      except BucketError as error:
        if not self._failed:
          _log.warning("not sent, tried again later: %s", error)
        self._failed = True
      end = time.monotonic()
      self._rest = end + (end - start) / _SHARE

  def _push(self):
    with buckets.told(self.address):
      there, mine = self._read_mark(), self._state
      if there is not None and there.push == mine.push:
        there = mine  # which knows what waits no more
      if there is None or (there.run, there.writer) != (mine.run, mine.writer):
        raise _TakenError(
          f"another process writes to {self.address}, or it was removed: this"
          " one stops; take another place for one of them"
        )
      now = self._scan()
      exact = {n: seen for n, seen in now.items() if not _is_loose(n)}
      stale = [n for n, seen in exact.items() if self._seen.get(n) != seen]
      changed = [n for n in stale if n in there.files]
      number = there.number + 1
      sent = dict(
        zip(stale, buckets.many(lambda n: self._send(n, number, there), stale))
      )
      files = {n: list(sent.get(n) or there.files[n]) for n in exact}
      loose = [n for n in now if _is_loose(n)]
      gone = [*({*there.files, *there.loose} - {*files, *loose})]
      if sent or gone:
        waiting = {n: k for n, k in there.waiting.items() if n in files}
        waiting |= dict.fromkeys(changed, number)
        self._commit(
          there._replace(
            number=number, files=files, loose=loose, waiting=waiting
          )
        )
        buckets.many(self._finish, changed)
      self._seen |= {n: seen for n, seen in exact.items() if n in sent}
      stale = [n for n in loose if self._seen.get(n) != now[n]]
      buckets.many(self._send_loose, stale)
      self._seen |= {n: now[n] for n in stale}
      buckets.many(lambda name: buckets.remove(self._root / name), gone)

  def _send(self, name: str, number: int, there: _State) -> tuple[int, str]:
    is_new = name not in there.files
    target = self._root / name if is_new else self._waiting(number, name)
    return buckets.send(self.folder / name, target)

  def _finish(self, name: str):
    """The second half of a changed file: under its own name."""
    number = self._state.waiting[name]
    sent = buckets.send(self.folder / name, self._root / name)
    if list(sent) == self._state.files[name]:
      del self._state.waiting[name]
      buckets.remove(self._waiting(number, name))

  def _send_loose(self, name: str):
    with contextlib.suppress(FileNotFoundError):  # replaced meanwhile
      buckets.send(self.folder / name, self._root / name)

  def _commit(self, state: _State):
    """Replaces the mark; written down here first, as its answer may be lost."""
    self._write_record(tried=state.push)
    text = json.dumps(state._asdict(), indent=1) + "\n"
    (self._root / MARK).write_text(text)
    self._state = state
    self._write_record()

  def send_pages(self):
    """Sends the files for the eye that changed; the run's own are left."""
    with buckets.told(self.address):
      if self._read_record() is None:
        return
      now = {n: seen for n, seen in self._scan().items() if _is_loose(n)}
      stale = [n for n in now if self._seen.get(n) != now[n]]
      buckets.many(self._send_loose, stale)

  # Bookkeeping.

  def _waiting(self, number: int, name: str):
    return self._root / _WAITING / str(number) / name

  def _read_mark(self) -> _State | None:
    try:
      text = (self._root / MARK).read_text()
    except FileNotFoundError:
      return None
    return _State(**json.loads(text))

  def _read_record(self) -> tuple[_State, tuple | None] | None:
    """(what was pushed or taken last, the push that was then under way)."""
    path = self.folder / MARK
    if not path.exists():
      return None
    data: dict[str, Any] = json.loads(path.read_text())
    self._seen = {n: tuple(seen) for n, seen in data["seen"].items()}
    return _State(**data["state"]), tuple(data["tried"] or ()) or None

  def _write_record(self, tried=None):
    self.folder.mkdir(parents=True, exist_ok=True)
    data = {
      "address": self.address,
      "state": self._state._asdict(),
      "seen": self._seen,
      "tried": tried,
    }
    with cache.atomic_file(self.folder / MARK) as file:
      file.write(json.dumps(data).encode())

  def _scan(self) -> dict[str, tuple[int, int]]:
    """{name: (bytes, time of its last change)} of what counts in the folder."""
    found = {}
    for path in sorted(self.folder.rglob("*")):
      parts = path.relative_to(self.folder).parts
      if any(p.startswith((".", _HALF[1])) or _HALF[0] in p for p in parts):
        continue
      with contextlib.suppress(FileNotFoundError):  # replaced meanwhile
        if path.is_file() and not path.is_symlink():
          stat = path.stat()
          found["/".join(parts)] = (stat.st_size, stat.st_mtime_ns)
    return found

  def _note_seen(self):
    """All that is in the folder is also in the bucket."""
    self._seen = self._scan()

  def _check_empty(self, but):
    """Raises BucketError if the folder has other files than these."""
    if self._scan().keys() - but.keys():
      raise BucketError(
        f"{self.folder}, the working folder of {self.address} here, has files"
        " that are not from there: remove it"
      )

  def _refused(self, words: str, then="to go on with what is there"):
    return BucketError(
      f"{self.address} {words} {self.folder}, its working folder here, has what"
      f" does not fit: remove that folder {then}, or take another address"
    )


class _TakenError(BucketError):
  """Another process writes to the same place."""


def committed():
  """A run has written something down: its bucket, if it has one, may follow."""
  for mirror in list(_active):
    mirror.push()


def address_of(folder) -> str:
  """The address that a folder stands for, "" if it is one of its own."""
  try:
    return json.loads((pathlib.Path(folder) / MARK).read_text())["address"]
  except (OSError, ValueError, KeyError):
    return ""


def is_worked_in(folder: pathlib.Path) -> bool:
  """Whether a run of this machine is at work in a folder, see
  `training.workdir.locked`."""
  import fcntl

  try:
    with open(folder / ".lock") as file:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    return True
  except OSError:  # no such file, or no locks there
    return False
  return False


def _is_loose(name: str) -> bool:
  return name.partition("/")[0] in _LOOSE
