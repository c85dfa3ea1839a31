"""A whole search in seconds, and ways to kill it at a chosen moment.

  python harness.py WORKDIR [FAULT] [FIELD=VALUE ...]
  python harness.py asynchronous WORKDIR N

Children are not trained: their rewards are a function of decisions and seed.
The final stage is real. A fault is "name:n": SIGKILL at the n-th event of that
name, where writes are half done; "SIGINT:n" and "SIGTERM:n", this signal at the
n-th look at training children; or "after:seconds". The second form has no final
stage: SIGKILL after N calls of the training step.

With BUCKET=FOLDER in the environment gs:// is that folder, see `bucket.py`.
"""

import importlib.util
import json
import os
import pathlib
import signal
import threading
import time

import numpy as np

ROOT = pathlib.Path(__file__).parents[2]


def load_config(name: str, variant: str):
  """A config by the name of its file."""
  path = ROOT / "configs" / f"{name}.py"
  spec = importlib.util.spec_from_file_location(name, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(variant)


def tiny_config():
  """The tiny digits search, with the smallest networks there are."""
  config = load_config("search_digits", "tiny")
  config.space.num_blocks = 1
  config.space.operations = ("identity", "avg_pool_3x3")
  config.network.num_reductions = config.final.network.num_reductions = 0
  config.search.children = 12
  config.data.max_per_class = 20
  config.data.num_valid = 50
  config.child.batch_size = config.final.batch_size = 32
  config.final.eval_batch_size = 40
  config.final.rank_epochs = 2
  return config


class FakeEvaluator:
  """Rewards from decisions and seed alone; every seventh child fails."""

  def costs(self, decisions):
    """Parameters: ten for each number of the decisions."""
    return [{"params": 10 * int(np.sum(d)), "macs": 1000} for d in decisions]

  def evaluate(self, decisions, seeds, budgets, progress=None):
    from nasnet_jax.population.evaluation import Outcome

    outcomes = []
    for i, (row, seed) in enumerate(zip(decisions, seeds)):
      if progress:
        progress(i / len(seeds), "")
      rng = np.random.default_rng([int(seed), *map(int, row)])
      reward = 0.5 + 0.1 * rng.uniform() + 0.02 * float(np.sum(row))
      if seed % 7 == 0:
        reward = float("nan")
      outcomes.append(Outcome(reward, 0, 10, 0.1, 100, 1000))
    return outcomes


class FakeTraining:
  """In the place of a population's compiled functions: what children get right
  is a function of their seed and their updates.

  Attributes:
    calls: of the training step.
    updates: made by all children.
  """

  def __init__(self, evaluator):
    self.calls = self.updates = 0
    self._slots = evaluator.slots
    self._per_call = evaluator.recipe.steps_per_call
    self._valid = evaluator.num_valid
    evaluator._compiled = True
    evaluator.population = evaluator.population._replace(
      empty=self.empty,
      refill=self.refill,
      train=self.train,
      count_correct=self.count_correct,
    )

  def empty(self):
    return {
      name: np.zeros(self._slots, np.int64)
      for name in ("seed", "step", "horizon")
    }

  def refill(self, state, fresh, seeds, horizons, genotypes):
    new = {"seed": seeds, "step": 0, "horizon": horizons}
    return {k: np.where(fresh, new[k], state[k]) for k in state}

  def train(self, state, genotypes, data):
    self.calls += 1
    step = np.minimum(state["step"] + self._per_call, state["horizon"])
    self.updates += int((step - state["step"]).sum())
    loss = np.where(state["seed"] % 7 == 0, np.nan, 1.0)
    return {**state, "step": step}, {"loss": loss}

  def count_correct(self, state, which, genotypes, data):
    share = state["step"] / np.maximum(state["horizon"], 1)
    right = [
      round(self._valid * accuracy_of(*child))
      for child in zip(state["seed"], share)
    ]
    return np.where(which, right, 0)


def accuracy_of(seed: int, share: float) -> float:
  """Of a child that has made this share of its updates; curves may cross."""
  early, late = np.random.default_rng(int(seed)).uniform(size=2)
  return 0.3 * share + 0.7 * ((1 - share) * early + share * late)


def fake_evaluator(width=3, **recipe):
  """A population of `width` slots that trains nothing (`training` counts)."""
  from nasnet_jax.jobs import job_config
  from nasnet_jax.search import search_config

  config = tiny_config()
  config.mesh.arch, config.child.width, config.child.epochs = 1, width, 9
  config.child.update(recipe)
  space = search_config.get_space(config)
  images = search_config.load_images(config)
  aug = job_config.get_augmentation(config.data, images)
  evaluator = search_config.get_evaluator(config, space, images, aug)
  evaluator.training = FakeTraining(evaluator)
  return evaluator


def with_budgets(controller):
  """The controller; its proposals take 1 to 3 thirds of a training."""
  import dataclasses

  def ask(state, rng, n):
    proposals, state = controller.ask(state, rng, n)
    thirds = (1 + proposals.id * 7 % 3).astype(np.float32)
    return dataclasses.replace(proposals, budget=thirds / 3), state

  return controller._replace(ask=ask)


def asynchronous_search(folder, progress=None, eta=2, width=3):
  """Sixteen children of unequal budgets without rounds: the history's rows."""
  from nasnet_jax import controllers
  from nasnet_jax.search import asynchronous, halving, rounds

  settings = rounds.RoundSettings(
    16, 5, 3, halving=halving.HalvingSettings(eta), asynchronous=True
  )
  evaluator = fake_evaluator(width)
  controller = controllers.make("ppo", evaluator.space, batch_size=4, hidden=8)
  return asynchronous.run(
    pathlib.Path(folder),
    with_budgets(controller),
    evaluator,
    settings,
    progress=progress,
  )


def make_fake(config, space, images, aug):
  """In the place of `search_config.get_evaluator`."""
  del config, space, images, aug
  return FakeEvaluator()


def kill():
  """Nothing of Python runs after this."""
  os.kill(os.getpid(), signal.SIGKILL)


def at(n: int, action):
  """A function that calls `action` when it is called the n-th time."""
  count = 0

  def event():
    nonlocal count
    count += 1
    if count == n:
      action()

  return event


def before(module, name: str, event):
  """Has `event` called before each call of module.name."""
  original = getattr(module, name)

  def wrapped(*args, **kwargs):
    event()
    return original(*args, **kwargs)

  setattr(module, name, wrapped)


def plant(fault: str):
  """Arms a fault; see the top of this file."""
  from nasnet_jax.controllers import journal
  from nasnet_jax.search import console
  from nasnet_jax.training import checkpoint, workdir

  name, _, number = fault.partition(":")
  if name == "after":
    threading.Timer(float(number), kill).start()
    return
  n = int(number)
  if name in ("history", "ranking", "retrain"):
    _plant_half_write(workdir, f"{name}.jsonl", n)
  elif name == "journal":
    _plant_half_event(journal, n)
  elif name == "save":
    _plant_half_save(checkpoint.ocp.StandardCheckpointer, n)
  elif name == "train":
    before(console.Console, "in_round", at(n, kill))
  elif name == "fit":
    before(console.Console, "in_fit", at(n, kill))
  elif name.startswith("SIG"):
    stop = at(n, lambda: os.kill(os.getpid(), signal.Signals[name]))
    before(console.Console, "in_round", stop)
  elif name == "send":
    event = at(n, kill)
    bucket_class().before_write = lambda path: event()
  elif name == "result":
    original = workdir.write_json

    def write_json(path, value):
      if pathlib.Path(path).name == "result.json":
        kill()
      original(path, value)

    workdir.write_json = write_json
  else:
    raise ValueError(fault)


def _plant_half_write(workdir, file_name: str, n: int):
  original, count = workdir.append_lines, [0]

  def append(path, rows):
    original(path, rows)
    if pathlib.Path(path).name == file_name and _is_due(count, n):
      os.truncate(path, os.path.getsize(path) - 9)
      kill()

  workdir.append_lines = append


def _plant_half_save(checkpointer, n: int):
  original, count = checkpointer.save, [0]

  def save(self, directory, *args, **kwargs):
    if _is_due(count, n):
      path = pathlib.Path(directory)
      threading.Thread(target=_kill_amid, args=(path,), daemon=True).start()
    return original(self, directory, *args, **kwargs)

  checkpointer.save = save


def _kill_amid(path: pathlib.Path):
  """SIGKILL once Orbax has a first file of it, under its temporary name."""
  while not any(path.parent.glob(f"{path.name}.*tmp/*")):
    time.sleep(0.001)
  kill()


def bucket_class():
  """What gs:// is here, made once; everything is sent at once."""
  import fsspec

  from nasnet_jax.data import mirror

  if "gcs" not in fsspec.available_protocols() or mirror._SHARE < 1:
    spec = importlib.util.spec_from_file_location(
      "bucket", ROOT / "tests" / "bucket.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    mirror._SHARE = float("inf")
    return module.install(os.environ["BUCKET"])
  return fsspec.get_filesystem_class("gcs")


def _is_due(count: list[int], n: int) -> bool:
  count[0] += 1
  return count[0] == n


def _plant_half_event(journal, n: int):
  original, count = journal._append, [0]

  def append(path, event):
    original(path, event)
    if _is_due(count, n):
      os.truncate(path, os.path.getsize(path) - 9)
      kill()

  journal._append = append


def main(argv: list[str]):
  from nasnet_jax import report, search

  if argv[1] == "asynchronous":
    event = at(int(argv[3]), kill)
    asynchronous_search(argv[2], lambda *_: event())
    return
  if "BUCKET" in os.environ:
    bucket_class()
  config = tiny_config()
  for word in argv[2:]:
    field, equals, value = word.partition("=")
    if equals:
      config.update_from_flattened_dict({field: json.loads(value)})
    else:
      plant(word)
  report.write_report = lambda folder: pathlib.Path(
    folder, "report.html"
  ).touch()
  start = time.monotonic()
  search.run(config, argv[1], make_evaluator=make_fake)
  print(f"done in {time.monotonic() - start:.1f} s")


if __name__ == "__main__":
  from nasnet_jax.cli import entry

  entry.run(main)
