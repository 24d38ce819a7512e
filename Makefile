# make demo       sets everything up, then: videos -> shards -> two trainings -> table and report in runs/demo
# make test       all tests, about nine minutes on two cores
# make test-fast  without the tests marked slow, about 90 seconds: before each commit
# make cover      all tests; coverage of lines and branches on the screen and in build/coverage/index.html
# make lint       ruff and pyright
# make docs       tables and reference of docs/ from result files and code; then the site, in build/docs
# make hooks      lets git run the linters before each commit
# make pins       writes requirements/ci.txt, the versions that CI installs, from what is installed
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast cover lint docs hooks pins clean

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
# a file of exact versions to install: make test PINS=requirements/ci.txt; without it, the newest that fit
PINS ?=
# processes that share the tests; each needs about 2 GiB. make test WORKERS=0 runs them in this process
WORKERS ?= 2
PYTEST = $(BIN)/python -m pytest -q --numprocesses $(WORKERS) --dist worksteal

help:
	@sed -n 's/^# //p' Makefile

# the virtual environment is rebuilt when the dependencies change
$(VENV)/.installed: pyproject.toml $(PINS)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "unstill needs Python >= 3.11, found " + sys.version.split()[0] + ": run make PYTHON=/path/to/newer/python3")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(if $(PINS),--constraint $(PINS)) --editable '.[dev]'
	@touch $@

setup: $(VENV)/.installed

demo: setup
	$(BIN)/unstill demo

test: setup
	$(PYTEST) --durations=15

test-fast: setup
	$(PYTEST) -m "not slow"

cover: setup
	$(PYTEST) --cov --cov-report=term:skip-covered --cov-report=html:build/coverage

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pyright --pythonpath $(BIN)/python

docs: setup
	$(BIN)/python docs/generate
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

hooks: setup
	$(BIN)/pre-commit install

# names and versions only: `pip freeze` would write addresses and paths of this machine, too; sed drops local versions
pins: setup
	@mkdir -p requirements
	{ echo '# What CI installs (pip --constraint), for Python 3.11 on Linux. Written by `make pins`, not by hand.'; \
	  $(BIN)/python -m pip list --format=freeze --exclude-editable --exclude pip --exclude setuptools --exclude unstill \
	  | sed 's/+.*//'; } > requirements/ci.txt

clean:
	rm -rf $(VENV) runs build *.egg-info src/*.egg-info
