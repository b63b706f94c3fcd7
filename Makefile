# Two commands for a fresh Debian 12 with Rust and root: `make demo`, `make test`.
CARGO ?= cargo
BED = tests/testbed
RELEASE = $(CURDIR)/target/x86_64-unknown-linux-gnu/release/containerd-shim-shoal-v2

# A machine that neither has nor can fetch the toolchain of rust-toolchain.toml builds with the one that it has.
ifeq ($(shell rustc --version 2>/dev/null),)
export RUSTUP_TOOLCHAIN ?= stable
endif

.PHONY: build demo bench test check test-v2 deps fetch

# The shim for an installation: $(RELEASE)
build: export SHOAL_REVISION ?= $(shell git describe --always --dirty --abbrev=12 2>/dev/null || echo unknown)
build: deps
	$(CARGO) build --release --bin containerd-shim-shoal-v2

# The main job for the user's eyes, with a table of times against runc. Only this containerd is fetched.
# The shim is the release build; the program that drives it waits for others, so it is built fast instead.
demo: export SHOAL_SHIM = $(RELEASE)
demo: build
	$(BED)/fetch forky
	$(CARGO) test --test demo

# Everything: unit, golden, contract, rooted, containerd, CRI and docker tests, then the budgets of what is installed,
# and a few cases on pure cgroup v2.
test: fetch build
	SHOAL_RELEASE=$(RELEASE) tests/groups

# The inner loop, with the links of the documentation: no root, no servers. Root only where a tool is missing that building needs.
# The demo is no test to cargo, so it is not among all targets.
check:
	$(BED)/deps build
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) clippy --test demo -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items
	$(CARGO) test --lib --test layering --test golden --test dependencies --test conformance

# The same work by shoal, by the Go shim with runc, and by a program that does nothing else, in one run; then on cgroup v2
# in a VM, with crun too. Into target/bench: bench.json, bench.md, bench.svg, and the same below v2. Best on a quiet machine.
bench: export SHOAL_SHIM = $(RELEASE)
bench: build
	$(BED)/fetch forky
	$(CARGO) bench --profile measure --bench peers -- $(BENCH)
	tests/vm/v2 --bench

# The core cases on pure cgroup v2 with systemd, in a VM: cgroups made by files, then by systemd.
test-v2: deps
	tests/vm/v2

# The host's tools that are missing.
deps:
	$(BED)/deps

# Debian's containerd, runc and docker, unpacked below target/testbed.
fetch: deps
	$(BED)/fetch
