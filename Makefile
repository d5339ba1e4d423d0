# Wardwatch. `make demo` and `make test` are all that a fresh machine needs.

PYTHON ?= $(shell command -v python3.11 || command -v python3.13 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete

.PHONY: help setup packages demo test check bench model lock test-313 clean

help:  ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP)  ## .venv with everything: agent, converter, tools
$(STAMP): requirements/dev.txt pyproject.toml
	$(PYTHON) -m venv $(VENV) || { echo "python venv is missing: apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --require-hashes --only-binary :all: -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

packages:  ## the Debian packages that the tests use: installed where that is allowed, else named
	@sh .ci/packages.sh

demo: setup  ## replay an attacked ward's capture with the shipped model
	@$(BIN)/wardwatch replay demo/ward.pcap.gz
	@echo
	@echo "Your own capture: $(BIN)/wardwatch replay FILE.pcap   (--json for machines, --help for more)"

test: setup packages check  ## checks, then every quick test; also on the installed wheel
	$(BIN)/python -m pytest -q
	sh .ci/wheel-test.sh $(BIN)/python

check: setup  ## ruff, mypy --strict, import-linter, shell scripts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@if command -v shellcheck >/dev/null; then shellcheck .ci/*.sh; else echo "shellcheck is missing: scripts not checked"; fi

test-313:  ## the unit, property and conformance tests on Python 3.13
	$(MAKE) setup VENV=.venv313 PYTHON=$$(command -v python3.13)
	.venv313/bin/python -m pytest -q tests/unit tests/property tests/conformance tests/golden

bench: setup  ## speed and memory: tables, and the pages in docs/results
	$(BIN)/wardwatch bench --page docs/results/speed.md
	$(BIN)/wardwatch-convert bench datasets/ip-1 --page docs/results/score.md

model: setup  ## rebuild the shipped bundle from the committed matrices
	sh .ci/model.sh $(BIN)

lock:  ## write requirements/*.txt anew (needs uv)
	sh .ci/lock.sh

clean:
	rm -rf $(VENV) .venv313 build dist .mypy_cache .ruff_cache .pytest_cache
