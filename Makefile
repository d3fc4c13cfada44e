# make demo   the whole story on this machine, from nothing
# make demo-cluster  the same on a Slurm cluster of two nodes on this host; root, Debian
# make test   lint, types and tests
# make coverage  which lines the tests reach, also in the processes that they start
# make bench  the measurements, each beside what it is compared with; make bench console  one of them
# make venv   the environment in .venv, with the command in .venv/bin/jobworker
# make package  the sdist and the wheel, in dist; the same bytes for the same commit
# make deb    a Debian package beside them, for the /usr/bin/python3 here
# make docs   the documentation as a site, in build/site/html; a link that leads nowhere fails
# make man    the man pages, in build/man
# make lock   requirements.lock anew, from the ranges in pyproject.toml
# make vendor  others' scripts in console/static/vendor anew, by the hashes in .ci/vendor
# make clean  removes what the others made
PYTHON ?= python3
VENV ?= .venv
DEMO ?= .demo
PYTEST_ARGS ?=
# How many processes test; `logical` is one for each processor.
PYTEST_WORKERS ?= logical
BIN := $(VENV)/bin
TOOLS := build/tools
PACKAGES := authz cli client console grpc_api policies proto supervisor
STAMP := $(VENV)/.installed

.PHONY: demo demo-cluster test coverage bench chaos guest venv lint types pytest package deb docs man vendor lock clean
demo: venv
	@$(BIN)/python docs/demo.py $(DEMO)

demo-cluster: venv
	@command -v /usr/sbin/slurmctld >/dev/null || apt-get install -qq -y slurm-wlm munge
	@$(BIN)/python docs/demo_cluster.py

test: lint types pytest

# The words behind bench are parts of it: make bench console.
ifeq (bench,$(firstword $(MAKECMDGOALS)))
PARTS := $(wordlist 2,$(words $(MAKECMDGOALS)),$(MAKECMDGOALS))
.PHONY: $(PARTS)
$(PARTS): bench ; @:
endif

bench: venv
	$(BIN)/python -m bench $(PARTS)

venv: $(STAMP)

# The lock holds the build's own requirements too, so no second environment is
# made to build in. Without an index pip finds a lock that lags behind pyproject.toml.
$(STAMP): pyproject.toml setup.py requirements.lock .ci/create-venv $(wildcard proto/*.proto) supervisor/host/inside.c supervisor/keeper/spawn.c .ci/vendor
	@echo "Making the environment in $(VENV)"
	@.ci/create-venv $(PYTHON) $(VENV)
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/pip install -q --disable-pip-version-check --no-index --no-build-isolation -e '.[dev]' || \
		{ echo 'if a version is not found, requirements.lock lags behind pyproject.toml: run make lock'; exit 1; }
	@$(BIN)/python .ci/vendor tests
	@touch $@

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The folders are subpackages of jobworker only once installed; mypy wants to
# see them so on disk.
types: venv
	rm -rf build/types && mkdir -p build/types/jobworker
	for package in $(PACKAGES); do ln -s ../../../$$package build/types/jobworker/$$package; done
	MYPYPATH=build/types $(BIN)/mypy $(addprefix -p jobworker.,$(PACKAGES))

pytest: venv
	$(BIN)/python -m pytest --numprocesses $(PYTEST_WORKERS) --dist loadfile $(PYTEST_ARGS)

# No threshold: a line that no test reaches is a question, not a fault.
coverage: venv
	rm -rf build/coverage && mkdir -p build/coverage
	$(BIN)/coverage run -m pytest $(PYTEST_ARGS) || echo 'some tests failed: what they did not reach is missing below'
	$(BIN)/coverage combine -q
	$(BIN)/coverage html -q
	$(BIN)/coverage report

# A hundred kills, and a hundred freezes, of the service's processes.
chaos: venv
	$(BIN)/python -m pytest -m chaos -s tests/supervisor/recovery/test_chaos.py tests/supervisor/recovery/test_chaos_waiting.py $(PYTEST_ARGS)

# Limits, users and isolation in user-mode Linux alone; they are part of make test.
guest: venv
	$(BIN)/python -m pytest tests/front/test_user_mode_linux.py $(PYTEST_ARGS)

vendor: venv
	$(BIN)/python .ci/vendor pages

# What only packages and the documentation's pages are made with.
$(TOOLS)/.installed: .ci/tools.lock
	@$(PYTHON) -m venv $(TOOLS)
	@$(TOOLS)/bin/pip install -q --disable-pip-version-check --require-hashes -r .ci/tools.lock
	@touch $@

package: venv $(TOOLS)/.installed
	rm -rf dist
	$(BIN)/python .ci/package dist
	$(TOOLS)/bin/twine check --strict dist/*

deb: package
	$(BIN)/python .ci/deb dist

docs: venv $(TOOLS)/.installed
	$(BIN)/python -m docs.website build/site
	NO_MKDOCS_2_WARNING=1 $(TOOLS)/bin/mkdocs build --strict -f build/site/mkdocs.yml

man: venv
	rm -rf build/man
	$(BIN)/python -m docs.manual build/man

lock:
	test -x build/uv/bin/uv || { $(PYTHON) -m venv build/uv && build/uv/bin/pip install -q uv; }
	build/uv/bin/uv pip compile -q --universal --python-version 3.11 --extra dev --generate-hashes \
		--custom-compile-command 'make lock' --upgrade -o requirements.lock pyproject.toml
	build/uv/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes \
		--custom-compile-command 'make lock' --upgrade -o .ci/tools.lock .ci/tools.in

clean:
	rm -rf $(VENV) $(DEMO) build dist job_worker.egg-info
