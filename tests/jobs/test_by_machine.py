"""What a machine chooses, what it leaves alone, and what a run goes on with."""

import json
import pathlib

import pytest

from nasnet_jax.cli import shipped
from nasnet_jax.jobs import by_machine
from nasnet_jax.jobs.by_machine import Child, Machine, Training
from nasnet_jax.preflight import chips, known_data
from nasnet_jax.search import job, search_config
from nasnet_jax.training import workdir

ROOT = pathlib.Path(__file__).parents[2]
CPU = Machine("cpu", "cpu", 2)
TPU = Machine("tpu", "TPU v5 lite", 4, 16 * 2**30)
# Cells of the paper's child, as (features, side of the output).
MAPS = ((32, 32),) * 2 + ((64, 16),) * 3 + ((128, 8),) * 3


def _machines():
  yield "CPU", CPU
  yield "GPU of 80 GiB", Machine("gpu", "H100", 1, 80 * 2**30)
  for name, count in (("v5e", 4), ("v5p", 4), ("v6e", 4), ("v5e", 16)):
    chip = chips.CHIPS[name]
    yield f"{count} x {name}", Machine("tpu", name, count, chip.hbm)


def _search(name, machine, before=None, **fields):
  config = shipped.config(name)
  config.mesh.arch = 0
  config.update_from_flattened_dict(fields)
  if "path" in config.data.options and config.data.options.path:  # no file
    shape = (config.data.options.image_size,) * 2 + (3,)
    train = known_data.in_memory(4000, shape)
    images = known_data.images_of(shipped.config("search_cifar"), (1,))
    images = images._replace(train=train)
  else:
    images = known_data.images_of(config, (1,))
  space = search_config.get_space(config)
  return search_config.resolve(config, space, images, machine, before)


def _table():
  """Markdown, as in docs/speed.md."""
  names = ("fold", "width", "steps_per_call", "eval_batch_size")
  yield (
    "| machine | config | "
    + " | ".join(f"`child.{n}`" for n in names)
    + (" | `train.steps_per_call` of `train_cifar` |")
  )
  yield "|" + "---|" * 7
  train = shipped.config("train_cifar")
  for said, machine in _machines():
    trained = by_machine.for_train(train, machine, 50_000, "memory").config
    for name in ("search_cifar", "search_cifar:small"):
      found = _search(name, machine).config.child
      cells = [said, f"`{name}`", *(str(found[n]) for n in names)]
      yield f"| {' | '.join(cells)} | {trained.train.steps_per_call} |"


def test_the_table_in_the_docs_is_what_is_chosen():
  text = (ROOT / "docs" / "speed.md").read_text()
  assert "\n".join(_table()) in text, "\n" + "\n".join(_table())


# --- a CPU does what it always did -------------------------------------------


@pytest.mark.parametrize("name", shipped.names())
def test_a_cpu_chooses_what_configs_said_before(name):
  config = shipped.config(name)
  if config.job == "search":
    groups = ("child", "final")
    found = by_machine.for_search(config, CPU, 1000, MAPS, 5).config
  else:
    groups = ("train",)
    kinds = {"detect": "pictures"}
    stream = "stream" if "stream" in config.data else "memory"
    source = kinds.get(config.job, stream)
    found = by_machine.for_train(config, CPU, 1000, source).config
  for group in groups:
    given, fields = config[group], found[group]
    assert fields.steps_per_call == 1
    base = 500
    if "stream" in config.data:
      base = 1 if config.job == "detect" else 200
    assert fields.eval_batch_size == (given.eval_batch_size or base)
  if config.job == "search":
    assert (found.child.fold, found.child.width) == (1, 1)


def test_an_unknown_platform_is_taken_for_a_cpu():
  child = Child(1406, 32, 1, MAPS, 5, 2, 256)
  cpu = by_machine.for_child(CPU, child)
  other = Machine("METAL", "M4", 2, 2**37)
  assert by_machine.for_child(other, child) == cpu
  assert cpu == {
    "fold": 1,
    "width": 1,
    "steps_per_call": 1,
    "eval_batch_size": 500,
  }


# --- given values win, and the others fit them -------------------------------


