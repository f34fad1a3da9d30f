# make demo    install what is needed into .venv and score texts made on this machine
# make test    install the development tools too, lint, and run every test
# make quick   the tests that need neither real models nor real corpora
# make lint    ruff and mypy alone
# make clean   remove .venv, caches and build leftovers
#
# Needs Python 3.11 or newer with venv, and a package index that pip reaches. Another Python: make PYTHON=python3.12 demo

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEV_INSTALLED := $(VENV)/.installed-dev

.PHONY: help demo test quick lint clean

help:
	@sed -n 's/^# make/make/p' Makefile

demo: $(INSTALLED)
	@$(BIN)/pawn demo

# pytest comes last, so that its closing line closes the output and its exit status is the one given back.
test: lint
	@$(BIN)/python -m pytest

quick: $(DEV_INSTALLED)
	@$(BIN)/python -m pytest -m "not slow and not gpu"

lint: $(DEV_INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps are written last: an installation that was interrupted is done again.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed, $(PYTHON) is not or is missing; try: make PYTHON=python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(DEV_INSTALLED): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
