# Each target does all its own set-up. CONTRIBUTING.md says what to type without make.

PYTHON ?= python3
VENV := .venv
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
# For a new environment: the pip that Python 3.11 brings takes a minute to choose among versions, and
# what builds our dists is there once, or each would install it anew.
NEW_PIP := $(PIP_INSTALL) --upgrade --constraint constraints.txt "pip>=25,<27" hatchling editables
# Most of what is installed is never imported.
PIP_INSTALL += --no-compile
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# One pip call, so that the dists of this repository find each other and not a registry.
DISTS := -e . -e backends/postgres -e "conformance[docker,pgserver]" -e integrations

# The frameworks of integrations/ are 600 MB, and bound versions of what the others use: they have an
# environment of their own. Their own stores in SQL, which are imported and measured, need SQLAlchemy, and
# those of LangChain and LangGraph are packages of their own.
INTEGRATIONS_VENV := .venv-integrations
INTEGRATIONS_BIN := $(INTEGRATIONS_VENV)/bin
INTEGRATIONS_READY := $(INTEGRATIONS_VENV)/.ready
# By the other environment's pip: to have one of its own takes five seconds.
INTO_INTEGRATIONS := $(BIN)/python $(subst -m pip,-m pip --python $(INTEGRATIONS_BIN)/python,$(PIP_INSTALL))

# With PEERS=1 the benchmarks also measure the libraries of benchmarks/peers.txt, in an environment
# that the tests never see.
PEERS_VENV := .venv-peers
PEERS_READY := $(PEERS_VENV)/.ready
BENCH_PYTHON := $(if $(PEERS),$(PEERS_VENV),$(VENV))/bin/python
RESULTS := benchmarks/results

# The linters and the site take packages that the tests do without.
LINT_READY := $(VENV)/.lint-ready
DOCS_READY := $(VENV)/.docs-ready

# More workers than cores, as most tests of Postgres wait; the longest files begin.
PYTEST_OPTIONS := -n auto --no-loadscope-reorder
PYTEST := $(BIN)/python -m pytest $(PYTEST_OPTIONS)
INTEGRATIONS_PYTEST := $(INTEGRATIONS_BIN)/python -m pytest $(PYTEST_OPTIONS) tests/integrations
# Of the other tests these need the frameworks, too.
OF_INTEGRATIONS := examples_run and docs/integrations
# What a run of `make test` draws of the gallery and of the tests that take long;
# `make test SAMPLE=2026-01-31` is the run of that day.
SAMPLE ?= $(shell date +%F)

OTHER_SERVERS := test-postgres-16 test-postgres-18

# Thousands of small databases come and go: in memory, where programs may run there and 8 GB are free.
IN_MEMORY := $(shell [ -w /dev/shm ] && ! grep -qs ' /dev/shm .*noexec' /proc/mounts && \
	df -Pk /dev/shm | awk 'NR == 2 && $$4 > 8000000 {print "/dev/shm"}')
test test-all test-all-but-integrations test-integrations $(OTHER_SERVERS) print-tmpdir: export TMPDIR := $(or $(TMPDIR),$(IN_MEMORY),/tmp)

# As in worker.py of the suite: clauses about large payloads run in the tests' own processes, too.
test test-all test-all-but-integrations: export MALLOC_MMAP_MAX_ := 0
test test-all test-all-but-integrations: export MALLOC_TRIM_THRESHOLD_ := 1073741824

# The tests start thousands of processes; without bytecode each would compile the sources anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all test-all-but-integrations test-integrations test-postgres-16 test-postgres-18 print-tmpdir bench bench-integrations proven docs lint lint-integrations format init-sqlite-db init-postgres-db build clean

demo: $(READY)
	@$(BIN)/director-db demo

test: $(READY) $(INTEGRATIONS_READY)
	$(INTEGRATIONS_PYTEST) --sample=$(SAMPLE)
	$(PYTEST) --sample=$(SAMPLE)

# With --jobs the frameworks are installed while the other tests run; their own wait for a processor.
test-all: test-all-but-integrations $(INTEGRATIONS_READY)
	@$(MAKE) --no-print-directory --jobs=1 $(OTHER_SERVERS) test-integrations

test-all-but-integrations: $(READY)
	$(PYTEST) -k 'not ($(OF_INTEGRATIONS))'

test-integrations: $(INTEGRATIONS_READY)
	$(INTEGRATIONS_PYTEST)
	$(BIN)/python -m pytest -q tests/test_docs.py -k '$(OF_INTEGRATIONS)'

# Coroutines and a pooler are tried together with another server, so that there is a run less for each.
test-postgres-16: export DIRECTOR_DB_TEST_POSTGRES_VERSION := 16
test-postgres-16: $(READY)
	$(BIN)/director-db-conformance sqlite postgres --level durable --face asyncio

