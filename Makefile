# make demo   the main job on real data, with a report at the end
# make test   the tests            make bench  the benchmarks (an hour; ARGS=--even-if-loaded)
# make lint   style, types, C++ format
# make gpu    tests and benchmarks on a GPU
# make validate   how often intervals hold, by simulation
# make docs   the documentation    make clean  forget .venv and build/
#
# Each target makes .venv and installs what it needs when that is missing or out of date.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt
SOURCES := pyproject.toml constraints.txt CMakeLists.txt $(shell find csrc -type f)

.PHONY: demo test bench gpu validate lint format docs clean
.DELETE_ON_ERROR:

demo: $(VENV)/installed
	$(BIN)/modalign demo

test: $(VENV)/tests
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

bench: $(VENV)/bench
	$(BIN)/python -m benchmarks.compare all --out benchmarks/results/$$(uname -n)-$$(date +%F-%H%M).json $(ARGS)
	$(BIN)/python -m benchmarks.speed --write

validate: $(VENV)/tests
	$(BIN)/python -m benchmarks.validate --out benchmarks/results/coverage-$$(date +%F).json

# with OFFLINE=1, on a machine without network, by $(PYTHON) and what is installed with it
gpu: $(if $(OFFLINE),,$(VENV)/tests)
	benchmarks/gpu/gpu.sh $(if $(OFFLINE),$(PYTHON),$(BIN)/python)

lint: $(VENV)/lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $$(find csrc tests -name '*.[ch]pp' -o -name '*.cu' -o -name '*.cuh')

format: $(VENV)/lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(find csrc tests -name '*.[ch]pp' -o -name '*.cu' -o -name '*.cuh')

docs: $(VENV)/docs
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) build

# An editable install: Python changes count at once, C++ changes make this rule run again.
$(VENV)/installed: $(SOURCES)
	@echo "modalign: making $(VENV) and compiling the core (a minute or two on the first run)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) --editable .
	@touch $@

$(VENV)/tests: $(VENV)/installed
	@echo "modalign: installing what the tests need"
	@$(PIP) --editable '.[test]'
	@touch $@

$(VENV)/bench: $(VENV)/tests
	@echo "modalign: installing the rivals"
	@$(PIP) --editable '.[test,bench]'
	@touch $@

$(VENV)/lint: $(VENV)/tests
	@echo "modalign: installing the linters"
	@$(PIP) --editable '.[test,lint]'
	@touch $@

$(VENV)/docs: $(VENV)/installed
	@echo "modalign: installing the documentation tools"
	@$(PIP) --editable '.[docs]'
	@touch $@
