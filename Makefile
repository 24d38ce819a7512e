# make demo   sets everything up, then: videos -> shards -> two trainings -> table and report in runs/demo
# make test   sets everything up, then runs the tests
# make lint   ruff
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint clean

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin

help:
	@sed -n 's/^# //p' Makefile

# the virtual environment is rebuilt when the dependencies change
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "unstill needs Python >= 3.11, found " + sys.version.split()[0] + ": run make PYTHON=/path/to/newer/python3")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

setup: $(VENV)/.installed

demo: setup
	$(BIN)/unstill demo

test: setup
	$(BIN)/python -m pytest -q --durations=15

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) runs build *.egg-info src/*.egg-info
