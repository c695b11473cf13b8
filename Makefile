# The ways to work on Postledger; each works on a fresh clone.

CARGO ?= cargo
# What `make run` keeps its data in.
DIR ?= localserve-data

.PHONY: run build test check bench

# Everything on this machine, for trying things out. It prints what to try.
run:
	$(CARGO) run --locked -- localserve --dir $(DIR)

# The program as it is meant to run: target/release/postledger.
build:
	$(CARGO) build --locked --release

# The tests talk to real peers (Postfix, swaks, Python); they are installed first if they are missing.
test:
	sh tests/install-peers.sh
	$(CARGO) test --locked --workspace

# The rules of the house: format, lints, who may name whom, and documents that are fresh.
check:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps
	$(CARGO) test --locked --test promises -- boundaries:: events_doc::

# Figures of this machine, in about three minutes.
bench:
	$(CARGO) bench --locked --bench bench
