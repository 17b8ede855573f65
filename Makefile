# Two commands for a newcomer: `make demo` and `make test`. Everything happens in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test fuzz lint smoke perf gpu docs clean

demo: $(STAMP)
	SNNBENCH_CACHE=.demo/cache $(BIN)/snnbench run demo --results .demo
	SNNBENCH_CACHE=.demo/cache $(BIN)/snnbench leaderboard --results .demo

# One process a core, of one thread each; a file's tests stay together, with what they share.
test: lint
	$(BIN)/pytest --numprocesses auto --dist loadfile

# Mutated files for every reader, for so many seconds each; it stops by itself.
FUZZ_SECONDS ?= 600
fuzz: $(STAMP)
	FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/pytest -s tests/fuzz

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The suite `smoke`, every compressor once, against recorded figures, from nothing: see benchmark/smoke.
smoke: $(STAMP)
	rm -rf .smoke
	SNNBENCH_CACHE=.smoke/cache $(BIN)/python -m benchmark.smoke --results .smoke

perf: $(STAMP)
	$(BIN)/python -m benchmark.perf

# On a machine with a GPU: that it computes what the CPU does, how fast, and then suites for so many minutes; what is
# cut off goes on where it was when it is called again.
GPU_MINUTES ?= 8
GPU_SUITES ?= mnist-dvs cifar100
gpu: $(STAMP)
	$(BIN)/pytest -m cuda tests/cuda tests/hardware/test_callback.py
	$(BIN)/python -m benchmark.perf --device cuda
	for suite in $(GPU_SUITES); do \
		timeout --signal INT $$(( 60 * $(GPU_MINUTES) )) $(BIN)/snnbench run $$suite || [ $$? -eq 124 ] || exit 1; \
	done

# The site, in site/; it needs no network, and a broken link or anchor fails it.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

# uv resolves and installs in a fraction of pip's time; it comes from the same package index. What it installs is
# compiled at once: where Python may not write it down later, every process would compile thousands of files again.
$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .demo .smoke site
