# Everything runs from .venv, which .ci/bootstrap.py makes by itself: python3, git, make and gcc are enough.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
UV := .cache/uv/bin/uv
BUILDER ?= $(firstword $(foreach tool,docker podman buildah,$(if $(shell command -v $(tool)),$(tool))))
COMPILE := $(UV) pip compile --quiet --upgrade --universal --generate-hashes --python-version 3.11 \
	--custom-compile-command "make lock"

.DEFAULT_GOAL := help
.PHONY: help venv demo test lint peers bench lock wheel image sbom audit clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: ## Make .venv from the lock files (every other target does it first)
	@$(PYTHON) .ci/bootstrap.py

demo: venv ## See a simulated bench live, with a broker of its own
	@$(BIN)/hilgate demo $(ARGS)

lint: venv ## Run the checks alone: style, types, import floors
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy .ci/bootstrap.py
	$(BIN)/mypy tests/tools/get-peers
	$(BIN)/mypy tests/tools/in-uml
	$(BIN)/mypy tests/tools/audit
	$(BIN)/mypy deploy/image/assemble.py
	$(BIN)/mypy deploy/image/sbom.py
	$(BIN)/mypy tests/tools/in-arm64
	$(BIN)/mypy tests/tools/run-tests
	$(BIN)/mypy --explicit-package-bases tests/conftest.py tests/guest.py
	$(BIN)/mypy --explicit-package-bases benchmarks
	@# Each folder on its own: their conftest modules have one name. What the tests call is not typed everywhere.
	for folder in unit integration peers e2e; do MYPYPATH=tests/$$folder:tests/integration:tests/unit $(BIN)/mypy --explicit-package-bases \
		--allow-untyped-calls --disable-error-code func-returns-value tests/$$folder || exit 1; done
	$(BIN)/lint-imports --no-cache

test: $(if $(ARGS),venv,lint) ## Run every check and test; real peers that are missing are skipped and named at the end
	@$(BIN)/python tests/tools/run-tests $(ARGS)

peers: venv ## Get the real peers that tests run against: CAN and Modbus tools, AMQP brokers, rhea
	tests/tools/get-peers

bench: venv ## Run the benchmarks and print their table
	$(BIN)/python -m benchmarks $(ARGS)

lock: venv ## Choose the newest versions anew and write them to the lock files
	@test -x $(UV) || { $(PYTHON) -m venv --without-pip .cache/uv && \
		$(BIN)/pip --python .cache/uv/bin/python install --quiet uv; }
	$(COMPILE) --group build --output-file requirements-build.lock
	$(COMPILE) --extra all --constraint requirements-build.lock --output-file requirements.lock pyproject.toml
	$(COMPILE) --all-extras --group build --group dev --constraint requirements.lock \
		--output-file requirements-dev.lock pyproject.toml

wheel: venv ## Build the wheel into dist/
	$(BIN)/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

image: ## Build the container image with docker, podman or buildah; ARGS="--build-arg BASE=..." pins its base
	$(BUILDER) build --tag hilgate --label org.opencontainers.image.revision=$$(git rev-parse HEAD) \
		--label org.opencontainers.image.created=$$(date -u +%Y-%m-%dT%H:%M:%SZ) $(ARGS) .

sbom: venv ## Write the bill of materials of the locked runtime packages to dist/hilgate.cdx.json
	$(BIN)/python deploy/image/sbom.py --lock requirements.lock --output dist/hilgate.cdx.json

audit: venv ## Ask PyPI's vulnerability data about the locked runtime packages; status 3: no data within reach
	@$(BIN)/python tests/tools/audit

clean: ## Remove what was built; .cache/peers stays, it is slow to get
	rm -rf .venv dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -rf .cache/bootstrap .cache/uv
	find . -not -path './.cache/*' -name __pycache__ -type d -prune -exec rm -rf {} +
