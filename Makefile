# memwarden's commands. On a machine with Python 3.11 or later, make and a package registry, `make run` and `make test`
# need nothing else: the first target that wants it makes .venv, from the locks alone.

SHELL := /bin/sh
.SUFFIXES:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
# Newer than all that decides what stands in .venv, or .venv is brought up to date.
STAMP := $(VENV)/.memwarden-installed
CATALOGUES := $(wildcard bot/locales/*/LC_MESSAGES/*.po)
PYTEST := $(BIN)/python -m coverage run -m pytest
# More for pytest: make test ARGS="-x -k memory"
ARGS ?=
EXPORT := uv export --quiet --locked --no-emit-project --no-header --all-groups --format requirements-txt

.PHONY: run test openssh check lint types imports locales locks lab bench chaos chaos-sample coverage format lock install clean help

run: install  ## Start the bot here (the console, if nothing is configured)
	@exec $(BIN)/memwarden run

test: install  ## Every test that needs Python alone
	$(PYTEST) $(ARGS)

openssh: install  ## The tests against a real sshd with dash, bash and busybox (root)
	$(PYTEST) -m "openssh or root" $(ARGS)

check: lint types imports locales locks  ## Lint, types, imports, locales, locks

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

imports: install
	$(BIN)/lint-imports

locales: install
	$(BIN)/python -m bot.i18n --check

locks:
	@sh tools/check-locks

lab: install  ## The tests against a real 2 GB server in QEMU (built on first use, as root)
	$(BIN)/python -m tests.lab.build
	$(PYTEST) tests/lab -m lab -o faulthandler_timeout=1200 $(ARGS)

bench: install  ## Measure round trips, memory and start against the limits
	$(BIN)/python -m pytest -m bench -s -o faulthandler_timeout=1200 $(ARGS)

chaos: install  ## Break links, processes and clocks, and look at what is left
	$(BIN)/python -m pytest -m chaos -o faulthandler_timeout=1200 $(ARGS)

chaos-sample: install  ## A tenth of the random rounds of chaos; MEMWARDEN_SEED replays them
	MEMWARDEN_ROUNDS=20 $(BIN)/python -m pytest -m chaos tests/chaos/test_kills_random.py -o faulthandler_timeout=600 $(ARGS)

coverage: install  ## Branch coverage of remote/ and handlers/ over all runs since `make clean`; 95 % or red
	$(BIN)/coverage combine --quiet --keep
	$(BIN)/python tools/coverage_floor.py 95

format: install  ## Format and fix what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock:  ## Resolve again and write uv.lock and requirements.lock (uv)
	uv lock
	$(EXPORT) --output-file requirements.lock

install: $(STAMP)  ## Make .venv with .venv/bin/memwarden

$(STAMP): pyproject.toml uv.lock requirements.lock hatch_build.py tools/make-venv $(CATALOGUES)
	@sh tools/make-venv $(VENV)
	@touch $@

clean:  ## Forget coverage data and caches (not .venv, not the lab's image)
	rm -rf .coverage .coverage.* htmlcov .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

help:  ## This
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
