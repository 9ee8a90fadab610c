# The two commands of the README are `make demo` and `make test`; each does all of its own set-up.
SHELL := /bin/bash
PY := .venv/bin/python
# Compiled parts of the simulated toolkit are kept here, by source digest.
export XDG_CACHE_HOME ?= $(CURDIR)/.venv/cache
NATIVE := $(shell git ls-files 'smallq_deploy/sandbox/native/**' 'src_op/**' 2>/dev/null | grep -E '\.(h|hpp|cpp)$$')

.PHONY: help demo test lint unit kernel kernel-full faults torture mutants bench bench-kernel bench-kernel-bars bench-tool bench-fleet coverage mutation-score format clean-room clean setup-run setup-dev

help:
	@echo "make demo        the whole path in a simulated toolkit, no NPU needed (about 3 minutes)"
	@echo "make test        lint and all tests (at most 20 minutes on 2 cores)"
	@echo "make lint        ruff, mypy --strict, import-linter, clang-format (1 minute)"
	@echo "make unit        the fast tests alone (3 to 5 minutes)"
	@echo "make kernel      the operator in the emulator (4 minutes)"
	@echo "make kernel-full at least 300 random shapes over all paths, strict; not part of make test"
	@echo "make faults      the whole fault matrix, root (at most 40 minutes); make test runs a subset"
	@echo "make mutants     every fsync removed, every two steps turned round: each must be caught (70 minutes)"
	@echo "make torture     200 random commands, many killed, on a simulated toolkit; SEED=N repeats one (5 minutes)"
	@echo "make bench       install, rollback, verify against what people type today; goals (4 minutes)"
	@echo "make bench-kernel  modelled times against two rival kernels and the roofline (2 to 5 minutes)"
	@echo "make bench-tool  build cache, detect, reading packages, odd input: the tool's own speed (2 to 3 minutes)"
	@echo "make bench-fleet  10,000 fake hosts, kills and resumes; 100 real sshd against Ansible (about 10 minutes)"
	@echo "make coverage    branch coverage of the store, fsops, runfile and vendortree (bar 95 %; 3 minutes)"
	@echo "make mutation-score  mutmut on journal, switch and fsops (bar 85 % a file; 6 minutes)"
	@echo "make format      let ruff and clang-format rewrite the sources"
	@echo "make clean-room  make demo in a fresh Debian 12 tree (root; installs mmdebstrap; about 6 minutes)"
	@echo "make clean       remove .venv and caches"

setup-run:
	@.ci/setup run

setup-dev:
	@.ci/setup dev

demo: setup-run
	@$(PY) -m smallq_deploy demo

test: lint
	$(PY) -m pytest -n 2 --dist loadgroup tests

lint: setup-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	.venv/bin/lint-imports --no-cache
	.venv/bin/clang-format --dry-run --Werror $(NATIVE)

unit: setup-dev
	$(PY) -m pytest -n 2 --dist loadgroup tests/unit tests/property tests/cli

kernel: setup-dev
	$(PY) -m pytest -n 2 --dist loadgroup -s tests/kernel

kernel-full: setup-dev
	SMALLQ_KERNEL_FULL=1 $(PY) -m pytest -n 2 -s tests/kernel/full

# Tests of the fault matrix that stand beside what they test are named here; the rest is tests/faults.
FAULT_TESTS := tests/faults

faults: setup-dev
	.ci/setup faults
	SMALLQ_FAULTS=full $(PY) -m pytest -n 2 --dist loadgroup --timeout 1500 $(FAULT_TESTS)

mutants: setup-dev
	$(PY) -m tests.faults.mutants

torture: setup-dev
	$(PY) -m tests.faults.torture $(if $(SEED),--seed $(SEED))

bench: setup-dev
	$(PY) -m tests.benchmarks.bench_deploy

bench-kernel: setup-dev
	$(PY) -m tests.benchmarks.bench_kernel

bench-tool: setup-dev
	$(PY) -m tests.benchmarks.bench_tool

bench-fleet: setup-dev
	$(PY) -m tests.benchmarks.bench_fleet

bench-kernel-bars: setup-dev
	$(PY) -m tests.benchmarks.bench_kernel --bars-only

coverage: setup-dev
	$(PY) -m pip install -q -e '.[dev,quality]'
	$(PY) -m pytest --cov --cov-report=term tests/unit/store tests/unit/base tests/unit/operate tests/unit/package \
		tests/property tests/faults/test_hostile_packages.py tests/faults/test_full_disk.py

mutation-score: setup-dev
	$(PY) -m pip install -q -e '.[dev,quality]'
	rm -rf mutants
	PYTHONPATH= $(PY) -m mutmut run --max-children 2 >mutants.log 2>&1 || { tail -n 40 mutants.log; exit 1; }
	$(PY) -m tests.support.mutation_score 85

format: setup-dev
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .
	.venv/bin/clang-format -i $(NATIVE)

clean-room:
	.ci/clean-room

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist mutants mutants.log
