# make venv | demo | test | lint | parity | test-long | lock
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# The demo's runs are kept apart from whatever Prefect server, profile or database a person uses.
DEMO := env -u PREFECT_API_URL -u PREFECT_API_KEY -u PREFECT_PROFILE PREFECT_HOME=$(CURDIR)/demo/prefect \
	PREFECT_SERVER_ANALYTICS_ENABLED=false DO_NOT_TRACK=1

.PHONY: venv demo test lint parity test-long lock

venv: $(STAMP)

$(STAMP): requirements-dev.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --no-deps -e .
	touch $@

# From nothing to masks: draw pictures, train a small network, measure, export and use it. A second time all is reused.
demo: venv
	@mkdir -p demo
	@$(DEMO) $(BIN)/python -m flows.train --preset=demo --store=demo/store

test: venv
	$(BIN)/python -m pytest

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Needs the original's recorded numbers; a test without them is skipped and says so.
parity: venv
	$(BIN)/python -m pytest -m parity

test-long: venv
	$(BIN)/python -m pytest -m long

# Pin the newest versions that pyproject.toml allows, for every Python it supports.
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.10 --no-header --no-annotate --no-emit-index-url
lock:
	$(BIN)/python -m pip install --quiet uv
	$(LOCK) --upgrade pyproject.toml --output-file requirements.lock
	$(LOCK) --upgrade pyproject.toml --extra dev --constraint requirements.lock --output-file requirements-dev.lock
