# Tasks for this repository. `make` without arguments lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PODPOOL_SOAK_SECONDS ?= 10800
FUZZ_SECONDS ?= 600
.PHONY: help alerts control-plane demo facts first-query failover-table fips kubernetes loom matrix mutants outcomes
.PHONY: package peers record-alerts screenshots test trials simulate simulation soak fuzz bench bench-once lint
.PHONY: bench-build check-targets components fuzzer pgbouncer programs simulation-build stacks

# Every benchmark in benches/: each file, and each folder with a main.rs and no Cargo.toml.
BENCHES := $(strip $(notdir $(basename $(wildcard benches/*.rs))) \
	$(foreach main,$(wildcard benches/*/main.rs),\
	$(if $(wildcard $(dir $(main))Cargo.toml),,$(notdir $(patsubst %/,%,$(dir $(main)))))))

help: ## List these targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 22

demo: ## Start three PostgreSQL Pods, the example microservice and a small load; print the URL of the live page
	@scripts/demo

test: programs ## Run every test, against real PostgreSQL servers
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
soak: ## Soak test: resolve with DNS faults for three hours (or PODPOOL_SOAK_SECONDS); check for leaks
	cargo test --release --all-features --test dns_soak -- --nocapture

# New inputs are stored in fuzz/found/ and failing inputs in fuzz/artifacts/. Copy inputs worth keeping to fuzz/corpus/.
# The crate has no unsafe code, so no sanitizer is used. Sanitizers would require a nightly toolchain.
fuzz: fuzzer ## Run each fuzz target for ten minutes (or FUZZ_SECONDS)
	@cd fuzz; for target in fuzz_targets/*.rs; do \
	    target=$$(basename "$$target" .rs); \
	    mkdir -p "found/$$target"; \
	    echo "cargo fuzz run $$target, $(FUZZ_SECONDS) s"; \
	    cargo fuzz run --fuzz-dir . --sanitizer none "$$target" "found/$$target" "corpus/$$target" -- \
	        -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 -verbosity=0 || exit 1; \
	done

peers: programs ## Compare podpool with other pools and load balancers and print the tables; needs cmake to build
	@command -v cmake >/dev/null || { echo "error: cmake is missing; install it to build this comparison" >&2; exit 1; }
	cargo run --release --locked --manifest-path benches/peers/Cargo.toml

# The packages that Cargo.toml optimizes in debug builds, because SCRAM spends its time in them.
HASHES := digest hmac postgres-protocol sha2
first-query: programs ## Measure the time to a pool's first query in debug builds, with and without optimized hashes
	cargo bench --profile dev --all-features --bench first_query
	cargo bench --profile dev --all-features --bench first_query \
	    $(foreach package,$(HASHES),--config 'profile.dev.package.$(package).opt-level=0')

screenshots: programs ## Take the README's screenshots of the microservice's page, on a real cluster
	PODPOOL_SCREENSHOTS=$(CURDIR)/docs/screenshots \
	    cargo test --all-features --test microservice page::shows_a_pod -- --nocapture

failover-table: programs ## Inject each fault on real servers; print its effect on callers and its duration
	@scripts/failover-table

trials: export PODPOOL_TRIALS := 20
trials: programs ## Repeat the tests with promised bounds twenty times each, on real servers; print the times
	ABSENT_SECONDS=10 cargo test --all-features --test membership -- --nocapture --test-threads 1
	ABSENT_SECONDS=60 cargo test --all-features --test membership -- --nocapture --test-threads 1 \
	    the_only_primary a_standby_that all_standbys
	cargo test --all-features --test evidence --test frozen_primary --test starved_client --test shares \
	    --test dual_stack -- --nocapture --test-threads 1
	cargo test --all-features --test health -- --nocapture --test-threads 1 fencing clocks
	cargo test --all-features --test patroni -- --nocapture --test-threads 1

# SEEDS is a number of seeds, or of minutes such as 5m. SEED is one seed, which is shown with its trace.
SEEDS ?= 100
simulate: ## Simulate clients, servers and faults from seeds (SEEDS=100 or SEEDS=5m), or show one (SEED=7)
	cd simulation && cargo run --release --locked -- $(if $(SEED),seed $(SEED),simulate $(SEEDS))

simulation: simulation-build ## Check the simulation; run its tests with the corpus, 250 fixed seeds, and 20 seeds twice
	cd simulation && cargo fmt --check
	cd simulation && cargo test --release --locked
	cd simulation && cargo run --release --locked -- simulate 250
	cd simulation && cargo run --release --locked -- twice 20

simulation-build:
	cd simulation && cargo clippy --release --locked --all-targets -- -D warnings
	cd simulation && cargo test --release --locked --no-run
	cd simulation && cargo build --release --locked

mutants: ## Put defects into a copy of the library; check that the simulation finds 95 % of them
	@cargo mutants --version >/dev/null 2>&1 || { \
	    echo "cargo-mutants is not installed; trying: cargo install cargo-mutants --locked"; \
	    cargo install cargo-mutants --locked; }
	simulation/mutants/run

alerts: ## Check the alerting rules, and replay the recordings of faults with promtool
	cargo test --all-features --test alerts

record-alerts: programs ## Record each fault on real servers for the alerting rules, in 20 minutes; write the table
	cargo test --all-features --test alerts -- --ignored --nocapture --exact record::every_scenario
	cargo test --all-features --test alerts -- --ignored --exact record::write

outcomes: export PODPOOL_WRITES := 20000
outcomes: export PODPOOL_CASES := 40000
outcomes: programs ## Compare the reported outcomes of 20,000 writes under faults with the rows on the servers
	cargo test --all-features --test outcomes -- --nocapture --test-threads 1
	cargo test --all-features --lib work_is_never_judged -- --nocapture

fips: programs ## Build an application with the validated module of aws-lc-rs and connect it; needs cmake and Go
	@for program in cmake go; do \
	    command -v $$program >/dev/null || { echo "error: $$program is missing; aws-lc-fips-sys needs it" >&2; exit 1; }; \
	done
	cargo run --locked --manifest-path tests/fips/Cargo.toml
	cargo run --locked --manifest-path tests/fips/Cargo.toml --no-default-features

control-plane: ## Build etcd, kube-apiserver, kube-controller-manager and CoreDNS; needs Go, takes ten minutes
	scripts/control-plane

# The six shortest scenarios: make kubernetes SCENARIOS="$(SHORT)"
SHORT := cold_start::cold_start primary::container_crash standby::container_crash standby::forced_delete \
	outages::coredns promotion::by_hand
SCENARIOS ?=
kubernetes: control-plane programs ## Run the manifests on a real control plane with 150 requests per second; needs root
	cargo test --all-features --test control_plane -- --ignored --nocapture --test-threads 1 $(SCENARIOS)

matrix: ## Run tests against PostgreSQL 14, 15, 16, 17 and 18; print one row per version; needs npm
	@scripts/matrix

bench: programs ## Run every benchmark
	$(if $(BENCHES),cargo bench --all-features $(BENCHES:%=--bench %),@echo "no benchmarks")

bench-once: programs bench-build ## Compile every benchmark and run each once, without measuring
	@for bench in $(BENCHES); do \
	    echo "cargo bench --all-features --bench $$bench -- --test"; \
	    cargo bench --all-features --bench "$$bench" -- --test || exit 1; \
	done

bench-build:
	$(if $(BENCHES),cargo bench --all-features --no-run $(BENCHES:%=--bench %),@echo "no benchmarks")

stacks: programs ## Test podpool with refinery, Diesel, clorinde, axum and actix-web, on clusters whose primary fails
	cargo test --locked --manifest-path tests/stacks/Cargo.toml --target-dir target

pgbouncer: programs ## Run the tests with PgBouncer 1.21 or newer; downloads it with apt if the installed one is older
	scripts/pgbouncer

check-targets: ## Check that the library compiles for Windows and macOS, where these targets are installed
	scripts/check-targets

package: ## Check dependencies, feature combinations, minimal versions and the packaged crate
	@scripts/package

facts: ## Print the size of the crate, the number of its dependencies and the duration of a clean build
	@scripts/package facts

loom: ## Check the lock-free code under every interleaving of its threads, with loom
	RUSTFLAGS="--cfg podpool_loom" cargo test --release --lib --target-dir target/loom loom_tests

lint: components ## Check formatting, file sizes, layering, clippy and rustdoc; every warning is an error
	cargo fmt --check
	.ci/sizes --self-test
	.ci/sizes
	.ci/tiers --self-test
	.ci/tiers
	cargo clippy --all-targets --no-default-features -- -D warnings
	cargo clippy --all-targets -- -D warnings
	cargo clippy --all-targets --all-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --all-features

# Installs rustfmt and clippy, which a minimal Rust toolchain lacks.
components:
	@for part in fmt:rustfmt clippy:clippy; do \
	    if cargo "$${part%:*}" --version >/dev/null 2>&1; then continue; fi; \
	    echo "$${part#*:} is not installed; trying: rustup component add $${part#*:}"; \
	    if rustup component add "$${part#*:}"; then continue; fi; \
	    echo "error: cannot install $${part#*:} with rustup; install it with the system's package manager" >&2; \
	    exit 1; \
	done

# Installs cargo-fuzz, which builds and runs the fuzz targets.
fuzzer:
	@cargo fuzz --version >/dev/null 2>&1 || { \
	    echo "cargo-fuzz is not installed; trying: cargo install cargo-fuzz --locked"; cargo install cargo-fuzz --locked; }

# Installs PostgreSQL's server programs, which the tests, the benchmarks and the demo start.
programs:
	@scripts/postgres-programs
