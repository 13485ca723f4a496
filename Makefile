# What this repository can do, each in one word. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PODPOOL_SOAK_SECONDS ?= 10800
FUZZ_SECONDS ?= 600
.PHONY: help demo facts failover-table loom peers package screenshots test soak fuzz bench bench-once lint components fuzzer programs

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

soak: export PODPOOL_SOAK_SECONDS := $(PODPOOL_SOAK_SECONDS)
soak: ## Look up for three hours, or PODPOOL_SOAK_SECONDS, with faults, and compare descriptors and memory
	cargo test --release --all-features --test dns_soak -- --nocapture

# What is found goes to fuzz/found/, what breaks to fuzz/artifacts/; what is worth keeping is copied to fuzz/corpus/. No
# sanitizer, as there is no unsafe code of ours to find: so no nightly toolchain is needed.
fuzz: fuzzer ## Feed each fuzz target for ten minutes, or FUZZ_SECONDS
	@cd fuzz; for target in fuzz_targets/*.rs; do \
	    target=$$(basename "$$target" .rs); \
	    mkdir -p "found/$$target"; \
	    echo "cargo fuzz run $$target, $(FUZZ_SECONDS) s"; \
	    cargo fuzz run --fuzz-dir . --sanitizer none "$$target" "found/$$target" "corpus/$$target" -- \
	        -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 -verbosity=0 || exit 1; \
	done

peers: programs ## Measure podpool beside what people use today (building it needs cmake), and print the tables
	@command -v cmake >/dev/null || { echo "error: cmake is missing; install your system's package of it" >&2; exit 1; }
	cargo run --release --locked --manifest-path benches/peers/Cargo.toml

screenshots: programs ## Take the pictures of the live page that README shows, from a live cluster
	PODPOOL_SCREENSHOTS=$(CURDIR)/docs/screenshots cargo test --all-features --test microservice page::sees_a_pod -- --nocapture

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

package: ## Check dependencies, features alone and together, lowest versions, and the packed crate
	@scripts/package

facts: ## Print the crate's size, its number of dependencies and the time of a first build
	@scripts/package facts

loom: ## Check the shared-state files under every order of their steps
	RUSTFLAGS="--cfg podpool_loom" cargo test --release --lib --target-dir target/loom loom_tests

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

# cargo-fuzz, which builds and runs the fuzz targets.
fuzzer:
	@cargo fuzz --version >/dev/null 2>&1 || { \
	    echo "cargo-fuzz is not installed; trying: cargo install cargo-fuzz --locked"; cargo install cargo-fuzz --locked; }

# PostgreSQL's server programs, which the tests, benchmarks and the demo start.
programs:
	@scripts/postgres-programs
