"""A study whose folder is an address."""

import numpy as np

import nasnet_jax as nas

PLACE = "gs://bucket/study"


def _reward(child):
  return -float(np.sum(child.decisions))


def test_a_study_goes_on_from_the_bucket_on_another_machine(
  bucket, tmp_path, monkeypatch
):
  given = {"space": [3, 3, 4], "strategy": "random_search", "seed": 0}
  whole = nas.Study(tmp_path / "here", **given)
  whole.run(_reward, children=6)
  study = nas.Study(PLACE, **given)
  study.run(_reward, children=3)
  study.close()
  monkeypatch.setenv("NASNET_JAX_CACHE", str(tmp_path / "other"))
  study = nas.Study(PLACE)
  assert len(study.children) == 3
  study.run(_reward, children=6)
  study.close()
  keep = ("id", "decisions", "reward")
  for one, other in zip(study.children, whole.children, strict=True):
    assert [one[k] for k in keep] == [other[k] for k in keep]
  # Its working folder stands for it, and its page is sent as well.
  assert len(nas.Study(study.folder).children) == 6
  nas.report(PLACE)
  page = bucket.top / "bucket/study/report.html"
  assert "6" in page.read_text()
  whole.close()
