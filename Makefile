# One verb per intent; `make help` lists them. Each verb sets up what it needs first (tools/setup.sh).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

SETUP := tools/setup.sh
BIN := .venv/bin
# Two workers, as the budgets below are stated for two cores; give PYTEST="-k name -x" to narrow a run.
WORKERS := 2
PYTEST :=
UNDER_TEST := --core-build=build/checked -n $(WORKERS) --dist loadfile
ARGS :=

.PHONY: help setup build stubs check test test-slow test-cluster test-cluster-full demo lint format type bench profile sanitize lock wheel bazel clean

help: ## list the verbs
	@grep -hE '^[a-z-]+:.*## ' Makefile | while IFS= read -r line; do \
		printf '  make %-17s %s\n' "$${line%%:*}" "$${line#*## }"; done

setup: ## all that `make test` needs: environment, programs, stubs, compiled cores
	@$(SETUP) test

build: ## compile the stubs and the cores anew where their sources changed
	@$(SETUP) check

stubs: ## generate the protobuf stubs (part of build)
	@$(SETUP) stubs

demo: ## set up, replay the flights of 2013 and read 100 of them; ends with DEMO OK
	@$(SETUP) demo
	@$(BIN)/headrace demo $(ARGS)

check: lint type ## linters, types and unit tests; at most 5 minutes on 2 cores
	@$(BIN)/python -m pytest tests/unit -m "not slow" $(UNDER_TEST) -q $(PYTEST)

test: ## every test that is not marked slow; about half an hour on 2 cores, 40 minutes at most
	@$(SETUP) test
	@$(BIN)/python -m pytest tests -m "not slow" $(UNDER_TEST) $(PYTEST)

test-slow: ## the tests marked slow, one after the other, recorded in docs/results; hours
	@$(SETUP) test && $(SETUP) program bazel
	@$(BIN)/python -m pytest tests -m slow --core-build=build/checked --seed random --record docs/results $(PYTEST)

test-cluster: ## tests/cluster and tests/streams with three random seeds, recorded in docs/results; 25 minutes
	@$(SETUP) test
	@$(BIN)/python -m tools.seeds --name cluster --count 3 --minutes 25 tests/cluster tests/streams -m "not slow" $(UNDER_TEST) $(PYTEST)

test-cluster-full: ## the same with twenty seeds, then their slow tests (200 kills), recorded in docs/results; hours
	@$(SETUP) test
	@$(BIN)/python -m tools.seeds --name cluster-full --count 20 tests/cluster tests/streams -m "not slow" $(UNDER_TEST) $(PYTEST)
	@$(BIN)/python -m tools.seeds --name cluster-slow --count 1 tests/cluster tests/streams -m slow --core-build=build/checked $(PYTEST)

lint: build ## ruff, cython-lint and buf
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@PATH="$$PWD/$(BIN):$$PATH" $(BIN)/cython-lint core_ext
	@$(BIN)/buf lint

format: build ## rewrite the Python files in the house format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

type: build ## mypy --strict, and the hand-written stubs of core_ext against its compiled modules
	@$(BIN)/mypy
	@$(BIN)/python -m mypy.stubtest core_ext --mypy-config-file pyproject.toml \
		--allowlist tools/stubtest_allowed.txt --ignore-unused-allowlist

bench: build ## the quick comparison with the peers; its last line is JSON
	@$(SETUP) program redis-server h2load nghttpd
	@$(BIN)/python -m loadtest.peers.online --quick $(ARGS)

profile: build ## where the microseconds of a read go: samples by perf under h2load into docs/performance.md
	@$(SETUP) program h2load perf
	@$(BIN)/python -m loadtest.profile.run $(ARGS)

# libstdc++ is loaded with libasan, which otherwise misses the exceptions of the C++ libraries loaded after it.
sanitize: ## the tests of core_ext and of the transports, races and fuzz under ASan and UBSan
	@$(SETUP) sanitize
	@LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libstdc++.so)" \
		ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 PYTHONMALLOC=malloc \
		$(BIN)/python -m pytest tests/unit/core_ext $(wildcard tests/fuzz tests/race tests/integration/test_transport_*.py) -m "not slow and not memory" --core-build=build/sanitize --capture=sys -q $(PYTEST)

lock: ## pin the dependencies anew into requirements/ (ARGS=--upgrade takes newer versions)
	@tools/lock.sh $(ARGS)

wheel: ## build dist/headrace-*.whl
	@$(SETUP) demo
	@tools/wheel.sh

bazel: build ## build and test every Bazel target
	@$(SETUP) program bazel
	@bazel build //... && bazel test //...

clean: ## remove what was built, and keep the environment
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis headrace.egg-info
	@find protos core_ext \( -name '*_pb2*.py*' -o -name '*.so' \) -delete
