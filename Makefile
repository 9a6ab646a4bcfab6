# Requirements: Python 3.11 or newer, make, and access to a Python package index.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help train test lint accept bench gpu-acceptance clean

help:
	@echo "make train           set up, download MNIST, train a network (ARGS='--model lenet' for another)"
	@echo "make test            set up, run the tests (ARGS='-k pool' selects some)"
	@echo "make lint            check style, types and import rules"
	@echo "make accept          train every recipe on numpy and numba, check accuracy; half an hour"
	@echo "make bench           measure throughput, with installed baselines (ARGS=--full for everything)"
	@echo "make gpu-acceptance  run all checks that need an NVIDIA GPU; 8 minutes"
	@echo "make clean           remove the environment and caches"

# Installs again when the dependencies change.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	@touch $@

train: $(INSTALLED)
	$(BIN)/python -m mnist_accel.train $(ARGS)

test: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

accept: $(INSTALLED)
	$(BIN)/python -m tests.acceptance $(ARGS)

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks run $(ARGS)

gpu-acceptance: $(INSTALLED)
	$(BIN)/python -m benchmarks.gpu $(ARGS)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .nox build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
