# Tasks of this repository; `make help` lists them.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

# One environment for running and for developing: the development packages come on top of the
# locked ones of the product, never instead of them. A stamp is written only by an install that
# succeeded, and everything is made anew when the lock changes or the environment's Python is gone.
PACKAGES := $(VENV)/.packages
PROJECT  := $(VENV)/.project
DEV      := $(VENV)/.dev

# What an install says goes to standard error, and it reads nothing: `make -s chat` stays a pipe.
FROM_INDEX := -m pip --disable-pip-version-check --no-input install --progress-bar off
LOCKED := --no-deps --require-hashes --only-binary :all: --requirement
PIP := $(BIN)/python $(FROM_INDEX)
INSTALL := $(PIP) $(LOCKED)
COUNT := grep -c '^[a-z0-9].*=='

# Installs a lock: a line for each 20 packages instead of pip's many. All else that pip says is
# shown, but that a folder of its configuration is not there, which it would repeat for each package.
FETCH = { $(INSTALL) $< < /dev/null 2>&1 || echo failed; } | { fetched=0; while read -r line; do \
	case "$$line" in \
		Collecting*|"Requirement already"*) fetched=$$((fetched + 1)); \
			[ $$((fetched % 20)) -ne 0 ] || echo "  $$fetched fetched";; \
		Installing*) echo "  unpacking them";; \
		failed) exit 1;; \
		Ignoring*|Looking*|Downloading*|"Using cached"*|Processing*|Successfully*|"WARNING: Location"*) ;; \
		*) echo "$$line";; \
	esac; done; } >&2

# Fails, and says what to do, where no environment can be made.
define CAN_BEGIN
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo >&2 \
	"Python 3.11 or newer is needed, as in: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }; \
$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || { echo >&2 \
	"$(PYTHON) cannot make environments; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
endef

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help chat test quick shuffle lint types imports format faults fuzz soak bench bench-peers docs reference lock wheel clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

chat: $(PROJECT) ## talk to it; USER_ID=someone_else
	@$(BIN)/afterword chat $(if $(USER_ID),--user "$$USER_ID") $(ARGS)

# Most tests wait for a process or for a timeout, so four run at once even on two cores.
WORKERS ?= 4
PYTEST  := $(BIN)/pytest --numprocesses $(WORKERS)

# Repeatable: one order, one seed, the same examples. `shuffle` draws new ones.
test: lint types imports ## run all checks and tests; ARGS='-k lane'
	$(PYTEST) --randomly-dont-reorganize --randomly-seed=1 $(ARGS)

quick: lint types imports ## run all checks and the tests that need no server, in a minute
	$(PYTEST) --randomly-dont-reorganize --randomly-seed=1 -m 'not slow' tests/unit tests/shape $(ARGS)

shuffle: $(DEV) ## run the tests in random order on new random examples; ARGS=--randomly-seed=N
	$(PYTEST) --hypothesis-profile=hunt $(ARGS)

lint: $(DEV) ## check style and format, and look for unused code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/vulture
	$(BIN)/vulture producer shared workers examples

types: $(DEV) ## check types
	$(BIN)/mypy

imports: $(DEV) ## check the import law
	$(BIN)/lint-imports --no-logo

format: $(DEV) ## put the code into its format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

faults: $(DEV) ## kill, stop and mislead at every step, the long way
	FAULTS=whole MISBEHAVIOURS=10000 $(BIN)/pytest --hypothesis-profile=hunt -s tests/faults tests/system/test_misbehaviour.py $(ARGS)

# atheris guides the inputs, where it has a wheel; without it Hypothesis goes on by itself.
FUZZ := .venv-fuzz

fuzz: $(DEV) ## try the doors to the outside with ever new inputs; DOOR='job ids' MINUTES=60
	@[ -d $(FUZZ) ] || $(BIN)/uv pip install --quiet --python $(BIN)/python \
		--only-binary :all: --target $(FUZZ) --group fuzz || echo >&2 "No atheris here."
	@PYTHONPATH=$(FUZZ) $(BIN)/python -m tests.fuzz --minutes $(or $(MINUTES),10) \
		$(if $(DOOR),--door "$(DOOR)") $(ARGS)

