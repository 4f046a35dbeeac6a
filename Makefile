# Everything the project does, by name. `make` lists it.
.DEFAULT_GOAL := help
SHELL := bash
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
SCALE ?= quick

.PHONY: help setup demo train twin sweep report results data test lint format bench reproduce-toy reproduce-fig2 reproduce-fig3 reproduce-vowels reproduce-mnist reproduce-gap reproduce-transfer reproduce-search reproduce-paper wheel clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'
	@echo; echo "  ARGS='key=value …' passes overrides on: make train ARGS='training=in_silico device.gap=0.4'; SCALE=smoke|quick|full for the reproduce targets: seconds, minutes on 2 cores (default), the paper size"

setup: .venv/.done ## install the pinned packages into .venv

.venv/.done: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "pnn needs Python 3.11 or newer; set PYTHON=python3.x"; exit 2; }
	@echo "installing the pinned packages into .venv (a minute or two)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup ## the main job: three training modes on a device with a reality gap, ten seeds, a table and a picture
	@$(BIN)/pnn-demo $(ARGS)

train: setup ## pnn-train $(ARGS)
	@$(BIN)/pnn-train $(ARGS)

twin: setup ## pnn-twin $(ARGS): fit a digital model to a device or to measurements, and judge it
	@$(BIN)/pnn-twin $(ARGS)

sweep: setup ## pnn-sweep $(ARGS): search hyper-parameters on validation data with Optuna; repeat to resume
	@$(BIN)/pnn-sweep $(ARGS)

report: setup ## pnn-report outputs $(ARGS): one page and tables from all finished runs
	@$(BIN)/pnn-report outputs $(ARGS)

results: setup ## docs/RESULTS.md and the README's table, from the finished runs in outputs and those kept in docs/results.jsonl
	@mkdir -p outputs && $(BIN)/pnn-report outputs --ledger docs/results.jsonl --markdown docs/RESULTS.md --readme README.md $(ARGS)

data: setup ## fetch and verify MNIST, Fashion-MNIST and the vowels
	@$(BIN)/pnn-data $(ARGS)

test: setup ## the tests
	@$(BIN)/python -m pytest -n 2 $(ARGS)

lint: setup ## ruff (rules and format) and mypy
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: setup ## let ruff mend what it can
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

bench: setup ## speed, as ratios measured in one process
	@$(BIN)/python -m benchmarks.speed $(ARGS)

reproduce-toy: setup ## the reality gap in closed form: a chain of power laws
	@$(BIN)/pnn-reproduce toy scale=$(SCALE) $(ARGS)

reproduce-fig2: setup ## plate, circuit and second-harmonic generation on MNIST, with their references
	@$(BIN)/pnn-reproduce fig2 scale=$(SCALE) $(ARGS)

reproduce-fig3: setup ## Fashion-MNIST, 1,610 oscillators: three training modes, two devices
	@$(BIN)/pnn-reproduce fig3 scale=$(SCALE) $(ARGS)

reproduce-vowels: setup ## second-harmonic generation on spoken vowels, speaker-disjoint splits
	@$(BIN)/pnn-reproduce vowels scale=$(SCALE) $(ARGS)

reproduce-mnist: setup ## MNIST, 196 to 206 oscillators without a gap
	@$(BIN)/pnn-reproduce mnist scale=$(SCALE) $(ARGS)

reproduce-gap: setup ## the reality gap: three training modes at six gaps
	@$(BIN)/pnn-reproduce gap scale=$(SCALE) $(ARGS)

reproduce-transfer: setup ## networks trained on a gap, judged on fresh devices
	@$(BIN)/pnn-reproduce transfer scale=$(SCALE) $(ARGS)

reproduce-search: setup ## networks found by search, against the paper's at equal device records
	@$(BIN)/pnn-reproduce search scale=$(SCALE) $(ARGS)

reproduce-paper: setup ## all of these, then the report
	@$(BIN)/pnn-reproduce paper scale=$(SCALE) $(ARGS)

wheel: setup ## build dist/*.whl
	@$(BIN)/python -m hatchling build -t wheel

clean: ## remove caches and builds (not data, not outputs)
	@rm -rf dist build .pytest_cache .ruff_cache .mypy_cache
