# `make demo` and `make test` work on a fresh machine that has Python 3.11, 3.12 or 3.13.

PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ROOMS := algorithms envs platform
LINKS := $(ROOMS:%=.typing/oneiros/%)
# Arguments for pytest, as in `make test ARGS="-k replay -x"`.
ARGS ?=
# Many tests wait for processes to start; those that start Ray stay in one worker. 0 runs all in one.
WORKERS ?= 2
# The one version that is chosen by hand: constraints.txt is resolved around it.
TORCH ?= $(shell sed -n 's/^torch==//p' constraints.txt)

.DEFAULT_GOAL := help
.PHONY: help venv typing demo lint test format constraints clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

venv: $(STAMP)  ## create .venv with everything that constraints.txt pins

$(STAMP): pyproject.toml setup.py constraints.txt
	@test -n "$(PYTHON)" || { echo "Oneiros needs Python 3.11, 3.12 or 3.13: none found; name one with 'make PYTHON=...'" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV): some minutes, the first time"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[test]"
	@touch $@

typing: $(LINKS)  ## link the three rooms for type checkers, which do not run import hooks

.typing/oneiros/%:
	@mkdir -p $(@D)
	ln -sfn ../../$* $@

demo: venv  ## train DreamerV3 on CartPole-v1; fails if the agent did not learn
	$(BIN)/oneiros demo

lint: venv typing  ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p oneiros

format: venv  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: venv typing  ## run the tests; ruff and mypy are among them
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadscope --no-loadscope-reorder --max-worker-restart 0 $(ARGS)

# Resolved in an environment of its own, so that nothing installed by hand gets in. `+cpu` and the like are dropped:
# the same pin must hold for every build of a version.
constraints:  ## resolve the dependencies anew into constraints.txt; TORCH=... chooses another PyTorch
	rm -rf build/constraints
	$(PYTHON) -m venv build/constraints
	build/constraints/bin/python -m pip install --quiet "torch==$(TORCH)"
	build/constraints/bin/python -m pip install --quiet --editable ".[test]" "torch==$(TORCH)"
	{ echo "# What CI installs, exactly. Resolved by 'make constraints' with $$($(PYTHON) -V)."; \
	  build/constraints/bin/python -m pip freeze --all --exclude-editable --exclude pip | sed -E 's/\+[a-z0-9.]+$$//'; \
	} > build/constraints.txt
	mv build/constraints.txt constraints.txt
	rm -rf build/constraints

clean:  ## remove what make made; runs stay
	rm -rf $(VENV) .typing build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
