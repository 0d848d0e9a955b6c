# Two commands for everyone (`make demo`, `make test`); each sets up what it needs.
PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin

.PHONY: demo test slow oracle lint types clean

demo: .venv/installed
	$(BIN)/python -m examples.demo demo

test: .venv/installed-dev
	$(BIN)/python -m pytest

slow: .venv/installed-dev
	$(BIN)/python -m pytest -m slow

# Against programs of others, which nothing that ships may import.
oracle: .venv/installed-dev
	$(BIN)/python -m pip install --quiet --group oracle
	$(BIN)/python -m pytest tests/evaluation/metrics/test_oracle.py

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed-dev
	$(BIN)/pyright

# torch goes first and pinned: left to a range, pip may fetch gigabytes of another build.
.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet --group dev
	touch $@

clean:
	rm -rf .venv demo runs
