# Two commands for a newcomer: `make run` and `make test`. `make mini` trains the shipped weights anew.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
HOST ?= 127.0.0.1
PORT ?= 8000
DATA_DIR ?= data
RUN ?= runs/mini
ADAPTER ?=
SOAK ?=
LOOP ?= runs/loop
CONTAINERS ?=
# Modules are compiled when first imported, and kept: most of what is installed never is.
export PYTHONDONTWRITEBYTECODE :=
PIP_INSTALL := --disable-pip-version-check --quiet install --no-compile -c constraints.txt
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif
INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python -c requirements.lock -c constraints.txt --no-build-isolation
# On Linux the CPU's build of torch, from PyTorch's own index; another one by name (cu130, auto).
TORCH_BACKEND ?= cpu

.PHONY: run test check unit any-cpu fuzz soak rehearse loop mini evaluate containers clean compose-secrets compose-env no-torch lock openapi

run: $(VENV)/.serve
	$(if $(ADAPTER),PPD_ADAPTER=$(ADAPTER)) $(BIN)/ppd serve --host $(HOST) --port $(PORT) --data-dir $(DATA_DIR)

test: $(VENV)/.dev chromium gl servers check unit

check: $(VENV)/.dev node_modules/.package-lock.json
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	node_modules/.bin/tsc -p service/web

# Many tests wait for a clock, so two run at a time. The browser's driver keeps an event loop
# running in its process: it gets a process of its own.
unit: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile tests/unit tests/integration
	BIN=$(BIN) tests/any_cpu.sh --cheapest
	$(BIN)/python -m pytest tests/e2e

# The numerical tests as other processors would run them, all settings; `make test` has two of them.
any-cpu: $(VENV)/.dev
	BIN=$(BIN) tests/any_cpu.sh

# Schemathesis over the API's schema, 5,000 requests or more; `make test` sends some hundreds.
fuzz: $(VENV)/.dev
	$(BIN)/python -m tests.fuzz

# docs/reproduce.md to its last command, on tiny random weights and a made-up Pick-a-Pic.
rehearse: $(VENV)/.dev
	@command -v curl >/dev/null || ($(APT_INSTALL) curl)
	$(BIN)/python -m tests.rehearsal $(if $(PRESET),--preset $(PRESET))

# People, hostile clients and faults against a running service for minutes, or SOAK="--hours 4"; SOAK=--production
# for an API and workers over PostgreSQL and Redis. It fails when anything is lost, doubled, crossed or answered 5xx.
soak: $(VENV)/.dev servers
	$(BIN)/python -m tests.soak $(SOAK)

# docs/loop.md: simulated people answer, contribute and choose; an adapter is trained on it and proves itself.
loop: $(VENV)/.dev gl
	$(BIN)/python -m benchmarks.loop --out $(LOOP)

mini: $(VENV)/.train gl
	BIN=$(BIN) RUN=$(RUN) training/make_mini.sh

# The linear probe and the upper bounds need what `make mini` leaves behind; without it they are left out.
evaluate: $(VENV)/.train gl
	$(BIN)/python -m training.evaluate --preset mini --out $(RUN)/evaluation \
	  $(addprefix --probe_data ,$(wildcard $(RUN)/precompute)) \
	  $(addprefix --taste_adapter ,$(wildcard $(RUN)/adapter_taste/adapter.safetensors))

# Newest versions of every package within pyproject.toml's bounds, with their hashes. Torch is left out: its
# builds differ by machine, and constraints.txt names its version.
lock: $(VENV)/.torch
	echo "torch ; python_version < '0'" > $(VENV)/without-torch.txt
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras --generate-hashes \
	  --no-header --no-annotate -c constraints.txt --override $(VENV)/without-torch.txt -o requirements.lock pyproject.toml

# The API's schema, as clients and a test see it.
openapi: $(VENV)/.dev
	$(BIN)/python -m tests.renew_openapi

