# Everything a newcomer needs: `make report` and `make test`. See `make help`.
PYTHON ?= python3.11
PROFILE ?= default
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
PEERS := $(VENV)/.peers
JOBS ?= 2
export PYTHONHASHSEED := 0
export TOKENIZERS_PARALLELISM := false
export HF_HUB_DISABLE_TELEMETRY := 1
export OMP_NUM_THREADS ?= 1

.PHONY: help install report test lint figures notebooks check-notebooks peers bench conformance site clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  PROFILE=smoke|default|full scales the notebooks (now: $(PROFILE))"

$(STAMP): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) not found; give another with PYTHON=..."; exit 2; }
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

install:  ## make .venv with the pinned set
	@if $(MAKE) -q $(STAMP); then echo "install: .venv is up to date, nothing to install"; else $(MAKE) --no-print-directory $(STAMP); fi

report: install  ## run every notebook at PROFILE, then build report/report.pdf
	$(MAKE) --no-print-directory check-notebooks PROFILE=$(PROFILE)
	$(PY) report/build.py

test: install lint  ## linter, types, tests, notebooks at PROFILE=smoke, report
	$(PY) -m pytest -n $(JOBS) --dist worksteal -p no:nbmake --durations=10
	$(MAKE) --no-print-directory check-notebooks PROFILE=smoke
	$(PY) report/build.py --check

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
	$(PY) report/build.py --figures

site: install  ## a static page of the report's figures and tables: site/index.html
	$(PY) report/build.py --site

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

clean:  ## remove what was built (.venv and cached runs stay)
	rm -rf build site report/generated report/report.pdf .pytest_cache .mypy_cache .ruff_cache
