# The one place that knows how to set up, test and show throughtime on a fresh machine.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SPREAD := -n auto --maxprocesses 8 --dist worksteal  # pytest: a process a core

.PHONY: demo test test-all soak lint docs check format clean

demo: $(STAMP)  ## fit and compare models of daily index prices
	$(BIN)/throughtime fit demo:prices -o runs/demo

test: $(STAMP)  ## the tests, without those that are long by nature
	$(BIN)/python -m pytest -q $(SPREAD) -m 'not slow'

test-all: $(STAMP)  ## every test
	$(BIN)/python -m pytest -q $(SPREAD)

soak: $(STAMP)  ## damaged files of every kind, for SOAK_SECONDS
	$(BIN)/python benchmarks/soak.py $(or $(SOAK_SECONDS),600)

docs: $(STAMP)  ## the guide and the reference of the Python interface, in build/docs
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/docs

lint: $(STAMP)  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(STAMP): pyproject.toml constraints.txt
	@test -d $(VENV) || { echo "making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing throughtime and what it needs (about 250 MB, one to three minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

clean:
	rm -rf $(VENV) build src/*.egg-info
