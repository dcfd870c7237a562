# PyDock: everything that a person types here.
#
#   make demo     set up .venv, execute notebooks/quickstart.ipynb for real, say how to open it
#   make lab      open JupyterLab on the notebooks
#   make test     the same set-up, what the tests need, then every test
#   make test-fast  unit and contract tests and one container from end to end, for every edit
#   make check    everything that reads code
#   make bench    the side-by-side table with the peers that are here
#   make help     this list

VENV   := .venv
BIN    := $(VENV)/bin
STAMPS := .make
NODE_MODULES := labextension/node_modules

# A worker takes whole files, in the order of tests/conftest.py (the plugin's own is by the number of tests).
WORKERS := --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# The system's interpreter first: ordinary users can execute it too (the tests change to one).
PYTHON = $(shell for python in /usr/bin/python3 python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)

.DEFAULT_GOAL := help
.PHONY: help demo lab test test-fast test-kills check bench lab-build debian-packages clean

help:
	@sed -n '2,10s/^# \{0,1\}//p' Makefile

$(STAMPS)/venv:
	@mkdir -p $(STAMPS)
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer with venv here" >&2; \
		echo "hint: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(STAMPS)/demo: $(STAMPS)/venv pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo]'
	@touch $@

$(STAMPS)/test: $(STAMPS)/venv pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo,test]'
	@touch $@ $(STAMPS)/demo

$(STAMPS)/check: $(STAMPS)/venv pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo,test,check]'
	@touch $@ $(STAMPS)/demo $(STAMPS)/test

demo: $(STAMPS)/demo
	@$(BIN)/python notebooks/execute.py

lab: $(STAMPS)/demo
	@# The default URL is the one that it prints, for a browser on another machine.
	$(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) --LabApp.default_url=/lab/tree/quickstart.ipynb \
		notebooks/quickstart.ipynb $(LAB_ARGUMENTS)

debian-packages:
	@sh tests/debian-packages.sh

# The tests share the machine's processors, and many of them wait for other processes: a test that fails runs once more.
# The summary names it (RERUN); a test that needs its second run often has a defect, or its subject has.
test: debian-packages
	@$(MAKE) --no-print-directory $(STAMPS)/test
	$(BIN)/python -m pytest $(WORKERS) --reruns 1 -raR $(PYTEST_ARGUMENTS)

# Every process of PyDock is killed at random under four clients: for so many seconds.
PYDOCK_KILL_SECONDS ?= 60
test-kills: $(STAMPS)/test
	PYDOCK_KILL_SECONDS=$(PYDOCK_KILL_SECONDS) $(BIN)/python -m pytest tests/crash/test_random_kills.py $(PYTEST_ARGUMENTS)

test-fast: $(STAMPS)/test
	$(BIN)/python -m pytest $(WORKERS) -m 'not slow' tests/unit tests/contract \
		tests/integration/test_life.py::test_the_whole_life $(PYTEST_ARGUMENTS)

# Node.js is only for those who change the lab extension, and for `make check`.
$(STAMPS)/node: labextension/package.json labextension/yarn.lock $(STAMPS)/check
	cd labextension && PATH="$(CURDIR)/$(BIN):$$PATH" jlpm install --immutable
	@touch $@

lab-build: $(STAMPS)/node
	cd labextension && PATH="$(CURDIR)/$(BIN):$$PATH" jlpm build:prod

check: $(STAMPS)/check $(STAMPS)/node
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --collect-only --quiet --quiet
	cd labextension && PATH="$(CURDIR)/$(BIN):$$PATH" jlpm typecheck && PATH="$(CURDIR)/$(BIN):$$PATH" jlpm lint

bench: $(STAMPS)/test
	$(BIN)/python -m tests.bench $(BENCH_ARGUMENTS)

clean:
	rm -rf $(VENV) $(STAMPS) $(NODE_MODULES) labextension/lib
