"""How Sphinx builds the documentation: `make docs`."""

import ast
import pathlib
import sys

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from nasnet_jax import __version__  # noqa: E402

project = "nasnet_jax"
author = "the nasnet_jax authors"
release = __version__
extensions = [
  "myst_parser",
  "sphinx.ext.autodoc",
  "sphinx.ext.napoleon",
  "sphinx.ext.viewcode",
]
exclude_patterns = ["results/**/figures/**"]
html_theme = "furo"
html_title = "nasnet_jax"
html_theme_options = {
  # No font of another host is asked for.
  "light_css_variables": {"font-stack": "system-ui, sans-serif"},
  "dark_css_variables": {"font-stack": "system-ui, sans-serif"},
}

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
# Tables of results are reached from the pages that link to them.
suppress_warnings = ["toc.not_included"]

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # shapes and units stand in the words
autodoc_preserve_defaults = True
# Docstrings name things by single backquotes, which is code in Markdown.
default_role = "code"
napoleon_numpy_docstring = False
napoleon_use_ivar = True


def _headers(app, page: str, source: list[str]):
  """Puts the headers of all configs into configs.md."""
  if page != "configs":
    return
  sections = []
  for file in sorted((ROOT / "configs").glob("*.py")):
    title, _, text = ast.get_docstring(ast.parse(file.read_text())).partition(
      "\n"
    )
    sections.append(
      f"## {file.stem}\n\n{title}\n\n```text\n{text.strip()}\n```"
    )
  source[0] = source[0].replace("<!-- headers -->", "\n\n".join(sections))


def setup(app):
  app.connect("source-read", _headers)
