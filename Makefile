# Everything from a fresh clone: `make demo`, `make test`, `make lint`, `make bench`, `make bench-step`,
# `make bench-micro`. On a machine with a GPU, in its own Python with torch: `make gpu-check PYTHON=python3`.
# Choose another torch with TORCH=..., e.g.  make test TORCH="torch==2.10.0"
PYTHON ?= python3
TORCH  ?= torch==2.13.0
VENV   ?= .venv
# Test processes side by side.
JOBS   ?= 2
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
BENCH_STAMP := $(VENV)/.installed-bench
TORCH_STAMP := $(VENV)/.torch-$(subst /,_,$(subst $(eval ) ,_,$(TORCH)))
# What the native module and the package's metadata are made from; pure-Python edits need no reinstall.
BUILD_INPUTS := pyproject.toml $(wildcard csrc/*) $(wildcard csrc/*/*) $(wildcard kernels/*)

.PHONY: install test lint demo bench bench-step bench-micro gpu-check clean

install: $(STAMP)

$(TORCH_STAMP):
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=24"
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	rm -f $(VENV)/.torch-* && touch "$@"

$(STAMP): $(TORCH_STAMP) $(BUILD_INPUTS)
	$(BIN)/python -m pip install --quiet -e ".[test]"
	touch $@

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

test: $(STAMP) lint
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

demo: $(STAMP)
	$(BIN)/structloss demo $(ARGS)

# KeOps, one of the ways that are compared, is not needed for anything else.
$(BENCH_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet -e ".[test,bench]"
	touch $@

bench: $(BENCH_STAMP)
	$(BIN)/python bench/run.py $(ARGS)

bench-step: $(STAMP)
	$(BIN)/python bench/step.py $(ARGS)

bench-micro: $(STAMP)
	$(BIN)/python -m pytest bench/test_micro.py --benchmark-only $(ARGS)

gpu-check:
	PYTHON=$(PYTHON) bench/gpu_check.sh $(ARGS)

clean:
	rm -rf build dist $(VENV)
