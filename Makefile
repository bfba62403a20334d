# `make` alone lists the targets.  Everything lives in .venv, made on first use;
# paths are relative, so the tree may lie in a folder with spaces in its name.

PYTHON ?= python3
ARGS ?=
JOBS ?= 3
DEMO_DIR ?=

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet
# Stamps: newer than pyproject.toml and the C kernels means installed.
PACKAGE := $(VENV)/.package
DEV := $(VENV)/.dev

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-windows cases lint types docs screenshots bench deep clean

help: ## list these targets
	@awk -F ': .*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

demo: $(PACKAGE) ## a tour with generated models: publish, fetch, update, roll back; DEMO_DIR=folder keeps its files
	@PATH="$$PWD/$(VENV)/bin:$$PATH" DEMO_DIR="$(DEMO_DIR)" bash fixtures/demo.sh

test: $(DEV) ## run the tests, quick profile, JOBS=3 at a time; ARGS="-k name" narrows
	@$(PY) -m pytest -rs -n $(JOBS) --dist loadfile $(ARGS)

cases: $(DEV) ## run the case scripts of ../shared/cases, where they are
	@$(PY) -m tests.cases

test-windows: ## run tests of core, store, backends and commands in Windows Python under Wine; root, 2 GB in WIN_LAB
	@bash tests/windows/make.sh $(ARGS)

lint: $(DEV) ## ruff: rules, then layout
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

types: $(DEV) ## mypy, strict; aio.py and results.py in a second run, since their stubs hide them in the first
	@$(PY) -m mypy
	@$(PY) -m mypy yarnstore/aio.py yarnstore/results.py

docs: $(DEV) ## write docs/cli.md, errors.md, results.md and the stubs of aio and results from the code
	@$(PY) -m tests.docs.cli_reference

screenshots: $(DEV) ## write docs/dashboard/*.png: each page of the dashboard; needs chromium
	@$(PY) -m tests.docs.screenshots

bench: $(DEV) ## measure each operation against its limit and other tools; ARGS="--against YSTORE" beside another release
	@$(PY) -m tests.bench $(ARGS)

deep: $(DEV) ## the long campaigns: hours, not minutes
	@$(PIP) install atheris || echo "no atheris for this Python: its test will skip"
	@HYPOTHESIS_PROFILE=deep $(PY) -m pytest -rs -m deep $(ARGS)

clean: ## remove .venv, caches and builds
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A usable .venv is kept, whoever made it; anything else is made anew.
$(PACKAGE): pyproject.toml $(wildcard yarnstore/native/*)
	@$(PY) -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  command -v "$(PYTHON)" >/dev/null || { \
	    echo "error: no $(PYTHON) here; Python 3.11 or newer is needed: make PYTHON=/path/to/python" >&2; exit 1; }; \
	  "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "error: $(PYTHON) is $$("$(PYTHON)" -V 2>&1), Python 3.11 or newer is needed: make PYTHON=python3.12" >&2; exit 1; }; \
	  "$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || { \
	    echo "error: $(PYTHON) has no venv module; install it (Debian, Ubuntu: the package python3-venv)" >&2; exit 1; }; \
	  echo "making $(VENV)"; \
	  "$(PYTHON)" -m venv --clear $(VENV); }
	@$(PIP) install -e '.[web]'
	@$(PY) -m compileall -q yarnstore
	@touch $@

$(DEV): $(PACKAGE)
	@$(PIP) install -e '.[dev]'
	@touch $@
