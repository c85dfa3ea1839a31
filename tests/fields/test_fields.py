"""Groups of fields: complete, the papers', and good for runs of before."""

import ast
import dataclasses
import inspect
import pathlib
import re

import pytest

from nasnet_jax import controllers, data, fields
from nasnet_jax.cli import shipped
from nasnet_jax.data import photographs
from nasnet_jax.detection import pictures
from nasnet_jax.jobs import by_machine, run_log, scale, train
from nasnet_jax.population import population
from nasnet_jax.search import search_config
from nasnet_jax.training import recipes, workdir

# Names of files and functions that look like fields.
FILES = ("data.yaml", "network.predict", "search.load_winner")
CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
# With a variant of each kind of data.
NAMES = (*shipped.names(), "finetune:photographs", "scale_grid:cell")


def _sources(config):
  """The loaders that the config can name as data.source."""
  if config.job == "detect":
    return pictures.SOURCES
  return photographs.SOURCES if "stream" in config.data else data.SOURCES


def _options(function) -> dict:
  parameters = inspect.signature(function).parameters.values()
  return {p.name: p.default for p in parameters if p.kind == p.KEYWORD_ONLY}


@pytest.mark.parametrize("name", NAMES)
def test_whatever_a_source_takes_or_a_message_of_it_advises_is_a_field(name):
  config = shipped.config(name)
  for source, loader in _sources(config).items():
    for option in _options(loader):
      where = config.data if option == "seed" else config.data.options
      assert option in where, f"{source} takes {option}"
  # Arguments of data.load, in the messages of all that it reads.
  if config.job != "detect" and "stream" not in config.data:
    assert {"fraction", "max_per_class", "num_valid"} <= {*config.data}


# Whose messages a config can meet. Of networks and spaces each has others, so
# that their fields are only looked for in one config at least.
MESSAGES = {
  "data/": lambda job, streams: job != "detect" and not streams,
  "data/photo": lambda job, streams: job != "detect" and streams,
  "detection/": lambda job, streams: job == "detect",
  "jobs/detect": lambda job, streams: job == "detect",
  "jobs/scale": lambda job, streams: job == "scale",
  "jobs/train": lambda job, streams: job == "train",
  "search/": lambda job, streams: job == "search",
}
SOME = ("network.", "space.", "model.")
# Not advised: what a check says of a field, which only those meet that have it.
HAS_IT = ("train.patience_epochs", "final.network.aux")


def _flat(fields: dict, prefix: str = "") -> set[str]:
  found = set()
  for name, value in fields.items():
    found.add(prefix + name)
    if isinstance(value, dict):
      found |= _flat(value, f"{prefix}{name}.")
  return found


def _in_messages(file: pathlib.Path, tops) -> set[str]:
  """Fields of configs by their whole names, in the sentences of a module that
  are no docstrings."""
  tree = ast.parse(file.read_text())
  docs = [
    node.value
    for node in ast.walk(tree)
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
  ]
  texts = [
    node.value
    for node in ast.walk(tree)
    if isinstance(node, ast.Constant)
    and isinstance(node.value, str)
    and " " in node.value  # or it is a name in a list
    and node not in docs
  ]
  form = rf"(?<![\w./'-])(?:config\.)?((?:{'|'.join(tops)})(?:\.[a-z_0-9]+)+)"
  return {name for text in texts for name in re.findall(form, text)}


def test_every_field_that_a_message_names_is_one_of_whoever_can_meet_it():
  configs = {}
  for name in NAMES:
    config = shipped.config(name)
    meets = config.job, "stream" in config.data
    configs[name] = (*meets, _flat(config.to_dict()))
  tops = {
    field.partition(".")[0] for *_, fs in configs.values() for field in fs
  }
  package = pathlib.Path(train.__file__).parents[1]
  wrong, seen = [], 0
  for file in package.rglob("*.py"):
    part = file.relative_to(package).as_posix()
    keys = [key for key in MESSAGES if part.startswith(key)]
    if not keys:
      continue
    meets = MESSAGES[max(keys, key=len)]
    for field in _in_messages(file, sorted(tops)) - {*FILES, *HAS_IT}:
      seen += 1
      lack = [
        n for n, (*m, fs) in configs.items() if meets(*m) and field not in fs
      ]
      some = any(field in fs for *_, fs in configs.values())
      if lack and not (field.startswith(SOME) and some):
        wrong.append(f"{part}: {field} is no field of {', '.join(lack)}")
  assert seen > 40
  assert not wrong


@pytest.mark.parametrize("name", NAMES)
def test_no_option_is_a_field_that_no_source_takes(name):
  config = shipped.config(name)
  taken = {o for f in _sources(config).values() for o in _options(f)}
  assert {*config.data.options} <= taken


