# The ways to work on Postledger; each works on a fresh clone.

CARGO ?= cargo
# What `make run` keeps its data in.
DIR ?= localserve-data

# Rounds of `make crash`, as `make crash N=50` or `make crash 50`; SEED=... repeats a run.
N ?= 50
ifeq (crash,$(firstword $(MAKECMDGOALS)))
ifneq (,$(word 2,$(MAKECMDGOALS)))
N := $(word 2,$(MAKECMDGOALS))
.PHONY: $(N)
$(N): ; @:
endif
endif

# How long `make simulate` and each target of `make fuzz` look for something.
SECONDS ?= 60
# What `make fuzz` fuzzes; one of them as `make fuzz TARGET=record`.
TARGET ?= $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs)))

.PHONY: run build test check crash simulate fuzz bench

# Everything on this machine, for trying things out. It prints what to try.
run:
	$(CARGO) run --locked -- localserve --dir $(DIR)

# The program as it is meant to run: target/release/postledger.
build:
	$(CARGO) build --locked --release

# The tests talk to real peers (Postfix, swaks, Python, libraries of PyPI and npm); they are installed first if they are missing.
test:
	sh tests/install-peers.sh
	$(CARGO) test --locked --workspace

# The rules of the house: format, lints, who may name whom, and documents that are fresh.
check:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps
	$(CARGO) test --locked --workspace --test promises -- boundaries:: events_doc:: openapi::the_document

# Breaks the ledger on purpose and prints one table; see docs/proof.md. Needs root, loop devices and ext4 for the power cuts.
crash:
	POSTLEDGER_CRASH_ROUNDS=$(N) $(if $(SEED),POSTLEDGER_TEST_SEED=$(SEED)) \
		$(CARGO) test --locked --workspace --test promises -- crash:: --nocapture --test-threads=1

# New worlds for a minute; SECONDS=600 for longer, SEED="7 8" for worlds again. See docs/proof.md.
simulate:
	$(if $(SEED),SEED="$(SEED)",SECONDS=$(SECONDS)) \
		$(CARGO) test --locked --workspace --profile simulate --test promises -- simulation::as_asked --exact --nocapture

# Bytes from outside, made up for a minute for each reader of them. It installs cargo-fuzz and a nightly toolchain if there are none.
# What it finds is in fuzz/artifacts; put it into fuzz/seeds, and the tests have it from then on.
fuzz:
	$(CARGO) fuzz --version > /dev/null 2>&1 || $(CARGO) install --locked cargo-fuzz
	rustup run nightly rustc --version > /dev/null 2>&1 || rustup toolchain install nightly --profile minimal
	for target in $(TARGET); do \
		mkdir -p fuzz/corpus/$$target && \
		$(CARGO) +nightly fuzz run --sanitizer none $$target fuzz/corpus/$$target fuzz/seeds/$$target -- \
			-max_total_time=$(SECONDS) -timeout=10 -max_len=16384 || exit 1; \
	done

# Figures of this machine; the large ledgers take most of the time. Postfix is installed first if it is missing.
# docs/performance.md says how to choose parts.
bench:
	sh tests/install-peers.sh
	$(CARGO) bench --locked --bench bench
