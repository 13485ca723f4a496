# What this repository can do, each in one word. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test failover-table bench bench-once lint components programs

# Every benchmark of benches/: a file, or a folder with a main.rs that is no package of its own.
BENCHES := $(strip $(notdir $(basename $(wildcard benches/*.rs))) \
	$(foreach main,$(wildcard benches/*/main.rs),\
	$(if $(wildcard $(dir $(main))Cargo.toml),,$(notdir $(patsubst %/,%,$(dir $(main)))))))

help: ## List what can be made
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20

demo: ## Start three Pods, the microservice on them and a small load, and print the address to open
	@scripts/demo

test: programs ## Run every test, on real PostgreSQL servers
	@if cargo nextest --version >/dev/null 2>&1; then \
	    run="cargo nextest run"; \
	else \
	    run="cargo test"; \
	fi; \
	echo "$$run --all-features --lib --bins --tests"; \
	$$run --all-features --lib --bins --tests
	cargo test --all-features --doc
	cargo build --all-features --examples

failover-table: programs ## Inject each fault on real servers and print what callers see of it, and for how long
	@scripts/failover-table

bench: programs ## Measure every benchmark
	$(if $(BENCHES),cargo bench --all-features $(BENCHES:%=--bench %),@echo "no benchmarks")

bench-once: programs ## Compile every benchmark and run each once, unmeasured
	$(if $(BENCHES),cargo bench --all-features --no-run $(BENCHES:%=--bench %),@echo "no benchmarks")
	@for bench in $(BENCHES); do \
	    echo "cargo bench --all-features --bench $$bench -- --test"; \
	    cargo bench --all-features --bench "$$bench" -- --test || exit 1; \
	done

lint: components ## Check format, layering, clippy and rustdoc; every warning is an error
	cargo fmt --check
	.ci/tiers --self-test
	.ci/tiers
	cargo clippy --all-targets --no-default-features -- -D warnings
	cargo clippy --all-targets -- -D warnings
	cargo clippy --all-targets --all-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --all-features

# rustfmt and clippy, which a minimal Rust toolchain lacks.
components:
	@for part in fmt:rustfmt clippy:clippy; do \
	    if cargo "$${part%:*}" --version >/dev/null 2>&1; then continue; fi; \
	    echo "$${part#*:} is not installed; trying: rustup component add $${part#*:}"; \
	    if rustup component add "$${part#*:}"; then continue; fi; \
	    echo "error: $${part#*:} is missing: install it with \`rustup component add $${part#*:}\`, or your system's package of it" >&2; \
	    exit 1; \
	done

# PostgreSQL's server programs, which the tests, benchmarks and the demo start.
programs:
	@scripts/postgres-programs
