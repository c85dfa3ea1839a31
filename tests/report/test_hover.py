"""What drawings of cells say under a pointer."""

import html.parser
import json
import shutil

import numpy as np
import pytest

from nasnet_jax import report, spaces, zoo
from nasnet_jax.report import hover

SPACE = spaces.get("nasnet")
OPERATIONS = list(SPACE.operations)
NORMAL = SPACE.to_json(zoo.cells.genotype("nasnet_a"))["cells"]["normal"]


def _costs(seed=0):
  """[states][operations][2], all different."""
  rng = np.random.default_rng(seed)
  return rng.integers(0, 10**6, (7, len(OPERATIONS), 2)).tolist()


def test_an_operation_says_what_it_reads_and_what_it_costs():
  costs = _costs()
  said = hover.tips(NORMAL, OPERATIONS, costs)
  block = NORMAL["blocks"][0]
  op, state = block["operations"][1], block["inputs"][1]
  params, macs = costs[state][OPERATIONS.index(op)]
  assert said["block-0-side-1"].splitlines() == [
    op,
    f"reads {'hᵢ' if state == 0 else 'hᵢ₋₁'}",
    f"{params:,} parameters",
    f"{macs:,} multiply-adds per image",
  ]


def test_a_block_costs_what_its_two_operations_do():
  costs = _costs()
  said = hover.tips(NORMAL, OPERATIONS, costs)
  for k, block in enumerate(NORMAL["blocks"]):
    params = sum(
      costs[s][OPERATIONS.index(op)][0]
      for op, s in zip(block["operations"], block["inputs"])
    )
    lines = said[f"block-{k}"].splitlines()
    assert f"{params:,} parameters" in lines


def test_readers_of_every_state_are_told():
  said = hover.tips(NORMAL, OPERATIONS, None)
  for k in range(5):
    state = 2 + k
    readers = [
      f"block {j}"
      for j, b in enumerate(NORMAL["blocks"])
      if state in b["inputs"]
    ]
    readers += ["the output"] if state in NORMAL["concat"] else []
    assert f"read by {', '.join(readers)}" in said[f"block-{k}"]
  assert "parameters" not in "".join(said.values())


class _Tips(html.parser.HTMLParser):
  """{id: tip} of a page."""

  def __init__(self, text):
    super().__init__()
    self.found, self.scripts = {}, []
    self.in_script = False
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    attrs = dict(attrs)
    self.in_script = tag == "script"
    if "data-tip" in attrs:
      assert attrs["tabindex"] == "0"  # the keyboard comes there too
      assert attrs["aria-label"] == attrs["data-tip"].replace("\n", ". ")
      self.found[attrs["id"]] = attrs["data-tip"]

  def handle_data(self, data):
    if self.in_script:
      self.scripts.append(data)


@pytest.mark.parametrize("name", ["nasnet", "nasnet_concat", "pnas"])
def test_every_box_of_a_reports_cells_says_something(make_run, name):
  folder = make_run(name=name)
  text = report.write_report(folder).read_text()
  tips = _Tips(text).found
  result = json.loads((folder / "result.json").read_text())
  for cell, about in result["winner"]["genotype"]["cells"].items():
    stem = "cell" if cell == "cell" else f"cell_{cell}"
    said = hover.tips(about, [], None)
    assert {k: tips.pop(f"{stem}-{k}") for k in said} == said
  assert not tips


def test_costs_of_a_run_are_shown_and_a_damaged_file_is_not_missed(make_run):
  folder = make_run(name="pnas")
  result = json.loads((folder / "result.json").read_text())
  operations = result["space_options"]["operations"]
  costs = np.full((7, len(operations), 2), 4321).tolist()
  file = folder / report.COSTS
  file.write_text(
    json.dumps({"operations": operations, "final": {"cell": costs}})
  )
  assert "4,321 parameters" in report.write_report(folder).read_text()
  file.write_text('{"operations": [')
  assert "4,321" not in report.write_report(folder).read_text()


_BROWSER = shutil.which("chromium")


# Width, and which colours the reader's system prefers.
_SHOWN = [(w, c) for w in (1200, 400) for c in ("light", "dark")]


def _ground(driver, page, width, colours) -> str:
  """The page's colour; it must not be wider than the window."""
  size = {"width": width, "height": 900, "deviceScaleFactor": 1}
  features = [{"name": "prefers-color-scheme", "value": colours}]
  driver.execute_cdp_cmd(
    "Emulation.setDeviceMetricsOverride", {**size, "mobile": False}
  )
  driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
  driver.get(page.resolve().as_uri())
  root = "document.documentElement"
  assert driver.execute_script(f"return {root}.scrollWidth") <= width
  return driver.execute_script(
    "return getComputedStyle(document.body).backgroundColor"
  )


@pytest.mark.slow  # a browser starts
@pytest.mark.skipif(not _BROWSER, reason="needs chromium and its driver")
def test_a_browser_shows_and_hides_a_tip_without_errors(make_run):
  webdriver = pytest.importorskip("selenium.webdriver")
  options = webdriver.ChromeOptions()
  options.binary_location = _BROWSER
  for flag in ("headless", "no-sandbox", "disable-gpu", "window-size=1200,900"):
    options.add_argument(f"--{flag}")
  options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
  page = report.write_report(make_run(name="nasnet"))
  driver = webdriver.Chrome(
    options, webdriver.ChromeService(shutil.which("chromedriver"))
  )
  try:
    driver.get(page.resolve().as_uri())
    box = driver.find_element("id", "cell_normal-block-0-side-0")
    tip = driver.find_element("id", "tip")
    assert not tip.is_displayed()
    webdriver.ActionChains(driver).move_to_element(box).perform()
    assert tip.text == box.get_attribute("data-tip")
    heading = driver.find_element("tag name", "h1")
    webdriver.ActionChains(driver).move_to_element(heading).perform()
    assert not tip.is_displayed()
    driver.execute_script("arguments[0].focus()", box)
    assert tip.is_displayed()
    grounds = [_ground(driver, page, *shown) for shown in _SHOWN]
    assert grounds[0] == grounds[2] != grounds[1] == grounds[3]
    assert driver.get_log("browser") == []
  finally:
    driver.quit()
