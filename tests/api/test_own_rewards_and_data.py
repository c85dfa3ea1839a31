"""Rewards and data sources out of a user's own file."""

import json
import time

import numpy as np
import pytest

import nasnet_jax as nas
from nasnet_jax import data
from nasnet_jax.api import given_images, parts, searching
from nasnet_jax.cli import own_files, shipped
from nasnet_jax.data.image_data import ImageData
from nasnet_jax.jobs import job_config
from nasnet_jax.population.evaluation import Outcome
from nasnet_jax.search import rewards, rounds, search_config
from nasnet_jax.training import own_parts, workdir


@pytest.fixture(autouse=True)
def _forget():
  yield
  rewards.OWN.clear()
  for name in {*data.SOURCES} - parts.OURS["data source"]:
    del data.SOURCES[name]
  own_parts.forget()


def small(row):
  """Accuracy, less a little for parameters."""
  return row["accuracy"] - row["params"] / 1e8


def bars(data_dir=None, *, seed: int = 0, noise: int = 100) -> ImageData:
  """Bars that stand or lie."""
  rng = np.random.default_rng(seed)
  labels = rng.integers(2, size=300).astype(np.int32)
  images = rng.integers(0, noise, (300, 8, 8, 1)).astype(np.uint8)
  for image, label in zip(images, labels):
    image[3 if label else slice(None), :: 1 if label else 8] += 100
  halves = (images[:200], labels[:200], images[200:], labels[200:])
  return ImageData(*halves, ("lying", "upright"), name="bars")


class _Evaluator:
  """Accuracies of the seeds."""

  def evaluate(self, decisions, seeds, budgets, progress=None):
    return [
      Outcome(float("nan") if seed % 5 == 0 else seed % 7 / 7, 0, 1, 0.1, 9, 8)
      for seed in seeds.tolist()
    ]


def _config(**reward):
  config = shipped.config("search_cifar:tiny").unlock()
  config.search.reward.update(reward)
  return config


def test_a_strategy_is_told_what_the_function_says(tmp_path):
  nas.reward("small")(lambda row: row["accuracy"] - row["params"])
  settings = search_config.round_settings(_config(kind="small"))
  config = _config()
  space = search_config.get_space(config)
  controller = search_config.get_controller(config, space)
  settings = settings._replace(children=9, children_per_round=3)
  rows = rounds.run(tmp_path, controller, _Evaluator(), settings)
  assert len({row["status"] for row in rows}) == 2  # some failed
  for row in rows:
    expected = None if row["accuracy"] is None else row["accuracy"] - 9
    assert row["reward"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
  ("function", "reward", "words"),
  [
    (lambda row: row["latency"], {}, r"has no 'latency', only accuracy"),
    (lambda row: 1 / 0, {}, "your function: ZeroDivisionError"),
    (lambda row: "high", {}, "your function: ValueError: could not convert"),
    (small, {"target": 3.0}, "takes no target, alpha or beta"),
    (small, {"cost": "flops"}, "search.reward.cost is 'flops'"),
  ],
)
def test_a_function_that_cannot_be_a_reward_is_refused_before_the_search(
  function, reward, words
):
  nas.reward("mine")(function)
  with pytest.raises(ValueError, match=words) as caught:
    search_config.round_settings(_config(kind="mine", **reward))
  assert "\n" not in str(caught.value)


def test_latency_is_in_the_row_where_the_config_says_so():
  nas.reward("quick")(lambda row: -row["latency"])
  settings = search_config.round_settings(_config(kind="quick", cost="latency"))
  assert settings.reward(0.5, {"latency": 0.25}) == -0.25
  config = _config(kind="quick", cost="latency")
  assert search_config.get_costs(config).also == "latency"


def test_an_unknown_reward_says_how_ones_own_comes_in():
  nas.reward("small")(small)
  with pytest.raises(ValueError, match=r"mean 'small'.*--import=FILE"):
    search_config.get_reward(_config(kind="smal"))
  with pytest.raises(ValueError, match="is the library's"):
    nas.reward("accuracy")
  assert nas.check("small") == (
    "reward 'small': 0.49 for {'accuracy': 0.5, 'params': 1000000, 'macs':"
    " 10000000}"
  )
  nas.reward("loose")(lambda row: np.random.default_rng().uniform())
  with pytest.raises(ValueError, match="function of the row alone"):
    nas.check("loose")


