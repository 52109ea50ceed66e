PYTHON ?= python3
BIN := .venv/bin
PACKAGES := agent db nanochat prompts sandbox tests

.DEFAULT_GOAL := help

.PHONY: help
help: ## list these targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

.PHONY: setup
setup: .venv/ready ## make .venv with the pinned dependencies

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	  f"Python {sys.version.split()[0]} found, 3.11 or newer is needed: make setup PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bpe,dev,parquet,plot]'
	@touch $@

.PHONY: run
run: setup ## evolve for six minutes on real text; more flags: make run ARGS='--seed 2'
	$(BIN)/python -m agent.run --budget-hours 0.1 $(ARGS)

.PHONY: test
test: setup ## run the whole test suite; a part of it: make test ARGS=tests/db
	$(BIN)/python -m pytest $(ARGS)

.PHONY: check
check: setup ## format, lint, types, import contracts
	$(BIN)/ruff format --check $(PACKAGES)
	$(BIN)/ruff check $(PACKAGES)
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: bench
bench: setup ## measure speed and memory, as ratios taken side by side
	$(BIN)/python -m tests.bench $(ARGS)

.PHONY: clean
clean: ## remove the environment and caches; runs stay
	rm -rf .venv .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
