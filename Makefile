PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test test-slow lint benchmarks soak clean

help:  ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

demo: $(VENV)/.runtime  ## set up, then the main job on the nano pool (no key, no GPU, no root)
	$(BIN)/r2reasoner demo

test: $(VENV)/.dev  ## set up, then the fast suite
	$(BIN)/python -m pytest

test-slow: $(VENV)/.dev  ## the long tests, those that train, and those that need a browser
	scripts/system-packages chromium:chromium
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.dev  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

benchmarks: $(VENV)/.dev  ## speed measurements, written to benchmarks/results
	$(BIN)/python benchmarks/client_cpu.py
	$(BIN)/python benchmarks/critical_path.py

soak: $(VENV)/.dev  ## an hour of mixed load on the gateway
	$(BIN)/python benchmarks/gateway_soak.py --minutes 60

$(VENV)/.runtime: pyproject.toml
	scripts/setup runtime $(PYTHON) $(VENV)

$(VENV)/.dev: pyproject.toml
	scripts/setup dev $(PYTHON) $(VENV)

clean:  ## remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
