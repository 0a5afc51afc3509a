# Everything made here goes into .venv/ and build/; no target needs root or a compiler. Without root,
# tests with network namespaces are skipped.
# `make` lists the targets. Each sets up what it needs, once, and again when a lock has changed.

PYTHON ?= python3
FUZZ_SECONDS ?= 60
DEMO_OUT ?= build/demo

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules
# One environment, set up step by step.
.NOTPARALLEL:

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
UV_VERSION := 0.13.9
SAY := @printf '==> %s\n'

# Prints each package's name as pip comes to it, in one growing line; pip's errors stay visible.
NAMES := awk '/^Collecting/ { sub(/[=<>;].*/, "", $$2); printf "%s ", $$2; fflush() } END { print "" }'

# pyright runs on the Node.js in the lock and on the pyright in its own wheel: nothing is downloaded
# when it runs, and it has no newer version to point out.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
export PYRIGHT_PYTHON_CACHE_DIR := $(CURDIR)/$(VENV)/pyright

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

# --- what people run ------------------------------------------------------------------------------

.PHONY: demo
demo: $(VENV)/done-run $(VENV)/done-project ## set up and run the handover study into build/demo
	$(BIN)/mat sim run town --out $(DEMO_OUT)

.PHONY: ims
ims: $(VENV)/done-ims $(VENV)/done-project ## set up what the mapping server and its tools need
	@echo '. $(BIN)/activate puts mat on the path; then: mat ims serve --help'

.PHONY: real
real: $(VENV)/done-real $(VENV)/done-project ## set up what a node needs, beside what make ims does
	@echo '. $(BIN)/activate puts mat on the path; then: mat node run --help'

.PHONY: test
test: $(VENV)/done-dev $(VENV)/done-docs $(VENV)/done-project ## set up, lint, check the types, run the tests
	$(SAY) 'ruff: lint and format'
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --quiet --check
	$(SAY) 'mypy, strict'
	@$(BIN)/mypy
	$(SAY) 'pyright, strict'
	@$(BIN)/pyright --pythonpath $(BIN)/python
	$(SAY) 'pytest'
	@# By itself: Hypothesis takes examples from the constants of all modules that are there.
	@$(BIN)/pytest --quiet --numprocesses auto tests/core
	@$(BIN)/pytest --quiet --numprocesses auto tests/files tests/sim tests/cli tests/paper
	$(SAY) 'pytest, with real servers'
	@$(BIN)/pytest --quiet --numprocesses auto tests/real
	$(SAY) 'pytest: the documentation, built and executed'
	@$(BIN)/pytest --quiet --numprocesses auto tests/docs

.PHONY: docs
docs: $(VENV)/done-docs $(VENV)/done-project ## the documentation as a site, into build/site
	@$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs build/site
	@echo '==> build/site/index.html'

