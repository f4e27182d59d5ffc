# Everything from one place: `make` lists what it can do.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# On a machine without a GPU, TensorFlow greets every process with an error from
# CUDA. A program's own errors still arrive as Python exceptions.
export TF_CPP_MIN_LOG_LEVEL ?= 3

# True in a Python that can run this project and build a virtual environment.
USABLE := import ensurepip, sys; sys.exit(not (3,10) <= sys.version_info < (3,14))

# Tests run on all cores, each file on one, in the order of their names: xdist's
# own order leaves files with few tests, which take longest, for the end. A
# process may take 4 GB.
PARALLEL := --numprocesses=auto --maxprocesses=4 --dist=loadfile \
  --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup hooks demo cifar two-moons test test-all lint format controls \
  results docs wheel lock licenses clean

help:  ## List these commands
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | \
	  while IFS='|' read -r name text; do \
	    printf '  make %-10s %s\n' "$$name" "$$text"; \
	  done

setup: $(READY)  ## Install everything into .venv (other targets do it when needed)

$(READY): pyproject.toml requirements.txt | $(BIN)/pip
	@echo "Installing into $(VENV); TensorFlow is large, this takes minutes."
	@$(BIN)/python -m pip install -qq --editable '.[dev]'
	@touch $@

$(BIN)/pip:
	@for python in $(PYTHON) python3.13 python3.12 python3.11 python3.10; do \
	  if $$python -c '$(USABLE)' 2>/dev/null; then \
	    echo "Building $(VENV) with $$($$python --version)"; \
	    exec $$python -m venv --clear $(VENV); \
	  fi; \
	done; \
	echo "No Python 3.10 to 3.13 with venv found. Install one, or name it:" \
	  "make setup PYTHON=/path/to/python3.12" >&2; \
	exit 1

hooks: $(READY)  ## Check format and lint before every git commit
	@$(BIN)/pre-commit install

demo: $(READY)  ## Train on real digits, export, classify, draw: runs/demo
	@$(BIN)/python examples/digits_demo.py --output_dir=runs/demo

# DATA_DIR is where `tfds build cifar10` put the images, if not the usual folder.
cifar: $(READY)  ## Train on CIFAR-10 with 4,000 labels, in rounds: runs/cifar
	@$(BIN)/python -m benchmarks.controls.students --precision=auto \
	  --folder=runs/cifar --json=runs/cifar/rows.jsonl \
	  $(if $(DATA_DIR),--data_dir='$(DATA_DIR)')

two-moons: $(READY)  ## Every method on two moons, ten seeds: runs/two_moons
	@$(BIN)/python -m benchmarks.two_moons.run

controls: $(READY)  ## Every method on digits, three seeds: runs/controls.jsonl
	@$(BIN)/python -m benchmarks.controls.run digits --num_labeled 40 --jobs=2 \
	  --json=runs/controls.jsonl

results: $(READY)  ## Write the tables and figures of docs/ from benchmarks/results
	@$(BIN)/python -m benchmarks.controls.report
	@$(BIN)/python -m benchmarks.controls.students --table
	@$(BIN)/python -m benchmarks.two_moons.tables
	@$(BIN)/python -m benchmarks.audit.table
	@$(BIN)/python -m benchmarks.audit.accuracy
	@$(BIN)/python -m benchmarks.performance.table

docs: $(READY)  ## Build the site and check its links: build/site/index.html
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict
	@echo "The site is in build/site; open build/site/index.html."

test: $(READY)  ## Run the tests, except the long ones
	@$(BIN)/python -m pytest $(PARALLEL) -m "not long"

# Long ones run room by room, because a process that compiles with XLA keeps its
# memory: those of learners need 20 GB.
test-all: test  ## Run all tests
	@failed=; for room in tests/*/; do \
	  $(BIN)/python -m pytest $(PARALLEL) -m long $$room; \
	  case $$? in 0|5) ;; *) failed="$$failed $$room";; esac; \
	done; \
	$(BIN)/python -m pytest $(PARALLEL) -m long tests/*_test.py || \
	  failed="$$failed tests/*_test.py"; \
	[ -z "$$failed" ] || { echo "Failed in:$$failed" >&2; exit 1; }

wheel: $(READY)  ## Build the package that pip installs, into dist/
	@rm -rf build/lib build/bdist.*  # Else deleted modules would be in it.
	@$(BIN)/python -m build --wheel --outdir dist .

lint: $(READY)  ## Check style, format, layers, scripts and containers
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/lint-imports
	@$(BIN)/shellcheck tpu/*.sh deploy/*.sh .ci/run
	@$(BIN)/hadolint deploy/Dockerfile
	@$(BIN)/check-jsonschema --builtin-schema=vendor.compose-spec \
	  deploy/compose*.yaml

format: $(READY)  ## Fix style and format
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

# What images are built with. Pinned versions stay while they fit;
# UPGRADE=--upgrade takes the newest. Needs only uv, from .venv or the PATH.
UV = $(firstword $(wildcard $(BIN)/uv) $(shell command -v uv))
lock:  ## Pin what pip installs for Python 3.11 and 3.12: deploy/locks
	@[ -n '$(UV)' ] || { \
	  echo "make lock needs uv: pip install uv, or make setup." >&2; exit 1; }
	@echo "Asking the package index; the first time takes minutes."
	@echo "deploy/locks/build.txt"
	@sed -n 's/^requires = \["\(.*\)"\]/\1/p' pyproject.toml | \
	  '$(UV)' pip compile --quiet $(UPGRADE) --generate-hashes --universal \
	    --python-version=3.11 --no-emit-index-url --no-emit-find-links \
	    --no-header --no-annotate - --output-file=deploy/locks/build.txt
	@for python in 3.11 3.12; do for kind in cpu gpu; do \
	  echo "deploy/locks/$$kind-$$python.txt"; \
	  gpu=; [ $$kind = cpu ] || gpu=--extra=gpu; \
	  '$(UV)' pip compile --quiet $(UPGRADE) --generate-hashes \
	    --python-version=$$python --python-platform=x86_64-manylinux_2_28 \
	    --no-emit-index-url --no-emit-find-links --no-header --no-annotate \
	    --extra=figures --extra=serve $$gpu pyproject.toml \
	    --output-file=deploy/locks/$$kind-$$python.txt || exit; \
	done; done

# The tools run in environments of their own, so they do not become dependencies.
# Licenses are read from the packages installed in .venv.
licenses: $(READY)  ## List what images install: SBOM and licenses, in dist/
	@mkdir -p dist
	@for lock in cpu-3.11 cpu-3.12 gpu-3.11 gpu-3.12; do \
	  $(BIN)/uv tool run --quiet --from cyclonedx-bom==7.5.0 \
	    cyclonedx-py requirements deploy/locks/$$lock.txt \
	    --output-reproducible --output-file dist/sbom-$$lock.json || exit; \
	done
	@$(BIN)/uv tool run --quiet pip-licenses==5.5.5 --python $(BIN)/python \
	  --packages $$(sed -n 's/==.*//p' deploy/locks/cpu-3.12.txt) \
	  --with-urls --with-license-file --no-license-path \
	  --format=plain-vertical --output-file dist/third_party_licenses.txt
	@ls dist/sbom-*.json dist/third_party_licenses.txt

clean:  ## Remove .venv and caches; runs/ stays
	@rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
