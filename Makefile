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

.PHONY: run build test check crash bench

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

# Breaks the ledger on purpose and prints one table; see docs/proof.md. Needs root, loop devices and ext4 for the power cuts.
crash:
	POSTLEDGER_CRASH_ROUNDS=$(N) $(if $(SEED),POSTLEDGER_TEST_SEED=$(SEED)) \
		$(CARGO) test --locked --test promises -- crash:: --nocapture --test-threads=1

# Figures of this machine, in about three minutes.
bench:
	$(CARGO) bench --locked --bench bench
