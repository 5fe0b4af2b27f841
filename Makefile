# Two commands set everything up: `make demo` and `make test`. Both build the environment in .venv first.
.DEFAULT_GOAL := help
PYTHON := $(shell sh scripts/find_python.sh)
VENV   := .venv
RUN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# Two processes, one file at a time in the order of the folders: the longest, e2e and integration, come first.
PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export FOUNDRY_ROOT := $(CURDIR)

.PHONY: help install demo test lint types tests unit integration infrastructure e2e synth openapi lock bench-gateway soak-gateway bench-simulator clean

help: ## Show this list
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 20

install: $(STAMP) ## Build the environment in .venv

$(STAMP): requirements/dev.txt pyproject.toml scripts/install.sh
	@sh scripts/install.sh "$(PYTHON)" "$(VENV)"

demo: install ## Run the main job on the local platform (EXIT=1 stops after the report)
	@$(RUN)/foundry demo $(if $(EXIT),--exit)

test: lint types tests ## Everything: lint, types and all tests

lint: install ## Style, imports and formatting
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/lint-imports

types: install ## mypy --strict over all code
	$(RUN)/mypy layers functions stacks local cli gateway_container app.py

tests: install ## All tests
	$(RUN)/pytest $(PARALLEL) tests

unit integration infrastructure: install ## One level of the tests
	$(RUN)/pytest $(PARALLEL) tests/$@

e2e: install ## The whole platform, with restart and kill -9
	$(RUN)/pytest tests/e2e

synth: install ## Synthesize the CDK app into cdk.out
	$(RUN)/python app.py

openapi: install ## Write docs/openapi.json from the routes
	$(RUN)/python scripts/openapi.py docs/openapi.json

lock: install ## Pin pyproject.toml again, with hashes and without addresses
	sh scripts/lock.sh

bench-gateway: install ## Gateway against its peers; the last line is JSON
	bench/gateway/run

soak-gateway: install ## Ten minutes of mixed load and troubles; every row is checked (ARGS="--seconds 180")
	bench/gateway/soak $(ARGS)

bench-simulator: install ## Simulator speed and error beside its peer
	bench/simulator/run

clean: ## Remove what the make targets built
	rm -rf $(VENV) cdk.out .foundry .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
