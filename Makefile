# make demo: environment, then the main job end to end on bundled images.   make test: environment, then all checks.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test check env clean

demo: $(VENV)/.installed
	$(BIN)/t2v demo --out t2v_demo

test: $(VENV)/.installed check

env: $(VENV)/.installed

# Built from the project's own files, and anew when they change.
$(VENV)/.installed: pyproject.toml setup.cfg
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

# The checks in the present environment.
check:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --quiet --durations=10

clean:
	rm -rf $(VENV) build dist t2v_demo .mypy_cache .ruff_cache .pytest_cache *.egg-info
