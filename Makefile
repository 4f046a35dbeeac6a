# Everything the project does, by name. `make` lists it.
.DEFAULT_GOAL := help
SHELL := bash
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

.PHONY: help setup demo train data test lint format bench reproduce-fig3 reproduce-mnist wheel clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'
	@echo; echo "  ARGS='key=value …' passes overrides on: make train ARGS='training=in_silico device.gap=0.4'"

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

reproduce-fig3: setup ## Fig. 3: Fashion-MNIST oscillators, three training modes, re-evaluated with a finer integrator
	@echo "about an hour and a half on 2 cores; a finished run is not repeated"
	@set -e; for mode in pat in_silico ideal; do run=outputs/fig3_fashion_mnist/$$mode-seed0; \
	  test -f $$run/summary.json || $(BIN)/pnn-train experiment=fig3_fashion_mnist training=$$mode out=$$run $(ARGS); \
	  echo "$$mode, device integrated four times finer:"; \
	  $(BIN)/pnn-evaluate ckpt_path=$$run/checkpoints/best.ckpt system.device_steps=48; done

reproduce-mnist: setup ## MNIST 196 → 206 oscillators without a gap
	@$(BIN)/pnn-train experiment=mnist_oscillators $(ARGS)

wheel: setup ## build dist/*.whl
	@$(BIN)/python -m hatchling build -t wheel

clean: ## remove caches and builds (not data, not outputs)
	@rm -rf dist build .pytest_cache .ruff_cache .mypy_cache
