# make demo: environment, then the main job end to end on bundled images.   make test: environment, then all checks.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
AUTOGLUON_VENV ?= .venv-autogluon

.PHONY: demo test check env clean test-optuna4 test-autogluon

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

# Optuna's adapter under the last version before 5, in front of the environment's own; not part of `make test`.
test-optuna4: $(VENV)/.installed
	$(PYTHON) -m venv --clear $(VENV)/optuna4
	$(VENV)/optuna4/bin/python -m pip install --quiet --no-deps "optuna==4.9.*"
	echo "import site; site.addsitedir('$$($(BIN)/python -c 'import site; print(site.getsitepackages()[0])')')" \
	  > $$($(VENV)/optuna4/bin/python -c 'import site; print(site.getsitepackages()[0])')/beneath.pth
	$(VENV)/optuna4/bin/python -m pytest --quiet tests/test_integrations_optuna.py

# AutoGluon pins older versions of what we use, so it has an environment of its own. Nothing is looked for in
# folders of wheels that pip may be set to: a build of torch from there need not fit the index's torchvision.
$(AUTOGLUON_VENV)/.installed: pyproject.toml setup.cfg
	$(PYTHON) -m venv --clear $(AUTOGLUON_VENV)
	$(AUTOGLUON_VENV)/bin/python -m pip install --quiet --upgrade pip
	PIP_FIND_LINKS=$(abspath $(AUTOGLUON_VENV)) $(AUTOGLUON_VENV)/bin/python -m pip install --quiet \
	  --editable ".[autogluon]" "hypothesis>=6.100" "pytest>=8"
	touch $@

# What the whole package stands on, in files whose networks AutoGluon's timm (1.0.3) can make.
AUTOGLUON_CORE = $(addprefix tests/test_, data_images.py embedding.py fisher_values.py head.py hub_cards.py \
  preprocessing.py catalog_sync.py ranking.py selector.py task2vec.py)

# Downloads some 3 GB at first, mostly torch.
test-autogluon: $(AUTOGLUON_VENV)/.installed
	$(AUTOGLUON_VENV)/bin/python -m pip check
	$(AUTOGLUON_VENV)/bin/python -m pytest --quiet -m autogluon tests/test_integrations_autogluon.py
	$(AUTOGLUON_VENV)/bin/python -m pytest --quiet $(AUTOGLUON_CORE)

clean:
	rm -rf $(AUTOGLUON_VENV) $(VENV) build dist t2v_demo .mypy_cache .ruff_cache .pytest_cache *.egg-info
