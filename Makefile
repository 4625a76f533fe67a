# Everything from a fresh clone: `make demo`, `make test`, `make lint`, `make bench`.
# Choose another torch with TORCH=..., e.g.  make test TORCH="torch==2.10.0"
PYTHON ?= python3
TORCH  ?= torch==2.13.0
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
TORCH_STAMP := $(VENV)/.torch-$(subst /,_,$(subst $(eval ) ,_,$(TORCH)))
# What the native module and the package's metadata are made from; pure-Python edits need no reinstall.
BUILD_INPUTS := pyproject.toml $(wildcard csrc/*) $(wildcard kernels/*)

.PHONY: install test lint demo bench clean

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
	$(BIN)/python -m pytest $(ARGS)

demo: $(STAMP)
	$(BIN)/structloss demo $(ARGS)

bench: $(STAMP)
	$(BIN)/python bench/run.py $(ARGS)

clean:
	rm -rf build dist $(VENV)
