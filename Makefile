# Needs GNU make (3.81 or later) and Python 3.11 or later; everything else is put into .venv.
# Another Python: make test PYTHON=python3.12        Arguments: make quickstart ARGS="--minutes 5"

PYTHON ?= python3
WORKERS ?= 2
ARGS ?=

BIN := .venv/bin
NBVAL := --nbval --nbval-current-env --nbval-cell-timeout 300
NBVAL += --nbval-sanitize-with tests/notebooks/sanitize.cfg
PIP := $(BIN)/python -m pip install --disable-pip-version-check $(if $(CI),--quiet)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help quickstart test mutants lab notebooks html slides lint format clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' Makefile

quickstart: .venv/.base ## train a small latent diffusion model and write a report
	$(BIN)/ldm-edu quickstart $(ARGS)

test: .venv/.dev ## run all tests and notebooks, two files at a time
	OMP_NUM_THREADS=1 LDM_EDU_SMOKE=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile \
	  $(NBVAL) $(ARGS)

mutants: .venv/.dev ## break the library in named ways and see tests catch each
	$(BIN)/python tests/mutants.py $(ARGS)

lab: .venv/.notebooks ## open the notebooks in JupyterLab
	$(BIN)/ldm-edu lab $(ARGS)

notebooks: .venv/.notebooks ## run the notebooks and store what they show
	$(BIN)/python -m ldm_edu.lab.execute $(or $(ARGS),notebooks/*.ipynb)

html: .venv/.notebooks ## write the notebooks as pages that need no network, into site/
	$(BIN)/python -m ldm_edu.lab.export $(or $(ARGS),notebooks/*.ipynb)

slides: .venv/.notebooks ## write the notebooks as slides that need no network, into slides/
	$(BIN)/python -m ldm_edu.lab.export --out slides --slides $(or $(ARGS),notebooks/*.ipynb)

lint: .venv/.dev ## check style and format
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .

format: .venv/.dev ## put style and format right
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

clean: ## delete .venv and caches; data and runs stay
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamp files: a step runs again when pyproject.toml changes, or when it did not finish.

.venv/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "ldm_edu needs Python 3.11 or later, '$(PYTHON)' is" \
	    "$$($(PYTHON) --version 2>/dev/null || echo missing): make ... PYTHON=python3.12" >&2; \
	  exit 1; }
	@# a .venv that works is kept: it may hold the CPU-only PyTorch
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv || { \
	  echo "'$(PYTHON) -m venv' failed; on Debian or Ubuntu: apt install python3-venv" >&2; \
	  exit 1; }
	@touch $@

.venv/.base: pyproject.toml | .venv/.python
	@echo "Installing ldm-edu into .venv: up to 6 GB of disk, a few minutes ..."
	$(PIP) -e .
	@touch $@

.venv/.notebooks: pyproject.toml | .venv/.base
	@echo "Installing JupyterLab into .venv ..."
	$(PIP) -e '.[notebooks]'
	@touch .venv/.base $@

.venv/.dev: pyproject.toml | .venv/.python
	@echo "Installing ldm-edu with tests and notebooks into .venv: up to 7 GB, a few minutes ..."
	$(PIP) -e '.[dev]'
	@touch .venv/.base .venv/.notebooks $@