def test_what_is_given_stays_and_the_rest_fits_it():
  found = _search("search_cifar", TPU, **{"child.eval_batch_size": 250})
  assert found.config.child.eval_batch_size == 250
  assert found.config.child.fold == 2  # 250 divides by 2, not by 4
  assert "eval_batch_size=250" not in found.words[0]
  found = _search("search_cifar", TPU, **{"child.fold": 8})
  assert found.config.child.fold == 8
  assert found.config.child.eval_batch_size == 496
  assert "child.fold" not in found.words[0]


@pytest.mark.parametrize(
  ("features", "batch", "data", "fold"),
  [
    (32, 32, 1, 4),
    (32, 128, 1, 4),
    (8, 64, 1, 8),  # more would leave rows of a register without an example
    (8, 128, 1, 16),
    (44, 32, 1, 2),
    (128, 32, 1, 1),
    (32, 32, 4, 1),
    (32, 64, 4, 2),
    (32, 36, 1, 4),
    (32, 33, 1, 1),
  ],
)
def test_a_tpus_fold_fills_lanes_and_leaves_rows(features, batch, data, fold):
  child = Child(10, batch, data, ((features, 32),))
  found = by_machine.for_child(TPU, child)
  assert found["fold"] == fold
  assert batch // data % fold == found["eval_batch_size"] % (data * fold) == 0


def test_small_maps_are_not_folded():
  """As the compiler's cycles say of `search_digits:tiny`."""
  assert _search("search_digits", TPU).config.child.fold == 1
  child = Child(10, 64, maps=((8, 11),))
  assert by_machine.for_child(TPU, child)["fold"] == 1
  child = child._replace(maps=((8, 12),))
  assert by_machine.for_child(TPU, child)["fold"] == 8


def test_children_without_cells_are_not_folded():
  found = _search("search_mnasnet", TPU)
  assert found.config.child.fold == found.config.child.width == 1
  assert found.config.child.steps_per_call > 1


def test_evaluation_divides_over_the_devices_of_a_batch():
  for source, whole in (("memory", 496), ("stream", 192), ("pictures", 16)):
    found = by_machine.for_training(TPU, Training(10, 16, source))
    assert found["eval_batch_size"] == whole


def test_a_stream_gives_one_batch_per_call():
  for source, steps in (("memory", 10), ("stream", 1), ("pictures", 1)):
    found = by_machine.for_training(TPU, Training(10, 1, source))
    assert found["steps_per_call"] == steps


def test_a_call_is_no_longer_than_the_first_rung():
  half = {"search.halving.eta": 3, "search.halving.min_epochs": 0.5}
  assert _search("search_cifar", TPU, **half).config.child.steps_per_call == 703
  two = {**half, "search.halving.min_epochs": 2.0}
  assert _search("search_cifar", TPU, **two).config.child.steps_per_call == 1406


# --- children at once --------------------------------------------------------


def test_children_at_once_even_out_waiting_but_leave_no_slot_empty():
  def width(arch, per_round, memory=16 * 2**30):
    child = Child(1406, 32, 1, MAPS, 5, arch, per_round)
    return by_machine.for_child(TPU._replace(memory=memory), child)["width"]

  assert width(1, 256) == 1  # nobody waits
  assert width(4, 20) == 1  # 5 turns are less than 3 of two children each
  assert width(256, 20) == 1
  assert width(64, 256) == 4
  assert width(64, 256, memory=3 * 2**30) == 2
  assert width(64, 256, memory=None) == 1
  assert width(64, 0) == 1  # without rounds


@pytest.mark.parametrize(
  ("width", "waiting"), [(1, 1.26), (2, 1.17), (4, 1.11), (8, 1.08)]
)
def test_the_waiting_is_that_of_the_compiled_search(width, waiting):
  """docs/pods.md, from the branches that random children take."""
  child = Child(1, 32, arch=256, per_round=256 * width)
  assert by_machine._round(child, width) / width == pytest.approx(
    waiting, abs=0.025
  )


