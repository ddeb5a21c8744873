# The two commands are `make demo` and `make test`; each sets up everything it needs. `make help` lists the rest.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
RUNS   ?= runs
RUN    ?= $(RUNS)/demo
SHELL  := /bin/bash

.PHONY: help demo dashboard test test-all lint format bench wheel-check data browser clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1|/' | column -t -s '|'

demo: $(VENV)/.train data ## train a small ViT on real images with --trace, then show its spikes and dips
	@# One thread: sums depend on the number of threads, and with it what this provoked run does.
	OMP_NUM_THREADS=1 $(BIN)/foreshock train demo --trace $(RUN) --checkpoint-dir checkpoints/demo --overwrite \
	  --probe.staleness-control --probe.flight-recorder --alert.line
	$(BIN)/foreshock spikes $(RUN)
	$(BIN)/foreshock report $(RUN)
	@printf '\nBrowse it:  make dashboard      (or: %s/foreshock dashboard %s)\n' '$(BIN)' '$(RUNS)'

dashboard: $(VENV)/.train ## open the live dashboard on runs/
	$(BIN)/foreshock dashboard $(RUNS)

test: $(VENV)/.test data browser ## the whole suite (under 10 minutes on two cores)
	$(BIN)/python -m pytest

test-all: $(VENV)/.test data browser ## the suite and everything marked slow
	$(BIN)/python -m pytest -m ''

lint: $(VENV)/.test ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(VENV)/.test ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.test data ## every benchmark; each prints the table it measured
	@for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python "$$file" || exit 1; done

wheel-check: ## build the wheel, install it in a fresh venv outside the checkout, run a command of it
	bash .ci/wheel-check "$(PYTHON)"

# --- set-up ------------------------------------------------------------------------------------------------------
# A stamp a set of extras; setup.cfg decides what is in each. Deleting .venv starts afresh.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "foreshock needs Python 3.11 or newer, and $(PYTHON) is older: run make with PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.train: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install -q --disable-pip-version-check -e '.[train]'
	@touch $@

$(VENV)/.test: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install -q --disable-pip-version-check -e '.[test]'
	@touch $@ $(VENV)/.train

# Both are best effort: without apt or the right to use it, the trainer downloads Fashion-MNIST itself, and the
# browser tests say that they were skipped.
data:
	@bash .ci/apt dataset-fashion-mnist /usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz

browser:
	@bash .ci/apt chromium /usr/bin/chromium
	@bash .ci/apt chromium-driver /usr/bin/chromedriver

clean: ## remove build leftovers (not .venv, not runs/)
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
