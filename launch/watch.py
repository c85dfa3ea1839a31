"""Shows runs in a browser on this machine, and follows them:

  python launch/watch.py runs/digits runs/cifar
  python launch/watch.py runs

Serves the pages of these runs, or of all runs in a folder, and a list of them
at http://127.0.0.1:8642; Ctrl-C ends it. Nothing is written.
"""

import errno

from absl import flags

from nasnet_jax.cli import entry
from nasnet_jax.data import paths
from nasnet_jax.report import watching

_PORT = flags.DEFINE_integer("port", 8642, "of the address; 0: a free one")


def main(argv: list[str]) -> None:
  folders = [paths.local(folder) for folder in argv[1:]]
  if not folders:
    raise entry.UsageError("give folders of runs, or a folder with runs in it")
  try:
    server = watching.make_server(folders, _PORT.value)
  except FileNotFoundError as error:
    raise entry.UsageError(str(error)) from error
  except OSError as error:
    if error.errno != errno.EADDRINUSE:
      raise
    raise entry.UsageError(
      f"port {_PORT.value} is taken: --port=0 takes a free one"
    ) from error
  print(f"{watching.address(server)}  (Ctrl-C ends it)", flush=True)
  try:
    server.serve_forever()
  except KeyboardInterrupt:
    print()
  finally:
    server.server_close()


if __name__ == "__main__":
  entry.run(main)
