# Everything a fresh machine needs is Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SEEDS ?= 1000

.PHONY: help demo test coverage lint types contracts docs docs-check simulate bench clean

help:  ## say what there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

# Debian ships venv without pip unless python3-venv is installed; root gets it, anybody else is told.
$(VENV)/run: pyproject.toml
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	  [ "$$(id -u)" = 0 ] && apt-get install -qq -y python3-venv >/dev/null 2>&1; } || { \
	  [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -qq -y python3-venv >/dev/null; } || { \
	  echo "Python's venv module lacks pip here. As root: apt-get install python3-venv, then run make again." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/dev: pyproject.toml $(VENV)/run
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@

demo: $(VENV)/run  ## the whole story on this machine, in under three minutes
	$(BIN)/glebe demo

test: $(VENV)/dev  ## all tests
	$(BIN)/pytest -n 2

coverage: $(VENV)/dev  ## all tests, with a report of what they reach
	$(BIN)/pytest -n 2 --cov --cov-report=term:skip-covered --cov-report=html

lint: $(VENV)/dev
	$(BIN)/ruff check src tests benchmarks tools examples
	$(BIN)/ruff format --check src tests benchmarks tools examples

types: $(VENV)/dev
	$(BIN)/mypy

contracts: $(VENV)/dev
	$(BIN)/lint-imports

docs: $(VENV)/dev  ## regenerate the generated pages and manifests
	$(BIN)/python tools/generate.py

docs-check: $(VENV)/dev
	$(BIN)/python tools/generate.py --check

simulate: $(VENV)/dev  ## make simulate SEEDS=N: the platform under faults and virtual time
	$(BIN)/glebe simulate --seeds $(SEEDS)

bench: $(VENV)/dev  ## the performance suite
	$(BIN)/python benchmarks/run.py

clean:
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis
