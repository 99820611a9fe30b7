# `make help` tells what there is.

CARGO ?= cargo
# Optimised a little and linked quickly; for tests, for `make run`. One profile for all of it, so that
# nothing is compiled twice.
PROFILE ?= fast
PREFIX ?= /usr/local
SANDBOX ?=
UP ?=

TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
BUILT := $(TARGET)/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))
export LONGSHORE_BINARY ?= $(BUILT)/longshore

# Which integration tests make up which tier: by crate, and in tests/ by the first word of the name.
# A test is a file, or a directory with a main.rs.
names = $(sort $(basename $(notdir $(wildcard $(addsuffix .rs,$(1))) $(patsubst %/main.rs,%,$(wildcard $(addsuffix /main.rs,$(1)))))))
PROCESS := $(call names,agent/tests/* cri/tests/* probes/tests/* tests/tests/process_*)
NAMESPACES := $(call names,dataplane/tests/* tests/tests/namespaces_*)
RUNTIME := $(call names,tests/tests/runtime_*)
KERNELS := $(call names,tests/tests/kernel_*)

# $(call tier,LIMIT,TESTS): runs integration tests, for no longer than the limit.
tier = $(if $(2),timeout --foreground $(1) $(CARGO) test --profile $(PROFILE) --workspace $(addprefix --test ,$(2)),\
	$(error this tier has no tests, which cannot be right))

.DEFAULT_GOAL := help
.PHONY: help build install run clean-run test test-build test-pure test-process test-namespaces \
	test-runtime test-kernels bench bench-proxy soak lint fmt

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## the daemon as it is shipped
	@tests/setup/packages.sh build
	$(CARGO) build --release -p longshore

install: build ## the daemon and its systemd unit, under PREFIX and DESTDIR
	install -D -m 755 $(TARGET)/release/longshore $(DESTDIR)$(PREFIX)/bin/longshore
	install -d $(DESTDIR)/etc/systemd/system
	sed 's|/usr/local/bin/|$(PREFIX)/bin/|' systemd/longshore.service >$(DESTDIR)/etc/systemd/system/longshore.service
	test -e $(DESTDIR)/etc/default/longshore || install -D -m 644 systemd/longshore.env $(DESTDIR)/etc/default/longshore
	install -D -m 644 systemd/longshore.tmpfiles $(DESTDIR)/usr/lib/tmpfiles.d/longshore.conf
	install -D -m 644 systemd/longshore.modules $(DESTDIR)/usr/lib/modules-load.d/longshore.conf
	install -D -m 644 systemd/longshore.sysctl $(DESTDIR)/etc/sysctl.d/99-kubernetes-cri.conf

run: ## a node with the example pods, until Ctrl-C; SANDBOX=1: on a network of its own
	@tests/setup/packages.sh build runtime namespaces
	$(CARGO) build --profile $(PROFILE) -p longshore -p longshore-tests
	$(BUILT)/longshore-lab up $(if $(SANDBOX),--sandbox) $(UP)

clean-run: ## takes back whatever `make run` did to the machine
	$(CARGO) build --profile $(PROFILE) -p longshore-tests
	$(BUILT)/longshore-lab clean

test: test-build test-pure test-process test-namespaces test-runtime test-kernels ## all tiers

test-build: ## compiles all tests
	@tests/setup/packages.sh build
	timeout --foreground 15m $(CARGO) build --profile $(PROFILE) --workspace --bins
	timeout --foreground 15m $(CARGO) test --profile $(PROFILE) --workspace --no-run

test-pure: ## decisions, rules, conversions: needs nothing
	timeout --foreground 6m $(CARGO) test --profile $(PROFILE) --workspace --lib --bins

test-process: ## the real loop against a runtime in memory: needs root, for a network of its own
	@tests/setup/packages.sh namespaces
	$(call tier,6m,$(PROCESS))

test-namespaces: ## real rules and real packets between network namespaces: needs root
	@tests/setup/packages.sh namespaces
	$(call tier,7m,$(NAMESPACES))

test-runtime: ## real pods on containerd 1.6 and 2.x: needs root
	@tests/setup/packages.sh runtime namespaces
	@tests/setup/containerd2.sh >/dev/null
	@tests/setup/kubectl.sh >/dev/null
	$(call tier,10m,$(RUNTIME))

test-kernels: ## in User-mode Linux and QEMU: needs root
	@tests/setup/packages.sh vm units namespaces runtime
	@tests/setup/kernel.sh >/dev/null
	$(call tier,8m,$(KERNELS))

soak: ## the laws over many more worlds, services that change for minutes, and an hour of churn under kill -9
	@tests/setup/packages.sh build runtime namespaces
	LONGSHORE_SCHEDULES=20000 $(CARGO) test --profile $(PROFILE) -p longshore --lib simulator
	LONGSHORE_CHURN_SECONDS=600 $(CARGO) test --profile $(PROFILE) -p longshore-dataplane --test steady -- --nocapture
	$(CARGO) build --profile $(PROFILE) -p longshore
	LONGSHORE_CHURN_SECONDS=3600 $(CARGO) test --profile $(PROFILE) -p longshore-tests --test runtime_churn

bench: ## what a node and its parts cost, beside the floor; takes minutes
	@tests/setup/packages.sh build runtime namespaces
	$(CARGO) build --release -p longshore
	LONGSHORE_BINARY=$(TARGET)/release/longshore $(CARGO) bench --profile $(PROFILE) -p longshore-tests --bench node
	LONGSHORE_BINARY=$(TARGET)/release/longshore LONGSHORE_BENCH_PART=cluster $(CARGO) bench --profile $(PROFILE) -p longshore-tests --bench node
	$(CARGO) bench --profile $(PROFILE) -p longshore --bench api
	$(CARGO) bench -p longshore-dataplane --bench pipeline

bench-proxy: ## service proxies side by side, with connect() as the clock; PROXY="1000 --other 'COMMAND'", PROXY=--help
	@tests/setup/packages.sh build namespaces
	$(CARGO) bench -p longshore-dataplane --bench proxy -- --out $(TARGET)/bench-proxy $(PROXY)

lint: ## formatting, clippy, licences
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	@command -v cargo-deny >/dev/null || { echo "lint: licences are not checked without cargo-deny: cargo install --locked cargo-deny" >&2; exit 1; }
	$(CARGO) deny check licenses bans sources

fmt: ## formats the sources
	$(CARGO) fmt --all
