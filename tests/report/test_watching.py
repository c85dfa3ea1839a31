"""Runs in a browser on this machine."""

import http.client
import threading

import pytest

from nasnet_jax import report
from nasnet_jax.report import watching


@pytest.fixture
def serve():
  """serve(folders) -> get(path, host) -> (status, text) of a server."""
  servers = []

  def start(folders):
    server = watching.make_server(folders, 0)
    servers.append(server)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def get(path, host=None):
      line = http.client.HTTPConnection("127.0.0.1", server.server_port)
      line.request("GET", path, headers={"Host": host} if host else {})
      answer = line.getresponse()
      text = answer.read().decode()
      line.close()
      return answer.status, text

    assert server.server_address[0] == "127.0.0.1"
    return get

  yield start
  for server in servers:
    server.shutdown()
    server.server_close()


def test_the_list_leads_to_pages_that_are_made_anew(serve, make_run):
  folder = make_run(children=12, finished=False)
  get = serve([folder.parent])
  status, text = get("/")
  assert status == 200 and f'href="/{folder.name}/report.html"' in text
  _, page = get(f"/{folder.name}/")
  assert "12 children" in page
  with (folder / "history.jsonl").open("a") as file:
    file.write('{"id": 12, "reward": 0.5}\n')
  _, page = get(f"/{folder.name}/report.html")
  assert "13 children" in page
  assert not (folder / "report.html").exists()  # nothing is written
  make_run(children=8, finished=False)  # comes later, is listed
  assert "run_nasnet_8_False" in get("/")[1]


def test_only_files_of_the_runs_and_only_this_machine(serve, make_run):
  folder = make_run(children=8)
  (folder.parent / "secret.txt").write_text("secret")
  (folder / "way_out").symlink_to(folder.parent / "secret.txt")
  get = serve([folder])
  name = folder.name
  assert get(f"/{name}/history.jsonl")[0] == 200
  for path in (
    f"/{name}/../secret.txt",
    f"/{name}/%2e%2e/secret.txt",
    f"/{name}/%2Fetc%2Fpasswd",
    f"/{name}/way_out",
    f"/{name}/figures",
    "/secret.txt",
    "/etc/passwd",
  ):
    status, text = get(path)
    assert status == 404 and "secret" not in text and "root" not in text, path
  assert get("/", "evil.example:80")[0] == 403
  assert get("/", "localhost:80")[0] == 200


def test_folders_without_a_run_are_one_clear_line(tmp_path):
  (tmp_path / "file").touch()
  for folder, words in (
    (tmp_path, r"has no run in it: there is no config\.json, nor in"),
    (tmp_path / "nowhere", "no such folder"),
    (tmp_path / "file", "is a file: give the folder of a run"),
  ):
    with pytest.raises(FileNotFoundError, match=words):
      watching.find([folder])


def test_a_folder_where_nothing_began_has_no_page(tmp_path):
  for ask in (report.write_report, report.summary_text):
    with pytest.raises(FileNotFoundError, match="has no run in it"):
      ask(tmp_path)
  assert not (tmp_path / "report.html").exists()