# Every image built, and Compose's profiles embedded and cpu tried, as root and without a registry; needs docker.io,
# debootstrap and iptables. CONTAINERS="--folder DIR" says where what is built is kept.
containers: $(VENV)/.dev
	$(BIN)/python -m tests.containers $(CONTAINERS)

# Fresh secrets for docker-compose.yml, in secrets/.
compose-secrets:
	docs/deploy/compose_secrets.sh secrets .env
compose-env: compose-secrets

# An API replica as production has it: an environment without torch, PostgreSQL, Redis.
no-torch: $(VENV)/.dev servers
	BIN=$(BIN) benchmarks/service/no_torch_replica.sh

clean:
	rm -rf $(VENV)

# What pip cannot bring: a browser and two servers for the tests, and the system's GL, which the painter's wheel asks for.
APT_INSTALL := apt-get update -qq && apt-get install -y -qq --no-install-recommends
.PHONY: chromium gl servers
chromium:
	@command -v chromium >/dev/null || ($(APT_INSTALL) chromium)
# The tests start servers of their own out of these packages, never what Debian starts from them.
servers:
	@command -v curl >/dev/null || ($(APT_INSTALL) curl)
	@(ls /usr/lib/postgresql/*/bin/postgres || command -v postgres) >/dev/null 2>&1 \
	  || ($(APT_INSTALL) postgresql)
	@command -v redis-server >/dev/null || ($(APT_INSTALL) redis-server)
gl: export PATH := $(PATH):/sbin:/usr/sbin
gl:
	@test "$$(uname)" != Linux || (ldconfig -p | grep -q libEGL.so.1 && ldconfig -p | grep -q libGL.so.1) \
	  || ($(APT_INSTALL) libegl1 libgl1)

# What checks the types of the pages' scripts; the pages themselves need no node.
node_modules/.package-lock.json: package-lock.json
	@command -v npm >/dev/null || ($(APT_INSTALL) npm)
	npm ci --silent --no-audit --no-fund
	touch $@

# Each stamp adds an extra to the same environment. pip puts uv into it, and uv, much faster, the rest: it reads
# PIP_INDEX_URL from here, or its own UV_DEFAULT_INDEX, and no pip.conf. Torch goes first. Where pip was told of
# folders with packages (PIP_FIND_LINKS, pip.conf), it looks for torch there, which uv would not; on another
# Linux uv takes the build that TORCH_BACKEND names: the plain one would bring gigabytes of CUDA packages.
# setuptools builds this package, without a second environment to do it in. A pip that is there already
# serves the environment; else one is put into it, which takes longer.
$(VENV)/.torch: constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv --without-pip $(VENV)
	if $(PYTHON) -m pip --python $(BIN)/python --version >/dev/null 2>&1; \
	then pip="$(PYTHON) -m pip --python $(BIN)/python"; \
	else $(BIN)/python -m ensurepip >/dev/null || { echo "install python3-pip or python3-venv first"; exit 1; }; \
	  pip="$(BIN)/python -m pip"; fi; \
	if [ "$$(uname)" != Linux ] || $$pip config list 2>/dev/null | grep -q find-links; \
	then $$pip $(PIP_INSTALL) torch setuptools uv; \
	else $$pip $(PIP_INSTALL) setuptools uv && $(BIN)/uv pip install --quiet --python $(BIN)/python \
	  --torch-backend $(TORCH_BACKEND) -c constraints.txt torch; fi
	touch $@

$(VENV)/.serve: $(VENV)/.torch pyproject.toml requirements.lock
	$(INSTALL) -e '.[model,serve]'
	touch $@

$(VENV)/.train: $(VENV)/.torch pyproject.toml requirements.lock
	$(INSTALL) -e '.[model,train]'
	touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml requirements.lock
	$(INSTALL) -e '.[model,serve,production,train,dev]'
	touch $@