@pytest.mark.parametrize(
  ("row", "batch", "fold"),
  [
    ("search_cifar_v5e_1x1", 32, 1),
    ("search_cifar_folded_v5e_1x1", 32, 4),
    ("search_cifar_folded_128_v5e_1x1", 128, 4),
  ],
)
def test_the_estimate_of_a_childs_memory_is_near_the_compilers(
  row, batch, fold
):
  file = ROOT / "docs" / "results" / "preflight" / f"{row}.json"
  hbm = json.loads(file.read_text())["hbm"]
  images = 45_000 * 32 * 32 * 3
  taken = hbm["arguments"] - images + hbm["temporary"]
  child = Child(1, batch, maps=MAPS)
  assert by_machine.child_bytes(TPU, child, fold) == pytest.approx(
    taken, rel=0.1
  )


# --- a run that goes on ------------------------------------------------------


def _before(machine, **fields):
  return _search("search_cifar", machine, **fields).config.to_dict()


def test_a_run_that_goes_on_elsewhere_keeps_what_changes_numbers():
  before = _before(CPU)
  found = _search("search_cifar", TPU, before)
  child = found.config.child
  assert (child.fold, child.width, child.eval_batch_size) == (1, 1, 500)
  assert child.steps_per_call == 1406  # of which no number depends
  assert found.config.final.steps_per_call == 1
  chosen, kept = found.words
  assert "child.steps_per_call=1406 (an epoch)" in chosen
  assert "child.fold" not in chosen
  assert "child.fold=1 (4 would be chosen for 4 x TPU v5 lite)" in kept
  back = _search("search_cifar", CPU, found.config.to_dict())
  assert back.config.child.steps_per_call == 1
  assert len(back.words) == 1  # nothing would be chosen otherwise


@pytest.mark.parametrize(
  "fields", [{"search.asynchronous": True}, {"search.halving.eta": 3}]
)
def test_updates_per_call_stay_where_calls_are_counted(fields):
  found = _search("search_cifar", TPU, _before(CPU, **fields), **fields)
  assert found.config.child.steps_per_call == 1
  assert by_machine.may_change(found.config) == ()
  assert "child.steps_per_call=1 (1406 would be chosen" in found.words[-1]


def test_a_run_from_before_a_field_was_there_goes_on_as_it_was():
  before = _before(CPU)
  del before["child"]["fold"]
  assert _search("search_cifar", TPU, before).config.child.fold == 1
  config = shipped.config("train_cifar")
  before = by_machine.for_train(config, CPU, 50_000, "memory").config.to_dict()
  found = by_machine.for_train(config, TPU, 50_000, "memory", before)
  assert found.config.train.steps_per_call == 1
  assert found.words == (
    "kept as the run began, since it changes numbers: train.steps_per_call=1"
    " (1562 would be chosen for 4 x TPU v5 lite)",
  )


class _Images:
  fingerprint, split = "f", "plain"


def test_the_folder_has_what_was_chosen_and_takes_another_call(tmp_path):
  first = _search("search_cifar", CPU).config
  job._claim(tmp_path, first, _Images)
  written = json.loads((tmp_path / "config.json").read_text())
  assert written["child"]["fold"] == written["child"]["steps_per_call"] == 1
  job._claim(tmp_path, _search("search_cifar", TPU, written).config, _Images)
  again = json.loads((tmp_path / "config.json").read_text())
  assert again["child"]["steps_per_call"] == 1406
  fresh = _search("search_cifar", TPU).config  # does not ask the folder
  with pytest.raises(workdir.WorkdirError, match=r"child\.width|child\.fold"):
    job._claim(tmp_path, fresh, _Images)


def test_every_job_has_its_settings_chosen(harness_config, monkeypatch):
  """Of the machine that JAX has, by the parts of a search."""
  from nasnet_jax.search.parts import prepare

  monkeypatch.setattr(by_machine, "machine_of", lambda: TPU)
  seen = []

  def evaluator(config, *_):
    seen.append(config)
    return object()

  parts = prepare(harness_config, evaluator)
  assert parts.config is seen[0] and parts.config.child.fold == 1
  assert parts.final.final.steps_per_call == parts.config.final.steps_per_call
  assert parts.final.final.steps_per_call > 1
  assert harness_config.child.fold == 0  # the one given stays as it was
  assert parts.chosen[0].startswith("chosen for 4 x TPU v5 lite: child.fold=1")


@pytest.fixture
def harness_config():
  config = shipped.config("search_digits:tiny")
  config.child.eval_batch_size = 0
  return config
