# `make demo` shows it working, `make test` proves it. Both set up what they need in .venv.

PYTHON ?= python3
BIN := .venv/bin
PLUGINS := $(sort $(wildcard plugins/rtpipe-*))

.PHONY: crash help demo test lint types imports unit clients cuts faults soak mutations bench generate wheels clean

help:
	@echo "make demo      run the daemon with a simulated model and one conversation through it"
	@echo "make test      every check there is: lint, types, layers, tests, freshness of generated files"
	@echo "make clients   OpenAI's clients, LiveKit, Pipecat, a browser, socat and Autobahn against the daemon; installs them"
	@echo "make cuts      long calls of clients, cut at every event boundary of both legs in every way: hours"
	@echo "make crash     200 times kill -9 while the ledger is written (make test does it a few times)"
	@echo "make faults    what hostile clients and broken networks do, done to the daemon: expected beside seen"
	@echo "make soak      an hour of attacks, or SECONDS=60: what stays of them, and what well-behaved sessions notice"
	@echo "make mutations 10,000 spoilt configurations: each loads, or one line says where and what"
	@echo "make bench     CPU per relayed event, beside other relays (benchmarks/README.md)"
	@echo "make generate  rewrite the generated parts of config/ and the documentation"
	@echo "make wheels    build host and plugins, and install them into an empty environment"

demo: .venv/ready
	$(BIN)/rtpipe demo --config config/demo.toml

test: lint types imports unit

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/ready
	$(BIN)/mypy
	$(BIN)/mypy $(foreach plugin,$(PLUGINS),$(wildcard $(plugin)/rtpipe_*))

imports: .venv/ready
	$(BIN)/lint-imports

unit: .venv/ready
	$(BIN)/python -m pytest -n auto --dist worksteal

clients: .venv/ready
	$(BIN)/python -m tests.clients

cuts: .venv/ready
	$(BIN)/python -m tests.survival --all

crash: .venv/ready
	$(BIN)/python plugins/rtpipe-cost-governor/tests/test_crash.py 200

faults: .venv/ready
	$(BIN)/python -m tests.faults

mutations: .venv/ready
	MUTATIONS=5000 $(BIN)/python -m pytest tests/config/test_mutations.py

soak: .venv/ready
	$(BIN)/python -m tests.faults.soak $(or $(SECONDS),3600)

bench: .venv/ready
	$(BIN)/python -m benchmarks $(ARGS)

generate: .venv/ready
	$(BIN)/python -m tests.refresh

wheels: .venv/ready
	tests/wheels.sh

.venv/ready: pyproject.toml $(PLUGINS:%=%/pyproject.toml)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "rtpipe needs Python 3.11 or later: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[standard,dev]' $(PLUGINS:%=--editable %)
	touch $@

clean:
	rm -rf .venv tests/clients/node/node_modules dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
