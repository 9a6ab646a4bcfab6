# Requirements: Python 3.11 or newer, make, and access to a Python package index.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Each stamp file says that a step of the set-up is done.
CREATED := $(VENV)/.created
RUNTIME := $(VENV)/.installed
DEVELOPMENT := $(VENV)/.installed-dev
SITE := $(VENV)/.installed-docs

.NOTPARALLEL:
.PHONY: help train test lint docs pictures accept bench gpu-acceptance clean

help:
	@echo "make train           set up, download MNIST, train a network (ARGS='--model lenet' for another)"
	@echo "make test            set up, run the tests (ARGS='-k pool' selects some)"
	@echo "make lint            check style, types and import rules"
	@echo "make docs            build the documentation site in build/docs; needs no network"
	@echo "make pictures        train, and draw the pictures of the documents again; needs Chromium"
	@echo "make accept          train every recipe on numpy and numba, check accuracy; half an hour"
	@echo "make bench           measure throughput, with installed baselines (ARGS=--full for everything)"
	@echo "make gpu-acceptance  run all checks that need an NVIDIA GPU; 9 minutes"
	@echo "make clean           remove the environment and caches"

# Prints a text, then a dot every two seconds until the command ends. The loop ends by itself after
# the shell that started it.
define show_progress
@printf '%s ' '$(1)'; \
while sleep 2 >/dev/null 2>&1 && kill -0 $$$$ 2>/dev/null; do printf .; done & \
if $(2); then printf ' done\n'; else status=$$?; printf ' failed\n'; exit $$status; fi
endef
# `python -m venv` without its traceback after Ctrl-C.
CREATE := $(PYTHON) -c "import signal, venv; signal.signal(signal.SIGINT, signal.SIG_DFL); venv.main(['$(VENV)'])"
# A variable, because a comma would end an argument of `call`.
WITH_DOCS := ".[dev,docs]"
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable

$(CREATED):
	$(call show_progress,creating the environment in $(VENV) (a few seconds),$(CREATE))
	@touch $@

# Installs again when the dependencies change.
$(RUNTIME): $(CREATED) pyproject.toml constraints.txt
	$(call show_progress,installing what training needs (130 MB; about half a minute),$(INSTALL) .)
	@touch $@

$(DEVELOPMENT): $(CREATED) pyproject.toml constraints.txt
	$(call show_progress,installing the package with tests and linters (220 MB; about a minute),$(INSTALL) ".[dev]")
	@touch $(RUNTIME) $@

$(SITE): $(DEVELOPMENT)
	$(call show_progress,installing what the documentation site needs (half a minute),$(INSTALL) $(WITH_DOCS))
	@touch $@

train: $(RUNTIME)
	$(BIN)/python -m mnist_accel.train $(ARGS)

test: $(DEVELOPMENT)
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal $(ARGS)

lint: $(DEVELOPMENT)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Pages with code cells run here. Warnings are errors.
docs: $(SITE)
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --jobs auto \
	    --conf-dir docs/site --doctree-dir build/docs-cache/doctrees . build/docs
	@echo "the site is build/docs/index.html"

pictures: $(DEVELOPMENT)
	$(BIN)/python -m tests.pictures

accept: $(DEVELOPMENT)
	$(BIN)/python -m tests.acceptance $(ARGS)

bench: $(DEVELOPMENT)
	$(BIN)/python -m benchmarks run $(ARGS)

gpu-acceptance: $(DEVELOPMENT)
	$(BIN)/python -m benchmarks.gpu $(ARGS)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .nox build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