soak: $(DEV) ## load and faults for five minutes; MINUTES=60
	$(BIN)/python -m benchmarks.soak --minutes $(or $(MINUTES),5) $(ARGS)

bench: $(DEV) ## run the benchmarks
	$(BIN)/python -m benchmarks $(ARGS)

# Other engines, in an environment of their own: they would move pins of ours.
PEERS := .venv-peers/.packages

bench-peers: $(PEERS) ## run the benchmarks beside other engines
	$(BIN)/python -m benchmarks --peers .venv-peers/bin/python $(ARGS)

$(PEERS): pyproject.toml $(DEV)
	@$(BIN)/uv venv --quiet --clear .venv-peers
	@$(BIN)/uv pip install --quiet --python .venv-peers/bin/python --group bench-peers
	@touch $@

docs: $(DEV) ## build the site of the documents into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Open site/index.html, or with a search box: $(BIN)/python -m http.server --directory site"

reference: $(DEV) ## write the generated parts of the documents anew
	$(BIN)/python docs/site/reference.py
	$(BIN)/python -m tests.kit.failures.page

# Who installs it elsewhere needs a few megabytes to build it, and not all that it needs to run.
BUILD := .venv-build/.packages

wheel: $(BUILD) ## build the distribution into dist/
	.venv-build/bin/python -m hatchling build

$(BUILD): requirements-build.lock .venv-build/bin/python
	@$(CAN_BEGIN)
	@$(PYTHON) -m venv --clear .venv-build
	@.venv-build/bin/python $(FROM_INDEX) --quiet $(LOCKED) $< < /dev/null >&2
	@touch $@

clean: ## remove everything that can be made again
	rm -rf $(VENV) .venv-build .venv-fuzz .venv-peers build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Resolves for every supported Python and platform at once, to wheels only, and names no host.
# Pins stay as they are unless they must move: `make lock ARGS=--upgrade` moves them all.
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--only-binary :all: --no-emit-index-url --no-emit-find-links
RUNTIME := pyproject.toml --extra workers --extra selfhosted --extra embedded --extra traces --extra console --group install
IMAGE   := pyproject.toml --extra workers --extra selfhosted --extra traces --extra console --group install

lock: $(DEV) ## write the locks anew after a change of pyproject.toml
	$(COMPILE) $(RUNTIME) --custom-compile-command 'make lock' $(ARGS) -o requirements.lock
	$(COMPILE) --group pyproject.toml:weights --no-deps --no-header >> requirements.lock
	$(COMPILE) --group install --constraint requirements.lock \
		--custom-compile-command 'make lock, out of requirements.lock' -o requirements-build.lock
	$(COMPILE) $(IMAGE) --constraint requirements.lock \
		--custom-compile-command 'make lock, out of requirements.lock' \
		-o requirements-workers.lock
	$(COMPILE) $(RUNTIME) --group dev --group docs --group examples --constraint requirements.lock \
		--custom-compile-command 'make lock, on top of requirements.lock' $(ARGS) \
		$$(sed -n 's/^\([a-z0-9-]*\)==.*/--no-emit-package \1/p' requirements.lock | sort -u) \
		-o requirements-dev.lock

# No recipe: while the file is there this does nothing, and once it is gone, or points to a Python
# that is, whatever depends on it is made again.
$(BIN)/python .venv-build/bin/python:

$(PACKAGES): requirements.lock $(BIN)/python
	@$(CAN_BEGIN)
	@echo >&2 "Installing $$($(COUNT) $<) packages, 600 MB, into $(VENV): once, a minute on a fast line."
	@$(PYTHON) -m venv --clear $(VENV)
	@$(FETCH)
	@touch $@

$(PROJECT): pyproject.toml $(PACKAGES)
	@echo >&2 "Installing afterword itself."
	@$(PIP) --quiet --no-deps --no-build-isolation --editable . < /dev/null >&2
	@touch $@

$(DEV): requirements-dev.lock $(PROJECT)
	@echo >&2 "Installing $$($(COUNT) $<) more packages, which tests and checks need."
	@$(FETCH)
	@touch $@
