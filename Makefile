# The task runner. CI calls these same names.
CARGO ?= cargo
export CARGO_TERM_COLOR ?= auto

.PHONY: help demo sandbox test lint gen gen-check bench fuzz refresh-race sweep soak model test-servers servers test-hosts test-page abi-report

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

servers: ## install what the real servers in tests and demo need (Debian and npm packages)
	@tests/install.sh

ifeq ($(SERVERS),real)
demo: servers
	$(CARGO) build --quiet -p oauth-mail-plugin -p host-sample -p oauth-mail-tests --bins --lib
	@target/debug/host-sample demo --servers target/debug/oauth-mail-servers --protocol $(or $(PROTOCOL),imap)
else
demo: ## the main job, each step proven; PROTOCOL=imap|ews|graph|all; SERVERS=real takes Dovecot, Postfix and oidc-provider
	$(CARGO) build --quiet -p oauth-mail-plugin -p host-sample -p oauth-mail-sandbox --bins --lib
	@target/debug/host-sample demo --protocol $(or $(PROTOCOL),imap)
endif

sandbox: ## a provider on loopback to develop against, until Ctrl-C; prints ports, users and URLs as JSON
	@$(CARGO) run --quiet -p oauth-mail-sandbox -- up --stay

test: servers ## all tests
	$(CARGO) build --quiet -p oauth-mail-plugin --features test-panics
	@mkdir -p target/test-panics/debug && cp target/debug/liboauth_mail.so target/test-panics/debug/
	$(CARGO) build --quiet -p oauth-mail-plugin -p host-sample -p oauth-mail-tests -p oauth-mail-sandbox --bins --lib
	$(CARGO) test --workspace --no-fail-fast
	$(CARGO) test -p oauth-mail-plugin --features test-panics
	$(CARGO) test -p oauth-mail-tests --features test-seam --test sweep

test-hosts: servers ## the hosts in other languages on real servers, the C interface, the pipe adapters (part of `make test`)
	$(CARGO) build --quiet -p oauth-mail-plugin -p host-sample
	$(CARGO) test -p oauth-mail-tests --test hosts --test c_abi --test faces --test pipe

test-page: servers ## the helpdesk's page in Chromium: every protocol, keyboard, 320 px, axe; screenshots in target/page-screenshots (part of `make test`)
	$(CARGO) build --quiet -p oauth-mail-plugin -p host-sample
	$(CARGO) test -p oauth-mail-tests --test browser --test page --test serve

abi-report: servers ## which hosts and libraries work together, by running the pairs
	$(CARGO) build --quiet -p oauth-mail-plugin
	$(CARGO) test -p oauth-mail-tests --test abi_report -- --nocapture

lint: ## formatting, clippy, licences
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --quiet -- -D warnings
	$(CARGO) clippy -p oauth-mail-tests --features test-seam --all-targets --quiet -- -D warnings
	@if command -v cargo-deny >/dev/null; then $(CARGO) deny check bans licenses sources; \
	else echo "SKIPPED: cargo-deny is not installed (cargo install cargo-deny)"; fi

gen: ## write the generated files
	$(CARGO) run --quiet -p oauth-mail-schema

gen-check: ## are the generated files up to date?
	$(CARGO) run --quiet -p oauth-mail-schema -- --check

refresh-race: servers ## one token request per expiry, whoever asks, whoever dies (minutes; a short form is among the tests)
	$(CARGO) build --quiet -p oauth-mail-tests --bin refresh-race
	@target/debug/refresh-race $(if $(EXPIRIES),--expiries $(EXPIRIES))

sweep: servers ## stop, fail, cut off and power off at every step (minutes; SWEEPS="kill …" for some; a short form is among the tests)
	$(CARGO) build --quiet -p oauth-mail-tests --features test-seam --bin oauth-mail-sweep
	@target/debug/oauth-mail-sweep $(SWEEPS)

test-servers: ## servers of other families, each walked through a suite: NAME n/n (minutes; SERVERS="pymap smtp …" for some; four are in `make test`)
	@tests/install.sh --servers
	$(CARGO) build --quiet -p oauth-mail-tests --bin oauth-mail-families
	@target/debug/oauth-mail-families $(filter-out real,$(SERVERS))

model: ## a random mailbox, host and server until STEPS (2,000,000) things happened, from SEED on (minutes; a short form is among the tests)
	$(CARGO) build --quiet --release -p oauth-mail-tests --bin oauth-mail-model
	@target/release/oauth-mail-model $(if $(STEPS),--steps $(STEPS)) $(if $(SEED),--seed $(SEED))

soak: servers ## four hosts on PostgreSQL, 200 mailboxes, 100,000 mails, faults, kills, freezes (SOAK_MAILBOXES, SOAK_MAILS, SOAK_SECONDS … for less)
	$(CARGO) build --quiet --release -p oauth-mail-tests --bin oauth-mail-soak
	@target/release/oauth-mail-soak

bench: ## measure against mbsync, a raw TLS reader and nodemailer (minutes; not a test)
	@tests/install.sh --bench
	$(CARGO) build --quiet --release -p oauth-mail-plugin -p host-sample -p oauth-mail-tests --bins --lib
	@target/release/oauth-mail-bench

fuzz: ## mutate inputs of every parser for SECONDS (default 60) each
	$(CARGO) run --quiet --release -p oauth-mail-tests --bin oauth-mail-fuzz -- --seconds $(or $(SECONDS),60)