test-postgres-18: export DIRECTOR_DB_TEST_POSTGRES_VERSION := 18
test-postgres-18: $(READY)
	DIRECTOR_DB_TEST_PGBOUNCER=1 $(BIN)/director-db-conformance postgres --level durable
	DIRECTOR_DB_TEST_PGBOUNCER=1 $(BIN)/python -m pytest -q -p no:cacheprovider tests/differential
	$(BIN)/python -m pytest -q -p no:cacheprovider \
		$(addprefix tests/postgres/test_,$(addsuffix .py,plans schema commits encoding failover sharding))

print-tmpdir:
	@echo "$$TMPDIR"

bench: $(if $(PEERS),$(PEERS_READY),$(READY))
	$(BENCH_PYTHON) -m benchmarks --json $(RESULTS)/latest.json --markdown $(RESULTS)/latest.md \
		--plots $(RESULTS) $(BENCH)

bench-integrations: $(INTEGRATIONS_READY)
	$(INTEGRATIONS_BIN)/python -m benchmarks --integrations --json $(RESULTS)/integrations.json \
		--markdown $(RESULTS)/integrations.md $(BENCH)

proven: $(READY)
	mkdir -p build
	$(BIN)/director-db-conformance sqlite postgres --level durable --json build/conformance.json
	$(BIN)/python tests/gallery/run.py --json build/gallery.json
	$(BIN)/python docs/proven.py build/conformance.json build/gallery.json

docs: $(DOCS_READY)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo 'The site is in build/site; to look at it: python3 -m http.server --directory build/site'

lint: $(LINT_READY) $(if $(wildcard $(INTEGRATIONS_READY)),lint-integrations)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy tests/typing
	$(BIN)/basedpyright --pythonpath $(BIN)/python

# Beside the frameworks, which `lint` does without where they are not installed. mypy would check all that
# they import, too, which takes five times as long; it is stricter, and `lint` has it look without them.
lint-integrations: $(LINT_READY) $(INTEGRATIONS_READY)
	$(BIN)/basedpyright --pythonpath $(INTEGRATIONS_BIN)/python integrations/src

format: $(LINT_READY)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

init-sqlite-db: $(READY)
	@DB_TYPE=sqlite $(BIN)/director-db init

init-postgres-db: $(READY)
	@DB_TYPE=postgres $(BIN)/director-db init

build: $(READY)
	for dist in . backends/postgres conformance integrations; do \
		$(BIN)/python -m build --outdir dist $$dist || exit 1; \
	done

clean:
	rm -rf $(VENV) $(PEERS_VENV) $(INTEGRATIONS_VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(READY): $(wildcard pyproject.toml */pyproject.toml */*/pyproject.toml) constraints.txt requirements-dev.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "director-db needs Python 3.11 or newer; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(NEW_PIP)
	$(BIN)/python $(PIP_INSTALL) --no-build-isolation \
		--constraint constraints.txt --requirement requirements-dev.txt $(DISTS)
	@touch $@

$(LINT_READY) $(DOCS_READY): $(VENV)/.%-ready: $(READY) requirements-%.txt
	$(BIN)/python $(PIP_INSTALL) \
		--constraint constraints.txt --requirement requirements-$*.txt
	@touch $@

$(INTEGRATIONS_READY): $(READY) integrations/constraints.txt
	@rm -f $@
	$(PYTHON) -m venv --without-pip $(INTEGRATIONS_VENV)
	$(INTO_INTEGRATIONS) --constraint constraints.txt hatchling editables
	$(INTO_INTEGRATIONS) --no-build-isolation \
		--constraint integrations/constraints.txt langgraph-checkpoint-conformance pytest-timeout pytest-xdist \
		aiosqlite "sqlalchemy[asyncio]" langchain-community \
		langgraph-checkpoint-postgres langgraph-checkpoint-sqlite $(DISTS)[all]
	@# Compiled once, and not by each process of the tests at the same moment.
	-@$(INTEGRATIONS_BIN)/python -m pytest --quiet --collect-only tests/integrations >/dev/null
	@touch $@

# What of the peers cannot be installed here is left out of the measurements, and they say so.
$(PEERS_READY): $(READY) benchmarks/peers.txt
	$(PYTHON) -m venv $(PEERS_VENV)
	$(PEERS_VENV)/bin/python $(NEW_PIP)
	$(PEERS_VENV)/bin/python $(PIP_INSTALL) --no-build-isolation \
		--constraint constraints.txt --requirement requirements-dev.txt $(DISTS)
	$(PEERS_VENV)/bin/python $(PIP_INSTALL) \
		--requirement benchmarks/peers.txt || echo 'The peers could not be installed.'
	@touch $@
