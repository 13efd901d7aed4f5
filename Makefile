# The commands of this project. `make help` lists them.

PYTHON ?= python3
VENV   ?= .venv

python := $(VENV)/bin/python
ready  := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help test check demo demo-small demo-worker bench clean

help: ## say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

test: $(ready) ## set up and test (ARGS goes to pytest: make test ARGS="-k floors")
	@$(python) -m pytest $(ARGS)

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
$(ready): pyproject.toml worker/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || \
	  { echo "preheat needs Python 3.10 or newer: install it, or name it: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) cannot make virtual environments: install its venv package (Debian: apt install python3-venv)" >&2; exit 1; }
	@echo "setting up $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(python) -m pip install -qq --disable-pip-version-check "uv>=0.13"
	@$(python) -m uv pip install --quiet --python $(python) --editable . --editable ./worker \
	  --group dev --group worker/pyproject.toml:dev
	@touch $@
