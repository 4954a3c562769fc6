# Commands for operators and developers. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
INSTALLED := $(VENV)/.installed
MINUTES ?= 30

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

# --- Running ---------------------------------------------------------------------

.PHONY: up
up: $(INSTALLED) ## Start everything on this machine, without Docker
	@$(BIN)/python -m native up

.PHONY: status
status: $(INSTALLED) ## Show the health of every component
	@$(BIN)/headrace status

.PHONY: logs
logs: $(INSTALLED) ## Follow the logs of all processes
	@$(BIN)/python -m native logs

.PHONY: down
down: $(INSTALLED) ## Stop everything and keep the data
	@$(BIN)/python -m native down

.PHONY: reset
reset: $(INSTALLED) ## Stop everything and delete the data, after confirmation
	@$(BIN)/python -m native reset

.PHONY: reload-logins
reload-logins: $(INSTALLED) ## Make the MQTT broker reload its logins, after `headrace login`
	@$(BIN)/python -m native reload-logins

.PHONY: env
env: ## Create .env with new secrets, if it does not exist
	@python3 -m native.dotenv

# --- Checking --------------------------------------------------------------------

# Most tests wait for servers, so two processes run them; tests/conftest.py distributes them.
SPREAD := --numprocesses 2 --no-loadscope-reorder

.PHONY: test
test: $(INSTALLED) ## Run the tests on separate servers (under 12 minutes)
	@$(BIN)/python -m native programs
	$(BIN)/pytest $(SPREAD) -m "not long and not compose"

.PHONY: test-all
test-all: $(INSTALLED) ## Run all tests except those of Compose, including the long ones
	@$(BIN)/python -m native programs
	$(BIN)/pytest $(SPREAD) -m "not compose"

.PHONY: test-compose
test-compose: $(INSTALLED) ## Run the tests of Compose on this machine's Docker engine, or on a private one
	@$(BIN)/python -m tests.compose

.PHONY: chaos
chaos: $(INSTALLED) ## Kill processes at random, then count readings (MINUTES=30, CHAOS_SEED=...)
	@$(BIN)/python -m native programs
	CHAOS_MINUTES=$(MINUTES) $(BIN)/pytest --capture=no \
	    tests/integration/test_crash_and_count.py::test_killed_processes_lose_nothing_over_a_long_run

.PHONY: lint
lint: $(INSTALLED) ## Check style, types, documents and the compose file
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m tools.docs --check
	$(BIN)/python -m tools.compose_lint

.PHONY: format
format: $(INSTALLED) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: docs
docs: $(INSTALLED) ## Regenerate the parts of the documents that come from the code
	@$(BIN)/python -m tools.docs

.PHONY: lock
lock: $(INSTALLED) ## Resolve constraints.txt from requirements.txt again
	$(BIN)/uv pip compile --quiet --python-version 3.11 --no-header --no-annotate \
	    --no-emit-index-url requirements.txt --output-file constraints.txt
	sed -i '1i # Every package of an installation, as `make lock` resolved it from requirements.txt.' \
	    constraints.txt

# --- Measuring -------------------------------------------------------------------

.PHONY: bench
bench: $(INSTALLED) ## Run the benchmarks (ROWS=bridge.cpu,sink.rate selects rows)
	@$(BIN)/python -m native programs
	@$(BIN)/python -m benchmarks --rows "$(ROWS)"
	@$(BIN)/python -m tools.docs

.PHONY: bench-quick
bench-quick: $(INSTALLED) ## Run the short benchmarks (under 5 minutes)
	@$(BIN)/python -m native programs
	@$(BIN)/python -m benchmarks --quick --rows "$(ROWS)"
	@$(BIN)/python -m tools.docs

# --- Installing ------------------------------------------------------------------

.PHONY: wheel
wheel: $(INSTALLED) ## Build a wheel of the package into dist/, for an Airflow of your own
	@rm -rf build dist
	@$(BIN)/uv build --quiet --wheel --out-dir dist . && rm -rf build && ls dist/*.whl

# The package is installed in place, so only its dependencies make it stale.
$(INSTALLED): requirements.txt constraints.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { \
	    echo "Python 3.11 is needed and there is no $(PYTHON) on PATH: set PYTHON to it" >&2; exit 1; }
	@echo "installing into $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/pip install --quiet uv==$(UV_VERSION)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python \
	    --requirement requirements.txt --constraint constraints.txt --editable .
	@touch $@
