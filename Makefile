# Needs make and CPython 3.11 or newer, nothing else: the first target that is used makes a virtual environment with
# exactly the packages of requirements/dev.txt, each checked against its hash.

.DEFAULT_GOAL := help
SHELL := /bin/sh
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LOCK := requirements/dev.txt

# Arguments for the demo and the benchmark, e.g. make demo ARGS=--keep
ARGS ?=
# The demo's data: bakery (default) or freshretailnet, e.g. make demo DATA=freshretailnet
DATA ?=

.PHONY: help
help: ## what there is
	@echo "targets:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-16s %s\n", $$1, $$2 }'
	@echo "variables: ARGS (for demo, test and bench), DATA (for demo), PYTHON (the interpreter), VENV (default .venv)"

.PHONY: demo
demo: $(READY) ## real Kafka, real data, forecasts against what was sold; opens no ports but local ones
	$(BIN)/python -m demo $(if $(DATA),--data $(DATA)) $(ARGS)

.PHONY: test
# The tests start hundreds of processes: each of them would compile our modules anew where this variable is set.
test: export PYTHONDONTWRITEBYTECODE =
test: $(READY) ## all tests, with at least 90 % of the statements of worker/ and schemas/ run
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=90

.PHONY: lint
lint: $(READY) ## style and common mistakes
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: types
types: $(READY) ## static types, strictly
	$(BIN)/mypy

.PHONY: bench
bench: $(READY) ## rows per second against a plain loop and a bare copy, in the same run
	$(BIN)/python -m bench $(ARGS)

.PHONY: docs
docs: $(READY) ## write docs/metrics.md and docs/settings.md from the declarations
	$(BIN)/python -m worker.reference --write docs

.PHONY: lock
lock: ## pin all packages anew, with hashes (needs uv)
	@command -v uv >/dev/null || { echo "make lock needs uv: pip install uv"; exit 1; }
	@echo '# Written by `make lock` from pyproject.toml: every version pinned, every file hashed. Do not edit.' > $(LOCK).new
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --upgrade \
	    --no-header --no-annotate --no-emit-index-url --quiet >> $(LOCK).new
	mv $(LOCK).new $(LOCK)

.PHONY: clean
clean: ## remove everything that was built, also the virtual environment
	rm -rf $(VENV) build dist out htmlcov *.egg-info .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find worker schemas demo bench tests -name __pycache__ -prune -exec rm -rf {} +

# The package itself is installed in place; its build backend is in requirements/dev.txt, so nothing is fetched unpinned.
$(READY): $(LOCK) pyproject.toml tools/find_python.sh
	@python=$$(sh tools/find_python.sh "$(PYTHON)") && echo "environment: $(VENV), $$($$python --version)" \
	    && $$python -m venv $(VENV)
	@echo "packages: pinned and checked by hash; about a minute the first time"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $(LOCK)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index --editable .
	@touch $@
