# Everything sets itself up in .venv; Python 3.11 or newer is all that must be there.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: demo test test-full lint

# Pre-trains on built-in videos and shows what came out: minutes on two CPU cores.
demo: .venv/installed
	$(BIN)/python train.py --config configs/quickstart.py

# What CI runs.
test: .venv/installed-test lint
	$(BIN)/python -m pytest -m "not full" --numprocesses 2 --dist worksteal

# And what is slow.
test-full: .venv/installed-test lint
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

lint: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

.venv/installed-test: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[test]"
	touch $@
