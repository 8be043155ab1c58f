# make demo      run the main experiment on synthetic and real data and write reports
# make test      run the tests
# make bench     run the benchmarks, which takes an hour (ARGS=--even-if-loaded runs them on a loaded machine)
# make lint      check style, types and C++ formatting
# make format    fix style and formatting
# make gpu       run the tests and benchmarks of a GPU (OFFLINE=1 on a machine without network)
# make validate  measure the coverage of intervals by simulation, which takes hours (an interrupted run continues)
# make docs      build the documentation
# make clean     delete .venv and build/
#
# Each target creates .venv and installs its requirements if they are missing or out of date.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt
SOURCES := pyproject.toml constraints.txt CMakeLists.txt $(shell find csrc -type f)

.PHONY: demo test bench gpu validate lint format docs clean
.DELETE_ON_ERROR:

demo: $(VENV)/installed
	$(BIN)/modalign demo

test: $(VENV)/tests
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

bench: $(VENV)/bench
	$(BIN)/python -m benchmarks.compare all --out benchmarks/results/$$(uname -n)-$$(date +%F-%H%M).json $(ARGS)
	$(BIN)/python -m benchmarks.speed --write

validate: $(VENV)/tests
	$(BIN)/python -m benchmarks.validate --out benchmarks/results/coverage-$$(date +%F).json
	$(BIN)/python -m benchmarks.information_coverage build/information-coverage \
		--out benchmarks/results/information-coverage.json --page docs/information.md
	$(BIN)/python -m benchmarks.verdicts --out benchmarks/results/verdicts-$$(date +%F).json --install --page docs/verdicts.md
	$(BIN)/python -m benchmarks.tune_probability --out benchmarks/results/tune-probability-$$(date +%F).json
	$(BIN)/python -m benchmarks.ties build/ties --out benchmarks/results/ties.json --page docs/alignment.md

# OFFLINE=1 uses $(PYTHON) and the packages that are installed with it, for machines without network
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

# The installation is editable: changes of Python files take effect at once, changes of C++ files run this rule again.
# The rules below add the packages of an extra to it, and do not compile the core again.
$(VENV)/installed: $(SOURCES)
	@echo "modalign: creating $(VENV) and compiling the core (a minute or two on the first run)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) --editable .
	@touch $@

$(VENV)/tests: $(VENV)/installed
	@echo "modalign: installing the packages for the tests"
	@$(PIP) 'modalign[test]'
	@touch $@

$(VENV)/bench: $(VENV)/tests
	@echo "modalign: installing the libraries that benchmarks compare with"
	@$(PIP) 'modalign[bench]'
	@touch $@

$(VENV)/lint: $(VENV)/tests
	@echo "modalign: installing the linters"
	@$(PIP) 'modalign[lint]'
	@touch $@

$(VENV)/docs: $(VENV)/installed
	@echo "modalign: installing the documentation tools"
	@$(PIP) 'modalign[docs]'
	@touch $@