def test_strategies_have_the_defaults_of_their_functions():
  options = fields.strategies.options()
  assert {*options} == {*controllers.CONTROLLERS}
  for name, factory in controllers.CONTROLLERS.items():
    defaults = _options(factory)
    assert options[name].to_dict().items() <= defaults.items(), name


@pytest.mark.parametrize("name", shipped.names())
def test_a_config_is_its_manual_and_at_most_80_lines(name):
  text = (CONFIGS / f"{name}.py").read_text()
  header = ast.parse(text).body[0].end_lineno
  assert len(text.splitlines()) - header <= 80
  for word in ("Paper:", "Data:", "Command:", "Hardware:", "Result:"):
    assert word in text


# Fields that configs of before did not have.
_OPTIONS = ("note", "test_fraction", "num_test", "download", "train_split")
_YOUNG = {
  "search_digits:tiny": (
    "child.dtype",
    "child.fold",
    "child.kernels",
    "search.controller_options.ppo.entropy_weight",
    "search.controller_options.ppo.baseline_decay",
    "search.controller_options.progressive.members",
    "search.controller_options.progressive.learning_rate",
    "search.controller_options.predictor_search.max_children",
    *(f"search.{name}" for name in ("hours", "epochs", "patience")),
    *(f"search.limit.{name}" for name in ("params", "macs", "bytes")),
    *(f"search.{name}" for name in ("scores", "score_images")),
    *(f"search.{name}" for name in ("prefilter", "prefilter_score")),
    "final.now",
    "callbacks",
    *(f"data.options.{name}" for name in _OPTIONS),
  ),
  "train_cifar:tiny": ("data.options.test_fraction", "data.options.download"),
  "scale_grid": (
    "data.augmentation.cutout",
    "data.augmentation.layers",
    "data.augmentation.magnitude",
    "data.options.num_images",
  ),
  "detect_voc": ("data.options.name",),
}
_CLAIMS = {
  "search": lambda: (search_config.MAY_CHANGE, search_config.absent()),
  "train": lambda: (train.MAY_CHANGE,),
  "detect": lambda: (train.MAY_CHANGE,),
  "scale": lambda: (scale.MAY_CHANGE, scale.ABSENT),
}


def _chosen(config):
  """With what a CPU chooses, as a job has it in config.json."""
  cpu = by_machine.Machine("cpu", "cpu", 1)
  if config.job == "search":
    return by_machine.for_search(config, cpu, 1000, (), 0).config
  return by_machine.for_train(config, cpu, 1000, "memory").config


@pytest.mark.parametrize("name", _YOUNG)
def test_a_run_of_before_a_field_was_there_goes_on(name, tmp_path):
  config = _chosen(shipped.config(name))
  path, arguments = tmp_path / "config.json", _CLAIMS[config.job]()
  old = run_log.recorded(config)
  for field in _YOUNG[name]:
    *groups, last = field.split(".")
    group = old
    for part in groups:
      group = group[part]
    del group[last]
  workdir.claim(path, old, *arguments)
  workdir.claim(path, run_log.recorded(config), *arguments)
  config.data.source = "elsewhere"
  with pytest.raises(workdir.WorkdirError, match=r"data\.source"):
    workdir.claim(path, run_log.recorded(config), *arguments)


def test_a_field_that_was_not_there_may_not_say_something_else(tmp_path):
  config = _chosen(shipped.config("search_digits:tiny"))
  old = run_log.recorded(config)
  del old["child"]["fold"]
  path, arguments = tmp_path / "config.json", _CLAIMS["search"]()
  workdir.claim(path, old, *arguments)
  config.child.fold = 2
  with pytest.raises(workdir.WorkdirError, match=r"fold was 'not there'"):
    workdir.claim(path, run_log.recorded(config), *arguments)


@pytest.mark.parametrize(
  ("group", "recipe"),
  [
    (fields.recipes.nasnet_cifar(), recipes.Recipe),
    (fields.recipes.efficientnet(), recipes.Recipe),
    (fields.recipes.detection(), recipes.Recipe),
    (fields.recipes.child(), population.ChildRecipe),
  ],
)
def test_every_field_of_a_recipe_is_one_of_the_training(group, recipe):
  known = {field.name for field in dataclasses.fields(recipe)}
  others = {"seed", "checkpoint_seconds", "bn_group"}  # of the job, of networks
  assert {*group} - others <= known


def test_the_quick_search_of_digits_is_the_default_that_stops_early():
  search, quick = map(shipped.config, ("search_digits", "search_digits:quick"))
  assert quick.search.epochs <= search.search.children * search.child.epochs / 3
  assert quick.search.halving.eta > 1
  quick.search.epochs, quick.search.halving = 0.0, search.search.halving
  quick.search.controller = search.search.controller  # measured with another
  quick.final.top_k = search.final.top_k
  quick.final.rank_epochs = search.final.rank_epochs
  quick.final.rank_together = search.final.rank_together
  assert quick == search
