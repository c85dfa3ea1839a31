"""The pages of runs, served to a browser on this machine.

Only 127.0.0.1 is listened on, only requests that name this machine are
answered, and only with pages and files of the runs.
"""

import html
import http.server
import mimetypes
import pathlib
import threading
import urllib.parse

from nasnet_jax.report import html as pages
from nasnet_jax.report import page, progress, runs, winners
from nasnet_jax.report.labels import label_folders

HOST = "127.0.0.1"
_NAMES = (HOST, "localhost")


def find(folders) -> dict[str, pathlib.Path]:
  """{name: folder} of the runs: the folders themselves, or those in them.

  Raises:
    FileNotFoundError: in one line, for a folder with neither.
  """
  found: list[pathlib.Path] = []
  for folder in map(pathlib.Path, folders):
    inside = [folder] if _is_run(folder) else _runs_in(folder)
    if not inside:
      why = runs.why_no_run(folder, "config.json, nor in a folder inside")
      raise FileNotFoundError(why)
    found += [one for one in inside if one not in found]
  return dict(zip(label_folders(found), found, strict=True))


def _runs_in(folder: pathlib.Path) -> list[pathlib.Path]:
  if not folder.is_dir():
    return []
  return sorted(one for one in folder.iterdir() if _is_run(one))


def _is_run(folder: pathlib.Path) -> bool:
  names = ("config.json", "result.json", runs.HISTORY, runs.SCALED)
  return any((folder / name).is_file() for name in names)


def make_server(folders, port: int) -> http.server.ThreadingHTTPServer:
  """A server of these runs' pages; `serve_forever` starts it.

  Args:
    folders: of runs, or folders with runs in them, also such as come later.
    port: 0 takes a free one, see `server_port`.

  Raises:
    FileNotFoundError: see `find`.
    OSError: if the port is taken.
  """
  find(folders)
  shown = _Pages()

  class Handler(_Handler):
    def runs_and_pages(self):
      return find(folders), shown

  return http.server.ThreadingHTTPServer((HOST, port), Handler)


class _Pages:
  """Pages by folder, each made again once its run has changed."""

  def __init__(self):
    self._lock = threading.Lock()
    self._known: dict[pathlib.Path, tuple[float, bytes]] = {}

  def of(self, folder: pathlib.Path) -> bytes:
    with self._lock:
      changed = runs.last_write(folder)
      known = self._known.get(folder)
      if known is None or known[0] != changed:
        text = pages.page_of(runs.read_run(folder))
        known = self._known[folder] = changed, text.encode()
      return known[1]


class _Handler(http.server.BaseHTTPRequestHandler):
  """Answers GET and HEAD."""

  server_version, sys_version = "nasnet-jax", ""

  def do_GET(self):
    host = self.headers.get("Host", "").rpartition(":")[0]
    if (host or self.headers.get("Host", "")) not in _NAMES:
      # A page from elsewhere could reach this server by a name of its own.
      self._send(403, "text/plain", b"only for this machine\n")
      return
    try:
      self._send(*self._answer())
    except (BrokenPipeError, ConnectionResetError):
      return
    except Exception as error:
      self._send(500, "text/plain; charset=utf-8", f"{error}\n".encode())

  do_HEAD = do_GET

  def _answer(self) -> tuple[int, str, bytes]:
    found, shown = self.runs_and_pages()
    path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
    if path == "/":
      return 200, "text/html; charset=utf-8", _index(found).encode()
    # The longest name first: one may begin like another.
    for name in sorted(found, key=len, reverse=True):
      rest = path.removeprefix(f"/{name}/")
      if rest != path:
        return _of_run(found[name], rest, shown)
    return 404, "text/plain", b"no such run\n"

  def _send(self, code: int, kind: str, body: bytes):
    self.send_response(code)
    self.send_header("Content-Type", kind)
    self.send_header("Content-Length", str(len(body)))
    self.send_header("Cache-Control", "no-store")
    self.end_headers()
    if self.command != "HEAD":
      self.wfile.write(body)

  def log_message(self, *_):
    """Requests are no news."""


def _of_run(folder, rest: str, shown: _Pages) -> tuple[int, str, bytes]:
  """The page of a run, or a file below its folder."""
  if rest in ("", "report.html"):
    return 200, "text/html; charset=utf-8", shown.of(folder)
  file = (folder / rest).resolve()
  inside = file.is_relative_to(folder.resolve())
  if "\0" in rest or not inside or not file.is_file():
    return 404, "text/plain", b"no such file\n"
  kind = mimetypes.guess_type(file.name)[0] or "text/plain"
  return 200, kind, file.read_bytes()


def _index(found: dict[str, pathlib.Path]) -> str:
  rows = [_row(name, runs.read_run(folder)) for name, folder in found.items()]
  head = ("run", "kind", "how far", "test", "last written")
  table = page.table(head, "".join(rows), "Runs", "list")
  return page.page(
    "Runs", f"{len(found)} in all", page.section("Runs", table), refresh=True
  )


def _row(name: str, run: runs.Run) -> str:
  at = "finished"
  if not run.result:
    at = progress.of(run)
    at = ", ".join(filter(None, [at.words, progress.to_go(at)]))
  accuracy = winners.test_accuracy(run.result)
  ap = runs.number((run.result.get("test") or {}).get("voc_ap50"))
  tested = accuracy[0] if accuracy else f"AP50 {ap:.2%}" if ap == ap else ""
  link = urllib.parse.quote(f"/{name}/report.html")
  return page.row(
    [
      f'<a href="{link}">{html.escape(name)}</a>',
      html.escape(run.kind),
      html.escape(at),
      tested,
      html.escape(run.changed),
    ]
  )


def address(server: http.server.ThreadingHTTPServer) -> str:
  return f"http://{HOST}:{server.server_port}/"
