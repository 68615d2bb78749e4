# On a fresh machine: `make demo`, `make check`, `make test`. Each sets up .venv first, if it is not up to date.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
FREE_GIB := 12

.PHONY: demo check test suite faults proofs fuzz gpu lint site setup help

help: ## Show the targets.
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: setup ## The whole way on rendered scenes: generate, prepare, train, evaluate, publish, predict, ablate.
	@$(BIN)/dpt demo

check: setup ## Lint, types, and the tests without Ray that take less than about a second (two and a half minutes).
	@$(MAKE) --no-print-directory -j 2 lint suite SELECTED="not slow and not fault and not ray and not heavy"

test: setup ## The whole suite but proofs, faults and the fuzz campaign (about a quarter of an hour).
	@$(MAKE) --no-print-directory -j 2 lint suite SELECTED="not slow and not fault"

suite:
	@echo "suite: running the tests that are $(SELECTED), on 2 processes"
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -q --durations 25 -m "$(SELECTED)"

faults: setup ## Every round of killing jobs at random moments (about an hour).
	@$(BIN)/python -m pytest -q -m fault

proofs: setup ## The proofs that `make test` leaves out: the largest models, whole ways that others prove in part.
	@$(BIN)/python -m pytest -q -m "slow and not fault"

fuzz: setup ## Thousands of hostile files of every format that is read (half an hour).
	@$(BIN)/python -m tests.fuzz.campaign

gpu: ## Everything worth measuring on a CUDA device, in six minutes; with .venv if there is one, else with python3.
	@PYTHONPATH="$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}" $(or $(wildcard $(BIN)/python),$(PYTHON)) benchmarks/gpu.py

lint: setup ## ruff and mypy.
	@echo "lint: ruff, mypy"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

site: setup ## The pages of docs/ as a site with an API reference, in site/; fails on a broken link.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

setup: $(STAMP) ## Make .venv and install; does nothing when nothing changed.

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null \
	  || { echo "setup: Python 3.10 or newer is needed; '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Set PYTHON=/path/to/python3." >&2; exit 1; }
	@$(PYTHON) -c 'import shutil, sys; free = shutil.disk_usage(".").free / 2**30; sys.exit(f"setup: $(FREE_GIB) GiB of free disk are needed for PyTorch and Ray, {free:.1f} GiB are left") if free < $(FREE_GIB) else None'
	@echo "setup: installing into $(VENV) (some minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
	  || { echo "setup: '$(PYTHON) -m venv' failed; on Debian and Ubuntu it needs the package python3-venv" >&2; rm -rf $(VENV); exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,test]'
	@touch $@
