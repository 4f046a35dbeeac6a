# Everything the project does, by name. `make` lists it.
.DEFAULT_GOAL := help
SHELL := bash
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
SEED ?= 0
# $(call run,NAME,OVERRIDES): train into outputs/NAME-seedN, unless that run is finished
run = test -f outputs/$(1)-seed$(SEED)/summary.json || $(BIN)/pnn-train $(2) seed=$(SEED) out=outputs/$(1)-seed$(SEED) $(ARGS)

.PHONY: help setup demo train twin sweep report data test lint format bench reproduce-toy reproduce-fig2 reproduce-vowels reproduce-fig3 reproduce-mnist wheel clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'
	@echo; echo "  ARGS='key=value …' passes overrides on: make train ARGS='training=in_silico device.gap=0.4'; SEED=N for the reproduce targets"

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
	@$(BIN)/pnn-toy $(ARGS)

reproduce-fig2: setup ## plate, circuit and second-harmonic generation on MNIST, with their references (hours)
	@set -e; for name in fig2_plate fig2_electronic fig2_shg; do \
	  $(call run,$$name/pat,experiment=$$name); \
	  $(call run,$$name/in_silico,experiment=$$name training=in_silico); \
	  $(call run,$$name/linear_physics,experiment=$$name reference=linear); \
	  $(call run,$$name/clamped,experiment=$$name reference=clamped); \
	  $(call run,$$name/identity,experiment=$$name reference=identity); \
	  $(call run,$$name/linear_classifier,experiment=$$name reference=linear_classifier); done

reproduce-vowels: setup ## second-harmonic generation on spoken vowels, PAT and in silico, ten speaker-disjoint splits
	@set -e; for split in 0 1 2 3 4 5 6 7 8 9; do for mode in pat in_silico; do \
	  $(call run,vowels_shg/$$mode-split$$split,experiment=vowels_shg training=$$mode task.split_seed=$$split); done; done

reproduce-fig3: setup ## Fig. 3: Fashion-MNIST oscillators, three training modes, re-evaluated with a finer integrator
	@echo "about an hour and a half on 2 cores; a finished run is not repeated"
	@set -e; for mode in pat in_silico ideal; do \
	  $(call run,fig3_fashion_mnist/$$mode,experiment=fig3_fashion_mnist training=$$mode); \
	  echo "$$mode, device integrated six times finer:"; \
	  $(BIN)/pnn-evaluate ckpt_path=outputs/fig3_fashion_mnist/$$mode-seed$(SEED)/checkpoints/best.ckpt system.device_steps=48; done

reproduce-mnist: setup ## MNIST 196 → 206 oscillators without a gap
	@$(call run,mnist_oscillators/ideal,experiment=mnist_oscillators)

wheel: setup ## build dist/*.whl
	@$(BIN)/python -m hatchling build -t wheel

clean: ## remove caches and builds (not data, not outputs)
	@rm -rf dist build .pytest_cache .ruff_cache .mypy_cache
