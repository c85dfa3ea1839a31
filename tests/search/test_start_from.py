"""A search that starts from the children of another one."""

import shutil

import pytest

import nasnet_jax as nas
from nasnet_jax.search import job, parts, rounds, search_config

_CHOICES = [3, 3, 4]


def _reward(child) -> float:
  return sum(child.decisions) / 7


def _other(folder, space=_CHOICES, children=9):
  study = nas.Study(folder, space=space, strategy="random_search")
  study.run(_reward, children=children)
  return study


def _open(folder, other, **changes):
  given = {"space": _CHOICES, "strategy": "evolution", "population": 5}
  return nas.Study(folder, start_from=other, **{**given, **changes})


@pytest.mark.parametrize(
  ("strategy", "options"),
  [("evolution", {"population": 5}), ("predictor_search", {"steps": 2})],
)
def test_it_goes_on_alike_when_the_other_has_grown_or_is_gone(
  tmp_path, strategy, options
):
  given = {"strategy": strategy, "space": _CHOICES, **options}
  other = _other(tmp_path / "other")
  whole = nas.Study(tmp_path / "whole", start_from=other, **given)
  whole.run(_reward, children=8)
  parts_ = nas.Study(tmp_path / "parts", start_from=other.folder, **given)
  parts_.run(_reward, children=3)
  parts_.close()
  other.run(_reward, children=12)
  again = nas.Study(tmp_path / "parts", start_from=other.folder, **given)
  again.run(_reward, children=5)
  again.close()
  shutil.rmtree(other.folder)
  nas.Study(tmp_path / "parts").run(_reward, children=8)
  for name in ("history", "journal"):
    found = [
      (tmp_path / folder / f"{name}.jsonl").read_bytes()
      for folder in ("whole", "parts")
    ]
    assert found[0] == found[1]


def test_the_first_child_is_bred_from_the_others(tmp_path):
  other = _other(tmp_path / "other")
  study = _open(tmp_path / "new", other, population=9, sample=9, identity=1.0)
  # Of nine drawn of nine, the best of whoever was drawn is among the others.
  known = [row["decisions"] for row in other.children]
  asked = study.ask(4)
  assert all(list(child.decisions) in known for child in asked)
  assert [child.id for child in asked] == [0, 1, 2, 3]
  assert study.children == []  # those of the other are not its own


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"space": [3, 3, 5]}, r"searched another space, 'list' num_choices"),
    ({"strategy": "ppo"}, "strategy 'ppo' cannot learn from children"),
    ({"strategy": "random_search"}, "take evolution, genetic, local_search"),
  ],
)
def test_what_cannot_be_learnt_from_is_one_line_and_leaves_no_folder(
  tmp_path, changes, words
):
  other = _other(tmp_path / "other")
  given = {"strategy": "evolution", "space": _CHOICES, **changes}
  with pytest.raises(ValueError, match=words) as caught:
    nas.Study(tmp_path / "new", start_from=other, **given)
  assert "\n" not in str(caught.value)
  assert not (tmp_path / "new").exists()


def test_a_folder_without_a_search_or_a_child_is_one_line(tmp_path):
  with pytest.raises(ValueError, match="start_from: no such folder"):
    _open(tmp_path / "new", tmp_path / "nowhere")
  (tmp_path / "empty").mkdir()
  with pytest.raises(ValueError, match=r"start_from: .* has no run in it"):
    _open(tmp_path / "new", tmp_path / "empty")
  study = nas.Study(tmp_path / "other", space=_CHOICES)
  study.run(lambda child: None, children=2)
  with pytest.raises(ValueError, match="no child that succeeded"):
    _open(tmp_path / "new", study)
  with pytest.raises(ValueError, match="give its space, too"):
    nas.Study(tmp_path / "other", start_from=study)


def test_another_start_in_the_same_folder_is_refused(tmp_path):
  first, second = _other(tmp_path / "a"), _other(tmp_path / "b")
  _open(tmp_path / "new", first).close()
  with pytest.raises(ValueError, match="start_from was"):
    _open(tmp_path / "new", second)
  with pytest.raises(ValueError, match="start_from was"):
    _open(tmp_path / "new", None)
  (tmp_path / "new" / "start_from.jsonl").write_text(
    '{"decisions": [0, 0, 0], "reward": 9.0}\n'
  )
  with pytest.raises(ValueError, match=r"known\.children was 9 and"):
    _open(tmp_path / "new", first)


def _config(harness, other):
  config = harness.tiny_config()
  config.search.controller = "evolution"
  config.search.start_from = str(other)
  return config


def _begin(harness, folder, config):
  """What a search does before its first round."""
  folder.mkdir(exist_ok=True)
  made, known = job._taught(
    folder, config, parts.prepare(config, harness.make_fake)
  )
  job._claim(folder, config, made.images, known)
  return made


def test_a_config_does_the_same(harness, tmp_path, caplog):
  space = search_config.get_space(harness.tiny_config())
  other = _other(tmp_path / "other", space).folder
  config = _config(harness, other)
  whole = _begin(harness, tmp_path / "whole", config)
  assert "job was 'by_hand' and is now 'search'" in caplog.text
  evaluator = harness.FakeEvaluator()
  rounds.run(tmp_path / "whole", whole.controller, evaluator, whole.rounds)
  folder = tmp_path / "parts"
  made = _begin(harness, folder, config)
  less = made.rounds._replace(children=6)
  rounds.run(folder, made.controller, evaluator, less)
  shutil.rmtree(other)
  made = _begin(harness, folder, config)
  rounds.run(folder, made.controller, evaluator, made.rounds)
  journals = [
    (tmp_path / f / "journal.jsonl").read_text() for f in ("whole", "parts")
  ]
  assert journals[0] == journals[1]
  config.search.start_from = ""
  with pytest.raises(ValueError, match="learns from it before its first child"):
    _begin(harness, folder, config)
  config.search.controller, config.search.start_from = "ppo", str(folder)
  with pytest.raises(ValueError, match="strategy 'ppo' cannot learn"):
    _begin(harness, tmp_path / "third", config)
