# `make run` and `make test` are all that a fresh clone needs.

.DEFAULT_GOAL := help
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)

.PHONY: help setup setup-build run test build dist bench ci clean-data

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: setup-build ## Build and start everything: gateway on 127.0.0.1:8080, admin on 127.0.0.1:8081
	cargo build --release
	exec $(TARGET_DIR)/release/tidegate serve

test: setup ## Run every test
	cargo test

setup: ## Install what building and testing need, or say what to install
	@scripts/setup.sh test

setup-build:
	@scripts/setup.sh build

build: setup-build ## Build what `make run` runs
	cargo build --release

dist: setup-build ## Build what is shipped: target/dist/tidegate
	cargo build --profile dist --features mimalloc

bench: setup-build ## Run the benchmarks
	cargo bench --benches

ci: ## Every check that a change must pass
	.ci/run

clean-data: ## Delete the databases that `make run` made, latches and audit trail included
	@if $(TARGET_DIR)/release/tidegate status >/dev/null 2>&1; then \
		echo "a gateway is running; stop it first" >&2; exit 1; \
	fi
	rm -f tidegate.db tidegate.db-wal tidegate.db-shm tidegate.db.lock interview.db interview.db-wal interview.db-shm
