# Every target is complete on a machine that has git, python3 (3.10 to 3.13) and make: it creates
# .venv, installs what it needs from the locked versions in constraints.txt, and runs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
INPUTS := pyproject.toml constraints.txt
# The files of tests on all processors, each of which computes with one thread.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile

.PHONY: demo federated-demo test test-slow bench lint type docs screenshots clean

demo: $(VENV)/.runtime
	$(BIN)/brainlandmarks detect sample:colin27 -o demo --overwrite

federated-demo: $(VENV)/.dev
	$(BIN)/python docs/federated_demo.py $(if $(SITES),--sites $(SITES)) $(if $(BATCH_NORM),--batch-norm $(BATCH_NORM))

test: $(VENV)/.dev
	$(PYTEST)
	$(PYTEST) Testing/Slicer

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow
	$(BIN)/python -m pytest -m slow Testing/Slicer

bench: $(VENV)/.dev
	set -e; for script in Testing/Benchmarks/bench_*.py; do $(BIN)/python $$script; done

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

type: $(VENV)/.dev
	$(BIN)/mypy

docs: $(VENV)/.dev
	$(BIN)/python docs/build.py $(if $(AFIDS),--afids $(AFIDS)) $(if $(LABEL_MAPS),--label-maps $(LABEL_MAPS))

screenshots: $(VENV)/.dev
	$(BIN)/python docs/screenshots.py

clean:
	rm -rf demo demo_federation build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

# Two stages, so that the demo does not wait for the test tools. The stamps make a second call skip
# the installation until the requirements change.
$(VENV)/.runtime: $(INPUTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) setuptools
	$(INSTALL) --no-build-isolation --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(INSTALL) --no-build-isolation --editable ".[dev]"
	touch $@
