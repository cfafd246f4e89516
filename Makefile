# Everything a person or a robot does with this repository. `make help` explains each target.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PLOTLY := 4.1.1
VENDOR := dashboard/millicent/dashboard/assets/vendor
BUNDLE := $(VENDOR)/plotly-cartesian.min.js
INTER := 5.3.0
FONT := $(VENDOR)/inter.woff2
AXE_CORE := 4.14.1
AXE := .browser/axe.min.js
VENVS := $(patsubst locks/instrumentations-%.txt,.venvs/%/.installed,$(wildcard locks/instrumentations-*.txt))
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help install demo test lint format bench docs lock assets browser venvs clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED)  ## create .venv with everything pinned by hash, both packages editable

$(INSTALLED): locks/dev.txt pyproject.toml sdk/pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "missing: $(PYTHON). Install Python 3.11 or newer, or run: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(0 if sys.version_info >= (3, 11) else f"missing: Python 3.11 or newer ($(PYTHON) is {v}). Run: make PYTHON=/path/to/python3.11")'
	@if command -v uv >/dev/null; then \
	  set -e; echo "installing with uv"; \
	  uv venv --quiet --allow-existing --python $(PYTHON) $(VENV); \
	  VIRTUAL_ENV=$(VENV) uv pip install --quiet --no-deps --require-hashes -r locks/dev.txt; \
	  VIRTUAL_ENV=$(VENV) uv pip install --quiet --no-deps --no-build-isolation -e . -e ./sdk; \
	else \
	  set -e; echo "installing with pip (about a minute)"; \
	  $(PYTHON) -m venv $(VENV) || { echo "missing: the venv module. On Debian or Ubuntu: apt-get install python3-venv"; exit 1; }; \
	  $(BIN)/python -m pip install --quiet --no-deps --require-hashes -r locks/dev.txt; \
	  $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e . -e ./sdk; \
	fi
	@touch $@

assets: $(BUNDLE) $(FONT)  ## fetch the small chart bundle and the font from npm (optional: pages work without them)

$(BUNDLE):
	@mkdir -p $(VENDOR)
	@if command -v npm >/dev/null && tar=$$(cd $(VENDOR) && npm pack --silent plotly.js-cartesian-dist-min@$(PLOTLY)); then \
	  tar -xzf $(VENDOR)/$$tar -C $(VENDOR) --strip-components=1 package/plotly-cartesian.min.js && rm $(VENDOR)/$$tar; \
	else echo "note: npm is not available, so the full chart bundle that ships with Dash is served"; fi

$(FONT):
	@mkdir -p $(VENDOR)
	@if command -v npm >/dev/null && tar=$$(cd $(VENDOR) && npm pack --silent @fontsource-variable/inter@$(INTER)); then \
	  tar -xOzf $(VENDOR)/$$tar package/files/inter-latin-wght-normal.woff2 > $@ && rm $(VENDOR)/$$tar; \
	else echo "note: npm is not available, so the system's font is used"; fi

venvs: $(VENVS)  ## create .venvs with the instrumentations that tests run (the tests do it themselves)

.venvs/%/.installed: locks/instrumentations-%.txt
	@rm -rf .venvs/$*
	@if command -v uv >/dev/null; then \
	  set -e; uv venv --quiet --python $(PYTHON) .venvs/$*; \
	  VIRTUAL_ENV=.venvs/$* uv pip install --quiet --no-deps --require-hashes -r $<; \
	else \
	  set -e; $(PYTHON) -m venv .venvs/$*; \
	  .venvs/$*/bin/python -m pip install --quiet --no-compile --no-deps --require-hashes -r $<; \
	fi
	@touch $@

demo: install assets  ## run the product on localhost with a month of example data
	@$(BIN)/millicent demo

test: install assets browser  ## run every test; those of the browser beside the others
	@mkdir -p artefacts; echo "tests of the browser run beside these, into artefacts/browser.log"; \
	$(BIN)/python -m pytest tests/browser > artefacts/browser.log 2>&1 & browser=$$!; \
	$(BIN)/python -m pytest --ignore tests/browser; rest=$$?; \
	wait $$browser; shown=$$?; cat artefacts/browser.log; exit $$((rest | shown))

lint: install  ## formatting, ruff, mypy strict, the direction of imports
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: install  ## format and fix what can be fixed
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

bench: install  ## run the benchmarks; each prints its reference beside its figure
	@set -e; for program in benchmarks/*.py; do echo "== $$program"; $(BIN)/python $$program; done

docs: install  ## regenerate docs/reference from the code
	@$(BIN)/python -m millicent.dashboard.reference docs/reference

browser: $(AXE)  ## find or install the Chromium that the browser tests drive, and what finds barriers in pages
	@tests/browser/chromium

$(AXE):
	@mkdir -p $(@D)
	@command -v npm >/dev/null || { echo "missing: npm, which fetches axe-core for the browser tests. Install Node.js 20 or newer and run this again."; exit 1; }
	@tar=$$(cd $(@D) && npm pack --silent axe-core@$(AXE_CORE)) && tar -xzf $(@D)/$$tar -C $(@D) --strip-components=1 package/axe.min.js && rm $(@D)/$$tar && touch $@

lock:  ## recompute the hash-pinned locks (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header \
	  pyproject.toml sdk/pyproject.toml -o locks/runtime.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header \
	  --no-emit-package millicent-sdk --group dev -c locks/runtime.txt pyproject.toml sdk/pyproject.toml -o locks/dev.txt
	@for generation in current previous; do \
	  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header \
	    tests/instrumentations/$$generation.in -o locks/instrumentations-$$generation.txt; \
	done

clean:  ## remove what make created
	rm -rf $(VENV) .venvs .browser artefacts dist $(VENDOR) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