.PHONY: compiled
compiled: $(VENV)/done-dev $(VENV)/done-project ## a wheel with the core and the engine compiled (needs a C compiler)
	@rm -rf build/compiled
	@HATCH_BUILD_HOOK_ENABLE_CUSTOM=true $(PIP) wheel --quiet --no-deps --no-build-isolation --wheel-dir build/compiled .
	@$(BIN)/python -m zipfile -e build/compiled/*.whl build/compiled/site
	@printf '==> %s\n' build/compiled/*.whl

.PHONY: test-compiled
test-compiled: compiled ## run the tests of core and simulator against that wheel
	@PYTHONPATH=build/compiled/site:. $(BIN)/pytest --quiet --numprocesses auto -o pythonpath= \
	    --import-mode=importlib tests/core tests/sim/test_engine.py tests/sim/test_baseline_runs.py tests/sim/test_latency.py

.PHONY: format
format: $(VENV)/done-dev ## put the code into the form that `make test` wants
	@$(BIN)/ruff check --quiet --fix-only
	@$(BIN)/ruff format

.PHONY: notebooks
notebooks: $(VENV)/done-dev $(VENV)/done-project ## execute the notebooks, in their small size, into build/notebooks
	@rm -rf build/notebooks
	@mkdir -p build/notebooks
	@cp notebooks/*.ipynb notebooks/*.toml build/notebooks
	@for notebook in build/notebooks/*.ipynb; do \
	    printf '==> %s\n' "$$notebook"; \
	    $(BIN)/jupyter-execute --inplace --kernel_name=python3 "$$notebook"; \
	done

.PHONY: bench
bench: $(VENV)/done-dev $(VENV)/done-project ## time and memory of the core
	$(BIN)/pytest tests/bench --benchmark-columns=min,median,iqr,rounds --benchmark-sort=name

.PHONY: soak
soak: $(VENV)/done-dev $(VENV)/done-project ## the property tests with many more, and random, examples
	HYPOTHESIS_PROFILE=soak $(BIN)/pytest --numprocesses auto tests/core

.PHONY: fuzz
fuzz: $(VENV)/done-fuzz $(VENV)/done-project ## each tests/fuzz/fuzz_*.py for FUZZ_SECONDS (60)
	@for harness in tests/fuzz/fuzz_*.py; do \
	    found=build/fuzz/$$(basename "$$harness" .py); \
	    mkdir -p "$$found/corpus"; \
	    printf '==> %s, what it finds goes to %s\n' "$$harness" "$$found"; \
	    $(BIN)/python "$$harness" -max_total_time=$(FUZZ_SECONDS) -artifact_prefix="$$found/" "$$found/corpus"; \
	done

# --- set-up ---------------------------------------------------------------------------------------

$(VENV)/done-python:
	@command -v "$(PYTHON)" >/dev/null || { \
	    echo "This needs Python 3.11 or newer, and there is no '$(PYTHON)'."; \
	    echo "Mend it with: sudo apt install python3 python3-venv"; \
	    exit 1; } >&2
	@"$(PYTHON)" requirements/check_python.py
	$(SAY) 'virtual environment in $(VENV)'
	@"$(PYTHON)" -m venv $(VENV)
	@touch $@

# run.txt is part of the others, with the same pins: they share an environment in any order.
$(VENV)/done-run: requirements/run.txt
$(VENV)/done-ims: requirements/ims.txt
$(VENV)/done-real: requirements/real.txt
$(VENV)/done-dev: requirements/dev.txt
$(VENV)/done-docs: requirements/docs.txt
$(VENV)/done-fuzz: requirements/fuzz.txt
$(VENV)/done-run $(VENV)/done-ims $(VENV)/done-real $(VENV)/done-dev $(VENV)/done-docs $(VENV)/done-fuzz: $(VENV)/done-%: | $(VENV)/done-python
	$(SAY) 'packages of requirements/$*.txt (a minute or two, the first time)'
	@PYTHONUNBUFFERED=1 $(PIP) install --require-hashes --only-binary :all: -r requirements/$*.txt | $(NAMES)
	@touch $@ $(VENV)/done-run

# Editable, and built by the hatchling of the lock: nothing is fetched.
$(VENV)/done-project: pyproject.toml mat/__init__.py | $(VENV)/done-run
	$(SAY) 'the project itself'
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# --- upkeep ---------------------------------------------------------------------------------------

# Keeps the pins that pyproject.toml still allows; `make lock UPGRADE=--upgrade` moves all to the newest.
UPGRADE ?=
COMPILE = $(BIN)/uv pip compile --quiet --no-config --universal --python-version 3.11 --no-build \
	--generate-hashes --no-header --no-emit-index-url --no-emit-find-links $(UPGRADE)

.PHONY: lock
lock: $(VENV)/done-python ## resolve requirements/*.txt anew (UPGRADE=--upgrade for newer versions)
	@$(PIP) install --quiet uv==$(UV_VERSION)
	$(SAY) 'requirements/run.txt, ims.txt, real.txt, dev.txt, docs.txt, fuzz.txt'
	@$(COMPILE) -o requirements/run.txt pyproject.toml requirements/build.in
	@$(COMPILE) -o requirements/ims.txt -c requirements/run.txt --extra ims pyproject.toml requirements/build.in
	@$(COMPILE) -o requirements/real.txt -c requirements/ims.txt --extra real pyproject.toml requirements/build.in
	@$(COMPILE) -o requirements/dev.txt -c requirements/real.txt --extra real --extra cluster --extra dev pyproject.toml requirements/build.in
	@$(COMPILE) -o requirements/docs.txt -c requirements/dev.txt --extra real --extra docs pyproject.toml requirements/build.in
	@$(COMPILE) -o requirements/fuzz.txt -c requirements/dev.txt --extra fuzz pyproject.toml requirements/build.in
	@! grep -n '://' requirements/*.txt

.PHONY: clean
clean: ## remove everything made here
	rm -rf $(VENV) build dist .hypothesis .benchmarks .mypy_cache .pytest_cache .ruff_cache
	find mat files sim real cli tests -name __pycache__ -type d -prune -exec rm -rf {} +
