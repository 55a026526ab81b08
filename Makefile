# Two commands matter: `make demo` and `make test`. Each step of the second can be run alone.
# Releases apart, everything is built in one profile, dev, so that tests and demo share what they can, and the demo serves
# after a third of the time that an optimised build would take.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.NOTPARALLEL:
.PHONY: demo release test fmt deny clippy docs tests budgets fuzz tools-build tools-test

# One announced step: its name, its command; its time at the end.
define step
	@echo "==> $(1)"; SECONDS=0; $(2); echo "<== $(1) took $$SECONDS s"
endef

# A whole Postern on this machine: provider, sample application, everything. `make demo ARGS="--port 9443"`.
demo: tools-build
	@exec cargo run --locked -- demo $(ARGS)

# target/release/postern, optimised by a profile (docs/decisions/0026-a-profile-for-releases.md). Cargo does not look into that
# file and would keep what was built with another one, so its checksum is a flag too.
release: tools-build
	@profile="$$(pwd -P)/edge/postern/release.profdata"; sum=$$(sha256sum "$$profile" | cut -c 1-16); \
	  CARGO_ENCODED_RUSTFLAGS="-Cprofile-use=$$profile"$$'\x1f'"--cfg=profile_$$sum" cargo build --release --locked $(ARGS)

# What has to pass before a change is taken.
test: fmt deny clippy docs tests budgets fuzz

fmt:
	$(call step,fmt,cargo fmt --all --check)

deny: tools-test
	$(call step,deny,cargo fetch --locked; .cache/cargo-deny/bin/cargo-deny --offline --log-level error check bans licenses sources)

clippy: tools-test
	$(call step,clippy,cargo clippy --workspace --all-targets --locked -- -D warnings)

docs: tools-test
	$(call step,docs,RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked)

# What an outage does to people is judged by the second: those tests have the machine to themselves.
tests: tools-test
	$(call step,tests,cargo test --workspace --locked -- --skip outage::)
	$(call step,outages,cargo test --workspace --locked --test capability -- outage:: --test-threads=1)

# The instructions that each step of the gate takes, in the build that the tests have.
budgets: tools-test
	$(call step,budgets,cargo bench --profile dev --workspace --locked --bench steps -- --budgets $(ARGS))

# Each fuzz target for so long, from the kept inputs on. A finding is left in target/fuzz, and its input belongs into
# edge/fuzz/corpus once a test has it. `make fuzz SECONDS_EACH=600 PROFILE=bench` is the thorough one.
fuzz: export SECONDS_EACH := $(or $(SECONDS_EACH),5)
fuzz: tools-test
	$(call step,fuzz,edge/fuzz/run $(or $(PROFILE),dev) $$SECONDS_EACH)

tools-build:
	@.ci/tools build

tools-test:
	@.ci/tools test
