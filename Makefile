# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

.PHONY: help setup demo render check test bench bench-peers fix clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	touch $@

setup: $(STAMP)  ## the environment in .venv

demo: $(STAMP)  ## render the example scene over two local servers to demo.exr and demo.png
	$(BIN)/dr render examples/demo.scene.toml --local-servers 2 -o demo.exr -o demo.png
	@echo "the picture: $(CURDIR)/demo.png and $(CURDIR)/demo.exr"

render: $(STAMP)  ## make render SCENE=file.glb OUT=out.exr
	$(BIN)/dr render $(SCENE) -o $(OUT)

check: $(STAMP)  ## format, lint, types, import arrows, fast tests: under a minute
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n 2 -m "not slow and not data" tests/rooms tests/unit tests/wire

test: $(STAMP)  ## the whole suite, in two processes
	$(BIN)/pytest -n 2

bench: $(STAMP)  ## kernels, scenes, broker, farm: ratios, with the machine named
	$(BIN)/python -m bench.report

bench-peers: $(STAMP)  ## install the renderers that we measure against, each in an environment of its own
	bash bench/peers/install.sh

fix: $(STAMP)  ## format and repair what a tool can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove the environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
