# Two commands are all a newcomer needs: `make quickstart` and `make test`. Each sets everything up first.
#   PYTHON=python3.12    another interpreter (3.11 or newer)
#   PIP_ARGS=...         passed on to every `pip install`
#   RACE_ARGS=...        passed on to the race of `make bench`: --texts FILE races the lengths of its rows, too

PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
BIN := $(VENV)/bin
READY := $(VENV)/.brewgraph-ready

FUZZ ?= 5000
FUZZ_SECONDS ?= 60
.PHONY: help quickstart test test-all fuzz lint types check site grammar vscode wheel bench clean

help:
	@echo "make quickstart   set up, train a teacher, distil a student, compare (about three minutes of training);"
	@echo "                  the runs go to specs/quickstart/runs"
	@echo "make test         set up, run the tests but the slow ones"
	@echo "make test-all     set up, run every test"
	@echo "make fuzz         set up, try many random specs and damaged files (some minutes; FUZZ=50000 tries more), then"
	@echo "                  FUZZ_SECONDS=60 of coverage-guided fuzzing per target where the extra \`fuzz\` is installed"
	@echo "make lint types   ruff, import-linter, deptry; mypy"
	@echo "make site         build the documentation as a site into site/; every warning is an error"
	@echo "make grammar      work the parser's table and the editors' colours out again, after a change of"
	@echo "                  grammar/brew.lark"
	@echo "make vscode       package the extension for Visual Studio Code into dist/ (needs npm)"
	@echo "make wheel        build the package into dist/"
	@echo "make bench        race TextBrewer, torchdistill and loops by hand in an environment of their own (some 45"
	@echo "                  minutes, on a machine that does nothing else), and write docs/speed.md"
	@echo "make clean        remove the environment and what was built"

quickstart: $(READY)
	$(BIN)/brewgraph run specs/quickstart/student.brew

test: $(READY)
	$(BIN)/python -m pytest -n auto -m "not slow"

test-all: $(READY)
	$(BIN)/python -m pytest -n auto

fuzz: $(READY)
	BREWGRAPH_FUZZ=$(FUZZ) $(BIN)/python -m pytest tests/fuzz
	for target in parser formatter checker checkpoint store; do \
		$(BIN)/python -m tests.fuzz.targets $$target -max_total_time=$(FUZZ_SECONDS) || exit 1; done

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/brewgraph fmt --check specs bench/specs
	$(BIN)/deptry .
	$(BIN)/lint-imports

types: $(READY)
	$(BIN)/mypy

check: lint types test

site: $(READY)
	$(BIN)/python docs/build.py

grammar: $(READY)
	$(BIN)/python -m brewgraph.syntax.grammar
	$(BIN)/python -m brewgraph.editor.textmate

vscode:
	rm -rf build/vscode && mkdir -p build dist && cp -r grammar/editor/vscode build/vscode && cp LICENSE build/vscode
	cd build/vscode && npm install --no-audit --no-fund && npm run package -- --out ../../dist

wheel: $(READY)
	rm -rf dist
	$(BIN)/python -m build --wheel --no-isolation

bench: $(READY)
	$(PYTHON) -m venv .bench
	.bench/bin/python -m pip install $(PIP_ARGS) -q -c constraints.txt torch
	.bench/bin/python -m pip install $(PIP_ARGS) -q -c constraints.txt -e ".[board]"
	.bench/bin/python -m pip install $(PIP_ARGS) -q --no-deps textbrewer==0.2.1.post1 torchdistill==1.1.5
	HF_HUB_OFFLINE=1 .bench/bin/python bench/race.py --full --seconds 60 --out docs/speed.md $(RACE_ARGS)

clean:
	rm -rf $(VENV) .bench dist build site .pytest_cache .mypy_cache .ruff_cache

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "brewgraph needs Python 3.11 or newer, and \`$(PYTHON)\` is `$(PYTHON) --version 2>&1 || echo missing`."; \
		echo "Install one, or name it: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "\`$(PYTHON)\` cannot make virtual environments: its venv module is missing."; \
		echo "On Debian and Ubuntu: sudo apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_ARGS) -q -c constraints.txt torch
	$(BIN)/python -m pip install $(PIP_ARGS) -q -c constraints.txt -e ".[board,emd,dev,docs,export]"
	@touch $@
