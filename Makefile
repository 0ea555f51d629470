# Each target does all the set-up it needs: a .venv beside this file, the pinned set, then its job.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
COMPAT := .venv-compat

.PHONY: help setup browser demo test test-all bench compat check format clean
help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "swin_dense needs Python 3.10 or newer, got $$($(PYTHON) --version). Try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt setuptools
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps timm
	@touch $@

setup: $(STAMP)  ## make .venv with the pinned set

demo: $(STAMP)  ## train, evaluate and look, on generated sample data (5 minutes on two cores)
	@$(BIN)/python tools/demo.py

browser:  ## Chromium, for the tests of the report; with apt-get, where that is allowed
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
	  { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && echo "installing Chromium" && \
	    { apt-get install -y -qq --no-install-recommends chromium >/dev/null 2>&1 || \
	      { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } >/dev/null 2>&1; }; } || \
	  echo "no Chromium, and none could be installed: the tests of the report in a browser are skipped"

test: $(STAMP) browser  ## every test but the slow ones
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 -m "not slow"

test-all: $(STAMP) browser  ## every test
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4

bench: $(STAMP)  ## time the CPU's fast paths against their peers (15 minutes; keep the machine quiet)
	@for part in backbone training ops convolutions evaluation growth; do \
	  echo "== $$part"; $(BIN)/python -m benchmarks.bench_$$part || exit 1; done
	@$(BIN)/python -m benchmarks.page

$(COMPAT)/.ready: requirements_compat.txt pyproject.toml
	$(PYTHON) -m venv $(COMPAT)
	$(COMPAT)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements_compat.txt
	$(COMPAT)/bin/python -m pip install --quiet --no-build-isolation --no-deps -e .
	@touch $@

compat: $(COMPAT)/.ready  ## both recipes on the maintained forks of the hosts, in an environment of their own
	@$(COMPAT)/bin/python -m pytest tests/engine/test_training.py -k "writes_its_metrics or upernet"

check: $(STAMP)  ## lint, types, tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@$(MAKE) --no-print-directory test

format: $(STAMP)  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove .venv and caches
	rm -rf $(VENV) $(COMPAT) .mypy_cache .ruff_cache .pytest_cache build *.egg-info
