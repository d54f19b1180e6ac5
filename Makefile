# make demo        environment + the whole engine on the simulated genome (a few minutes on two cores)
# make test        environment + the tests; slow ones are left to `make test-all`
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install demo test test-all lint bench docs clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: Python 3.11 or newer is needed; found $$($(PYTHON) --version). Use: make PYTHON=python3.11"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e ".[dev]" -c constraints.txt
# The report reads its igv.js; the notebook packages it depends on are not needed for that.
	$(BIN)/python -m pip install --quiet --no-deps igv-notebook -c constraints.txt
	@touch $@

demo: install
	$(BIN)/seq2exp demo --out demo --overwrite

test: install
	$(BIN)/python -m pytest -m "not slow" -n 2

test-all: install
	$(BIN)/python -m pytest -n 2

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The other scripts of benchmarks/ need a run or a data set; each says so at its head.
bench: install
	for name in cli_help loading prepare scan train_step deletion; do $(BIN)/python benchmarks/$$name.py || exit 1; done

clean:
	rm -rf $(VENV) demo