def test_a_call_takes_a_function():
  made = _config()
  searching._take_reward(made, small, None)
  assert search_config.get_reward(made)(0.5, {"params": 1e8}) == -0.5
  searching._take_reward(made, {"kind": "small", "cost": "macs"}, None)
  assert search_config.get_reward(made).cost == "macs"


def _part(tmp_path, name: str, text: str, helper: str = "A = 1\n") -> dict:
  """What a run says of the reward of this file."""
  (tmp_path / f"{name}_help.py").write_text(helper)
  (tmp_path / f"{name}.py").write_text(
    f"import nasnet_jax as nas\nimport {name}_help\n"
    f"@nas.reward('r')\ndef r(row):\n  return {text}\n"
  )
  own_files.load(str(tmp_path / f"{name}.py"))
  found = own_parts.of({"reward": ["r", "accuracy"]})
  found["own_parts"]["reward"]["r"]["is"] = "the same"
  return found


def test_a_changed_reward_is_refused_and_a_changed_helper_told(
  tmp_path, caplog
):
  first = _part(tmp_path, "nas_own_a", "1.0")
  config = tmp_path / "config.json"
  own_parts.check(config, first)  # of a new run
  workdir.write_json(config, first)
  own_parts.check(config, first)
  assert not caplog.text
  own_parts.check(config, _part(tmp_path, "nas_own_b", "1.0", "A = 2\n"))
  assert "of reward 'r' (the same), or one that it uses, is not" in caplog.text
  with pytest.raises(ValueError, match="begun with another reward 'r'"):
    own_parts.check(config, _part(tmp_path, "nas_own_c", "2.0"))


def test_a_source_of_ones_own_is_a_source_of_configs():
  nas.data_source("bars")(bars)
  config = _config()
  config.data.source, config.data.num_valid = "bars", 50
  config.data.max_per_class = None
  config.data.options.noise = 2  # a field that one's own config adds
  images = job_config.load_images(config.data, [16])
  assert images.train.images[..., 0].min() < 2
  assert images.class_names == ("lying", "upright")
  found = search_config.own_parts(config, None)["own_parts"]
  assert found["data source"]["bars"]["is"] == f"{__name__}:bars"
  with pytest.raises(ValueError, match="no option 'nose': did you mean"):
    data.load("bars", nose=3)
  assert "200 images to train on and 100 to test" in nas.check("bars")


@pytest.mark.parametrize(
  ("function", "words"),
  [
    (lambda data_dir: (1, 2), "gives tuple: it has to be an ImageData"),
    (
      lambda data_dir: bars()._replace(train_images=np.zeros((200, 8, 8, 1))),
      "images must be uint8",
    ),
    (lambda data_dir: bars(seed=time.time_ns() % 999), "other images each"),
  ],
)
def test_a_source_that_gives_something_else_is_refused(function, words):
  nas.data_source("odd")(function)
  with pytest.raises(ValueError, match=words):
    nas.check("odd")


def test_a_source_whose_options_have_no_names_is_refused():
  with pytest.raises(ValueError, match="all else by keyword only"):
    nas.data_source("odd")(lambda data_dir, noise: None)
  with pytest.raises(ValueError, match="is the library's"):
    nas.data_source("digits")
  with pytest.raises(ValueError, match="one of your own: --import=FILE"):
    data.load("bars")


def test_a_call_takes_a_source_by_name_or_what_it_gives():
  nas.data_source("bars")(bars)
  named = given_images.take("bars", None, 0.2, None, 0)
  given = given_images.take(bars(), None, 0.2, None, 0)
  assert named.images.fingerprint == given.images.fingerprint
  assert len(named.images.test_images) == 100
  pair = given_images.take(
    "bars", None, (bars().test_images, bars()[3]), None, 0
  )
  assert pair.valid == 100
  with pytest.raises(ValueError, match="test: the data source has its own"):
    given_images.take("bars", None, 0.2, 0.3, 0)


def test_a_search_tells_its_own_reward_in_its_result(tmp_path):
  result = {
    "winner": {"genotype": {"cell": [["mine", 0]]}},
    "own_parts": {
      "operation": {
        "mine": {"is": "my_parts:Mine", "source": "1", "files": "2"},
        "unused": {"is": "my_parts:Unused", "source": "1", "files": "2"},
      }
    },
  }
  with pytest.raises(ValueError, match="is my_parts:Mine: import that file"):
    own_parts.need(json.loads(json.dumps(result)))
