# What people call. Each target does its own set-up, says what it downloads, and is quick the second time.
# The work is done by scripts/, which run by themselves too.

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench docs servers train soak

# make demo CONFIG=config/kafka.ini runs it on another broker; ARGS are passed on as they are.
CONFIG ?=
ARGS ?=

help:
	@echo 'make demo      run the pipeline on this machine and print its report'
	@echo 'make test      run every test against real servers'
	@echo 'make lint      check formatting, lints, scripts, docs and dependencies'
	@echo 'make docs      write the API documentation'
	@echo 'make servers   start Kafka and Redis, and leave them running'
	@echo 'make train     train the CNN anew'
	@echo 'make bench     measure, and rewrite docs/benchmarks.md'
	@echo 'make soak      run the crash and load tests at full length, and rewrite docs/soak.md'

demo:
	@scripts/demo $(if $(CONFIG),--config $(CONFIG)) $(ARGS)

test:
	@scripts/test

lint:
	@scripts/lint

bench:
	@scripts/bench

docs:
	@scripts/docs

servers:
	@scripts/start-servers

train:
	@scripts/train $(ARGS)

soak:
	@scripts/soak
