# Everything a newcomer needs: `make report` and `make test`. See `make help`.
# The Python that makes .venv: newest is the newest supported one in PATH (tests/environment/find_python.sh); or name one.
PYTHON ?= newest
PROFILE ?= default
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
PEERS := $(VENV)/.peers
JOBS ?= 2
TESTS = $(PY) -m pytest -n $(JOBS) --dist worksteal -p no:nbmake --durations=10
export PYTHONHASHSEED := 0
export TOKENIZERS_PARALLELISM := false
export HF_HUB_DISABLE_TELEMETRY := 1
export OMP_NUM_THREADS ?= 1

.PHONY: help install report test test-full coverage test-elsewhere test-oldest test-newest lint figures mutants notebooks check-notebooks peers bench conformance site clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  PROFILE=smoke|default|full scales the notebooks (now: $(PROFILE))"

$(STAMP): requirements.lock pyproject.toml
	@test -x $(PY) || { python=$$(sh tests/environment/find_python.sh $(PYTHON)) && "$$python" -m venv $(VENV); }
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

install:  ## make .venv with the pinned set
	@if $(MAKE) -q $(STAMP); then echo "install: .venv is up to date, nothing to install"; else $(MAKE) --no-print-directory $(STAMP); fi

report: install  ## run every notebook at PROFILE, then build report/report.pdf
	$(MAKE) --no-print-directory check-notebooks PROFILE=$(PROFILE)
	$(PY) -m report

test: install lint  ## linter, types, tests (some as other processors would), notebooks, report
	@if $(PY) -c "import sys; sys.exit(sys.version_info < (3, 12))"; then $(MAKE) --no-print-directory coverage; \
	  else $(TESTS) && echo "coverage: costs half the time again before Python 3.12; make coverage measures it"; fi
	$(PY) tests/environment/elsewhere.py --processors torch onednn arrays threads --jobs $(JOBS)
	$(MAKE) --no-print-directory check-notebooks PROFILE=smoke
	$(PY) -m report --check

# From Python 3.12 on the interpreter itself reports lines, at little cost.
coverage: install  ## the tests, and which share of the lines they run
	COVERAGE_CORE=$$($(PY) -c "import sys; print('ctrace' if sys.version_info < (3, 12) else 'sysmon')") \
	  $(TESTS) --cov --cov-report=
	@echo "coverage: $$($(PY) -m coverage report --format=total) % of lines ($(PY) -m coverage report names those without)"

test-full: install  ## the grids that make test leaves out; the zoo's counts go to tests/adapters/zoo.json
	$(TESTS) -m full --ignore tests/adapters/test_zoo.py
	$(PY) tests/adapters/run_zoo.py --jobs $(JOBS) --write tests/adapters/zoo.json

test-elsewhere: install  ## tests and notebooks as other processors would run them
	$(PY) tests/environment/elsewhere.py --checks committed notebooks
	$(PY) tests/environment/elsewhere.py --checks suite --processors threads old

# Environments of their own, brought up to date each time; tests/environment/constraints.py says what is held at which release.
# The oldest set runs on the oldest Python, for which all its releases have wheels. Its torch may be a CUDA build.
test-oldest: PYTHON_OF_RANGE = $(PYTHON:newest=oldest)
test-newest: PYTHON_OF_RANGE = $(PYTHON)
test-oldest:  ## the tests with the lowest releases that pyproject.toml allows, in .venv-oldest
test-newest:  ## the tests with the highest ones, torch at the lock's, in .venv-newest
test-oldest test-newest: test-%:
	@test -x .venv-$*/bin/python || \
	  { python=$$(sh tests/environment/find_python.sh $(PYTHON_OF_RANGE)) && "$$python" -m venv .venv-$*; }
	.venv-$*/bin/python tests/environment/constraints.py $* >.venv-$*/constraints.txt
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check --upgrade --upgrade-strategy eager \
	  -c .venv-$*/constraints.txt -e '.[dev]'
	.venv-$*/bin/python -m pytest -n $(JOBS)

lint: install  ## ruff and mypy
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

check-notebooks: install  ## execute the notebooks without saving their outputs
	PROFILE=$(PROFILE) $(PY) -m pytest -n $(JOBS) --nbmake --nbmake-timeout=900 --override-ini=filterwarnings=default \
	  --override-ini=testpaths=notebooks notebooks

notebooks: install  ## execute the notebooks and save their outputs
	PROFILE=$(PROFILE) $(PY) -m pytest --nbmake --nbmake-timeout=3600 --overwrite --override-ini=filterwarnings=default \
	  --override-ini=testpaths=notebooks notebooks
	$(VENV)/bin/nbstripout --keep-output --keep-count --extra-keys "metadata.language_info cell.metadata.execution" notebooks/*.ipynb

figures: install  ## rebuild the report's figures from report/results
	$(PY) -m report --figures

site: install  ## a static page of the report's figures and tables: site/index.html
	$(PY) -m report --site

# backpack, which curvlinops needs, asks for torchvision, whose release for another torch breaks `import peft`.
$(PEERS): $(STAMP) Makefile
	$(PY) -m pip install --quiet --disable-pip-version-check --no-build-isolation -c requirements.lock -e '.[bench]'
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps curvlinops-for-pytorch==3.0.1 backpack-for-pytorch==1.7.1
	@touch $@

peers: install $(PEERS)  ## install the libraries that the benchmarks compare with

bench: peers  ## benchmarks against peers; writes report/results/bench_*.json
	$(PY) -m analysis bench all

conformance: install  ## PEFT's own test classes against this project's tuner
	$(PY) tests/conformance/run.py

# An hour of one core at the lowest priority; ROOMS and MUTANTS narrow it: make mutants ROOMS=plots MUTANTS=40
ROOMS ?=
MUTANTS ?= 200
mutants: install  ## mutation scores of the tests of statistics, plots and measures
	nice -n 19 $(PY) tests/project/mutants.py $(ROOMS) --count $(MUTANTS)

clean:  ## remove what was built (.venv and cached runs stay)
	rm -rf build site report/generated report/report.pdf .pytest_cache .mypy_cache .ruff_cache
