# The commands of this project. `make help` lists them.

PYTHON ?= python3
VENV   ?= .venv

python := $(VENV)/bin/python
ready  := $(VENV)/.ready

# Three processes for two processors: a third of the time a test waits, for a timeout or a pause.
# Who is done takes tests from the end of another's row, so that neighbours, which share what their
# module makes, mostly stay together.
parallel := --numprocesses $$((($$(nproc) * 3 + 1) / 2)) --maxprocesses 24 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help test test-big check demo demo-small demo-worker bench clean

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

test: $(ready) ## set up and test (ARGS goes to pytest: make test ARGS="-k floors")
	@$(python) -m compileall -q src worker/src
	@$(python) -m pytest $(parallel) -m "not big and not table" $(ARGS)

test-big: $(ready) ## whole tables, and where TEST_BIG=1 or CI=true what downloads gigabytes
	@$(python) -m pytest -m "big or table" $(ARGS) || [ $$? -eq 5 ]  # 5: there is none

check: $(ready) ## lint, format and types
	@$(python) -m ruff check .
	@$(python) -m ruff format --check .
	@$(python) -m mypy

demo: $(ready) ## the whole job around a stand-in platform that has torch (downloads GBs)
	@$(python) demo/run.py

demo-small: $(ready) ## the same around a platform without torch, for slow connections
	@$(python) demo/run.py --small

demo-worker: $(ready) ## hear the F5-TTS worker: leaves a wav and an ass file (downloads GBs)
	@$(python) demo/hear.py $(ARGS)

bench: $(ready) ## measure the warm start (others by name: make bench ARGS="cold plan"; everything: ARGS=all)
	@$(python) -m bench $(ARGS)

clean: ## remove everything that these commands made
	@rm -rf $(VENV) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache

# uv is installed by pip, so that Python is all a machine needs; the rest is installed by uv.
# Warnings of pip about unused indexes (-qq) would hide what matters; its errors still show.
# preheat writes no bytecode itself: without what is compiled here, each start compiles it anew.
$(ready): pyproject.toml worker/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || \
	  { echo "preheat needs Python 3.10 or newer: install it, or name it: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) cannot make virtual environments: install its venv package (Debian: apt install python3-venv)" >&2; exit 1; }
	@echo "setting up $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(python) -m pip install -qq --disable-pip-version-check "uv>=0.13"
	@$(python) -m uv pip install --quiet --compile-bytecode --python $(python) --editable . --editable ./worker \
	  --group dev --group worker/pyproject.toml:dev
	@touch $@
