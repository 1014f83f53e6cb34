# Two commands for a newcomer: `make run` and `make test`. Everything they make stays in this checkout: .venv, .cache, out.

PYTHON ?= python3
WORKERS ?= 2
# The CPU build of torch, for parity and benchmarks; where this index is out of reach, pip's own serves.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

# Relative paths only: the checkout's own path may hold spaces.
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
INSTALLED := .venv/.installed
INSTALLED_TORCH := .venv/.installed-torch

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0
export JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES ?= -1

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run test test-slow test-parity kernels-aot rocm-aot lint format benchmark-cpu constraints clean

help:  ## show these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

run: $(INSTALLED)  ## set up .venv, then train, export, load and sample a small ZAYA
	$(BIN)/python -m experiments.quickstart $(ARGS)

test: lint  ## set up .venv, then lint and all tests but the slow and the parity ones
	$(PYTEST) -n $(WORKERS) --dist worksteal -m "not slow and not parity" $(ARGS)

test-slow: $(INSTALLED)  ## the tests that take minutes each
	$(PYTEST) -m "slow and not parity" $(ARGS)

test-parity: $(INSTALLED_TORCH)  ## comparisons with transformers on fresh random models (installs torch)
	$(PYTEST) -m parity $(ARGS)

kernels-aot: .venv-aot/.installed  ## compile the kernels for MI300X and H100, and judge the code (installs triton)
	.venv-aot/bin/python -m kernels_pallas.aot $(ARGS)

rocm-aot: .venv-rocm/.installed  ## compile the whole ZAYA1-8B for MI300X without one, and judge it (installs XLA:ROCm)
	.venv-rocm/bin/python -m experiments.rocm_aot $(ARGS)

lint: $(INSTALLED)  ## ruff and the import arrows
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/lint-imports --no-cache --no-logo

format: $(INSTALLED)  ## let ruff format, and fix what it can
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

benchmark-cpu: $(INSTALLED_TORCH)  ## speed on this CPU, side by side with transformers (installs torch)
	$(BIN)/python -m experiments.benchmark_cpu $(ARGS)

constraints: $(BIN)/pip  ## write constraints.txt anew from the newest versions that resolve
	$(PYTHON) -m venv --clear .cache/constraints
	$(call install_torch,.cache/constraints/bin/python)
	.cache/constraints/bin/python -m pip install -e ".[test,parity,benchmarks,hub,plot,parquet,grading,rl,serve,serve-test]"
	.cache/constraints/bin/python -m pip freeze --exclude-editable > .cache/freeze.txt
	{ grep '^#' constraints.txt; sed 's/+cpu$$//' .cache/freeze.txt | LC_ALL=C sort -f; } > .cache/constraints.txt
	mv .cache/constraints.txt constraints.txt

clean:  ## remove caches and build products; .venv and out stay
	rm -rf .cache .pytest_cache .hypothesis .ruff_cache .import_linter_cache build dist *.egg-info
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

# Stamps: nothing is installed again until setup.py or constraints.txt changes.
$(INSTALLED): setup.py constraints.txt | $(BIN)/pip
	$(BIN)/python -m pip install -c constraints.txt -e ".[test,plot,grading,serve,serve-test]"
	@touch $@

$(INSTALLED_TORCH): $(INSTALLED)
	$(call install_torch,$(BIN)/python)
	$(BIN)/python -m pip install -c constraints.txt -e ".[parity,benchmarks]"
	$(BIN)/python -c "import torch, transformers"
	@touch $@

# Apart from .venv: triton is 640 MB, and what compiles kernels shall not change what runs them.
.venv-aot/.installed: setup.py constraints.txt | $(BIN)/pip
	$(BIN)/python -m venv .venv-aot
	.venv-aot/bin/python -m pip install -c constraints.txt -e ".[aot]"
	@touch $@

# XLA:ROCm is 1.1 GB, and its plugin would announce itself to every program. The stand-ins for ROCm need a C compiler.
.venv-rocm/.installed: setup.py constraints.txt | $(BIN)/pip
	@for tool in gcc readelf nm; do command -v $$tool >/dev/null \
		|| $(call fail,$$tool is not here: rocm-aot builds stand-ins for ROCm (Debian: apt install gcc binutils)); done
	$(BIN)/python -m venv .venv-rocm
	.venv-rocm/bin/python -m pip install -c constraints.txt -e ".[rocm]"
	@touch $@

# torch alone and first: its index would otherwise be asked for every package.
install_torch = $(1) -m pip install --retries 1 -c constraints.txt --no-deps \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch

$(BIN)/pip:
	@command -v $(PYTHON) >/dev/null || $(call fail,$(PYTHON) is not here: $(NEEDED))
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' \
		|| $(call fail,$(PYTHON) is $$($(PYTHON) -V 2>&1): $(NEEDED))
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| $(call fail,$(PYTHON) has no venv module: install it (Debian: apt install python3-venv))
	$(PYTHON) -m venv .venv

NEEDED = Python 3.11 or 3.12 is needed (Debian: apt install python3-venv); to name one: make PYTHON=python3.12 ...
fail = { echo "error: $(1)" >&2; exit 2; }
