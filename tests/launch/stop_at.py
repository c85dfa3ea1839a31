"""launch/main.py, which gets SIGTERM at its n-th look at what is under way.

python stop_at.py METHOD N FLAGS...: METHOD of the console, in_round or in_fit
"""

import os
import runpy
import signal
import sys


def main():
  method, n = sys.argv[1], int(sys.argv[2])
  del sys.argv[1:3]
  from nasnet_jax.jobs import run_log
  from nasnet_jax.search import console

  owner = console.Console if method == "in_round" else run_log.Console
  original, count = getattr(owner, method), [0]

  def look(*args, **kwargs):
    count[0] += 1
    if count[0] == n:
      os.kill(os.getpid(), signal.SIGTERM)
    original(*args, **kwargs)

  setattr(owner, method, look)
  runpy.run_path("launch/main.py", run_name="__main__")


if __name__ == "__main__":
  main()
