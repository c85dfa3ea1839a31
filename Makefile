# Every target makes its environment by itself, once: `make search` on a fresh
# clone is enough. Variables: PYTHON=python3.13 VENV=.venv313 ARGS="..."

VENV ?= .venv
# Test processes. XLA compiles with threads of its own, so few are enough. A
# file stays in one process: its fixtures compile programs.
WORKERS ?= 2
ARGS ?=

python := $(VENV)/bin/python
stamp := $(VENV)/.installed
tag = py$$($(1) -c 'import sys; print("%d%d" % sys.version_info[:2])')
recent = -c 'import sys; sys.exit(sys.version_info < (3, 11))'

.PHONY: search test test-slow smoke check format docs bench lock clean help
.DEFAULT_GOAL := help

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) \
	  | awk -F'|' '{ printf "make %-10s %s\n", $$1, $$2 }'

search: $(stamp)  ## search cells for scikit-learn's digits (minutes on a CPU)
	$(python) launch/main.py --config=configs/search_digits.py \
	  --workdir=runs/search_digits $(ARGS)

test: $(stamp)  ## the default tests, on eight fake CPU devices
	$(python) -m pytest -q -n $(WORKERS) --dist loadfile -rs -m "not slow" $(ARGS)

test-slow: $(stamp)  ## the tests that take minutes each; goes on after a stop
	$(python) tests/run_slow.py --workers $(WORKERS) $(ARGS)

smoke: $(stamp)  ## the few tests that every supported Python must pass
	$(python) -m pytest -q -n $(WORKERS) -m "smoke and not slow" $(ARGS)

check: $(stamp)  ## format, lint, import directions: what must hold always
	$(python) -m ruff format --check .
	$(python) -m ruff check .
	$(python) -m pytest -q tests/test_architecture.py

format: $(stamp)  ## let ruff rewrite the files
	$(python) -m ruff check --fix .
	$(python) -m ruff format .

docs: $(stamp)  ## the documentation, into .cache/docs; warnings are errors
	@lock=locks/$(call tag,$(python)).txt; [ -f $$lock ] || lock=/dev/null; \
	$(python) -m pip install -q -e '.[docs]' -c $$lock
	$(python) -m sphinx -q -E -W --keep-going -b html docs .cache/docs
	@echo "open .cache/docs/index.html"

bench: $(stamp)  ## every benchmark of speed, one after another
	@set -e; for name in controllers input networks population; do \
	  echo "benchmarks/$$name.py"; \
	  $(python) "benchmarks/$$name.py" $(ARGS); done

# A venv that stopped half-way has no pip and is made anew; one that only
# misses packages is filled up.
$(stamp): pyproject.toml $(wildcard locks/*.txt)
	@set -e; \
	if ! $(python) -m pip --version >/dev/null 2>&1; then \
	  chosen="$(PYTHON)"; \
	  if [ -z "$$chosen" ]; then \
	    for name in python3.11 python3.13 python3.12 python3.14 python3; do \
	      if $$name $(recent) 2>/dev/null; then chosen=$$name; break; fi; \
	    done; \
	  fi; \
	  if ! $$chosen $(recent) 2>/dev/null; then \
	    echo "Python 3.11 or newer is needed: make PYTHON=/its/path"; exit 1; \
	  fi; \
	  $$chosen -m venv --clear $(VENV); \
	fi; \
	lock=locks/$(call tag,$(python)).txt; \
	if [ -f $$lock ]; then \
	  echo "Installing the packages of $$lock into $(VENV) (minutes, once)"; \
	  $(python) -m pip install -q -r $$lock; \
	else \
	  echo "No $$lock: installing what pyproject.toml asks for into $(VENV)"; \
	  $(python) -m pip install -q -e '.[dev]'; \
	fi; \
	$(python) -m pip install -q --no-deps -e .; \
	touch $@

lock:  ## pin today's newest packages: make lock PYTHON=python3.11
	@set -e; python=$${PYTHON:-$(or $(PYTHON),python3.11)}; \
	rm -rf .venv-lock; $$python -m venv .venv-lock; \
	lock=locks/$(call tag,.venv-lock/bin/python).txt; \
	.venv-lock/bin/python -m pip install -q -e '.[dev]'; \
	{ echo "# Core and dev packages as tested on Linux x86-64, CPU."; \
	  echo "# Made anew by: make lock PYTHON=$${python##*/}"; \
	  .venv-lock/bin/python -m pip freeze --exclude nasnet_jax; \
	} > $$lock.new; \
	mv $$lock.new $$lock; rm -rf .venv-lock; echo "wrote $$lock"

clean:  ## remove environments, caches and runs' leftovers, but no run
	rm -rf .venv .venv-* .cache .pytest_cache .ruff_cache build dist \
	  *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
