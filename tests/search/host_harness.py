"""A small search of real children, without a final stage, on one of many hosts.

  python host_harness.py WORKDIR COORDINATOR COUNT INDEX

Devices: four in all. Without a coordinator ("") the process is alone.
"""

import pathlib
import sys

DEVICES = 4


def main(argv: list[str]):
  workdir_path, coordinator, count, index = argv[1:]
  from nasnet_jax.training import hosts, mesh

  mesh.prepare_host(DEVICES // int(count))
  hosts.start(coordinator, int(count), int(index), timeout=20)
  from nasnet_jax.jobs import job_config
  from nasnet_jax.search import budgets, rounds, run_clock, search_config
  from nasnet_jax.training import workdir

  sys.path.insert(0, str(pathlib.Path(__file__).parent))
  import harness

  config = harness.tiny_config()
  config.search.children, config.search.children_per_round = 10, 5
  config.mesh.arch = DEVICES
  space = search_config.get_space(config)
  images = search_config.load_images(config)
  aug = job_config.get_augmentation(config.data, images)
  with workdir.locked(workdir_path) as folder:
    rounds.run(
      folder,
      search_config.get_controller(config, space),
      search_config.get_evaluator(config, space, images, aug),
      search_config.round_settings(config),
      # Asks all hosts after each round; there are hours enough.
      over=budgets.Hours(1e6, run_clock.RunClock(folder), 5, lambda _: 0.0),
    )


if __name__ == "__main__":
  from nasnet_jax.cli import entry

  entry.run(main)
