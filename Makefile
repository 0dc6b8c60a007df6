# `make` alone lists the targets. Each sets up what it needs; a second time that costs nothing.

.DEFAULT_GOAL := help
.PHONY: help setup setup-guests run check test bench soak clinic lint lock clean

UV = $(or $(wildcard .venv/bin/uv),$(shell command -v uv),$(error make lock needs uv: pip install uv))

help: ## list these targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 22

setup: ## make .venv with the locked dependencies and pagetide
	@tools/setup

setup-guests: setup ## as root on Debian, fetch what real guests need; ARCH=arm64 or all: those of other processors
	@$(if $(ARCH),tools/setup_foreign_guests $(ARCH),tools/setup_guests)

run: setup ## run the main job; options go into ARGS, as in make run ARGS='--ram 4GiB'
	@.venv/bin/pagetide run $(ARGS)

check: setup ## check style and types, and run the fast tests: a minute and a half
	@tools/check prepare fast

test: setup setup-guests ## check style and types, run all tests with kernels compiled, and what kernels decide as plain Python
	@tools/check prepare test

bench: setup ## measure what things cost; ARGS=allocator for that part only, ARGS=--help for the others
	@.venv/bin/python -m benchmarks $(ARGS)

soak: setup ## look for what breaks, with new seeds, for ten minutes; make soak ARGS='--minutes 60' for longer
	@nice -n 19 .venv/bin/python -m soak $(ARGS)

clinic: setup setup-guests ## boot every VM of the clinic and write docs/clinic.md, the table of its cases
	@tools/setup_foreign_guests amd64-trixie
	@.venv/bin/python -m pytest -q -n 3 --dist loadgroup tests/clinic --clinic-table docs/clinic.md

lint: setup ## check style and types only
	@tools/check lint

lock: ## resolve the dependencies of pyproject.toml anew; make lock ARGS=--upgrade takes newer versions
	@$(UV) pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes --quiet \
		--no-config --no-emit-index-url \
		--custom-compile-command 'make lock' --output-file requirements.lock $(ARGS)

clean: ## remove all that the others made here
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks .coverage .soak build dist
	@find src tests benchmarks soak -name __pycache__ -prune -exec rm -rf {} +
