# Two commands are all a newcomer needs: `make quickstart` and `make test`. Each sets everything up first.
#   PYTHON=python3.12    another interpreter (3.11 or newer)
#   PIP_ARGS=...         passed on to every `pip install`

PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
BIN := $(VENV)/bin
READY := $(VENV)/.brewgraph-ready

.PHONY: help quickstart test test-all lint types check grammar wheel clean

help:
	@echo "make quickstart   set up, train a teacher, distil a student, compare (about three minutes of training);"
	@echo "                  the runs go to specs/quickstart/runs"
	@echo "make test         set up, run the tests but the slow ones"
	@echo "make test-all     set up, run every test"
	@echo "make lint types   ruff, import-linter, deptry; mypy"
	@echo "make grammar      work the parser's table out again, after a change of grammar/brew.lark"
	@echo "make wheel        build the package into dist/"
	@echo "make clean        remove the environment and what was built"

quickstart: $(READY)
	$(BIN)/brewgraph run specs/quickstart/student.brew

test: $(READY)
	$(BIN)/python -m pytest -n auto -m "not slow"

test-all: $(READY)
	$(BIN)/python -m pytest -n auto

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/brewgraph fmt --check specs bench/specs
	$(BIN)/deptry .
	$(BIN)/lint-imports

types: $(READY)
	$(BIN)/mypy

check: lint types test

grammar: $(READY)
	$(BIN)/python -m brewgraph.syntax.grammar

wheel: $(READY)
	rm -rf dist
	$(BIN)/python -m build --wheel --no-isolation

clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "brewgraph needs Python 3.11 or newer, and \`$(PYTHON)\` is `$(PYTHON) --version 2>&1 || echo missing`."; \
		echo "Install one, or name it: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "\`$(PYTHON)\` cannot make virtual environments: its venv module is missing."; \
		echo "On Debian and Ubuntu: sudo apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_ARGS) -q -c constraints.txt torch
	$(BIN)/python -m pip install $(PIP_ARGS) -q -c constraints.txt -e ".[board,emd,dev]"
	@touch $@
