# make            build the binary and run what needs no root
# make demo       two hosts on this machine, the tutorial walked, everything torn down again
# make test       everything, root tests included
# make help       every target

SHELL       := /bin/bash
GO          ?= go
export CGO_ENABLED := 0
export PATH := $(CURDIR)/bin:$(PATH)
TAGS        := no_rdt
LDFLAGS     := -s -w
EMBEDDED    := runtime/shim/embedded
INSIDE      := cmd/internal/inside
BUILD       := $(GO) build -trimpath -tags $(TAGS) -ldflags '$(LDFLAGS)'

.DEFAULT_GOAL := all
.PHONY: all build shim daemon man completion install uninstall deb deps images demo test unit chaos race fuzz bench bench-deps test-deps test-upgrade test-buildkit check fmt clean help

all: build unit ## build, vet, and the tests that need no root

build: daemon ## bin/minictl, one static binary with the daemon, the shim and the init inside
	$(BUILD) -o bin/minictl ./cmd/minictl
	@rm -rf bin/man bin/completion

man: ## bin/man: a page a command
	$(GO) build -trimpath -tags $(TAGS) -o bin/minictl-man ./cmd/minictl-man
	SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct 2>/dev/null || date +%s)} bin/minictl-man bin/man

completion: bin/minictl ## bin/completion: scripts for bash, zsh and fish
	@mkdir -p bin/completion
	for s in bash zsh fish; do bin/minictl completion $$s > bin/completion/$$s || exit 1; done

# What install needs and is not there is made; after "make" nothing is compiled, so root needs no go.
bin/minictl: ; $(MAKE) build
bin/man: ; $(MAKE) man
bin/completion: ; $(MAKE) completion

PREFIX  ?= /usr/local
BINDIR  := $(PREFIX)/bin
MANDIR  := $(PREFIX)/share/man/man1
UNITDIR := $(PREFIX)/lib/systemd/system
BASHDIR := $(PREFIX)/share/bash-completion/completions
ZSHDIR  := $(PREFIX)/share/zsh/site-functions
FISHDIR := $(PREFIX)/share/fish/vendor_completions.d

install: bin/minictl bin/man bin/completion ## program, man pages, completion and systemd units below PREFIX (/usr/local), DESTDIR before it
	install -D -m 755 bin/minictl $(DESTDIR)$(BINDIR)/minictl
	install -d $(DESTDIR)$(MANDIR) $(DESTDIR)$(UNITDIR)
	install -m 644 bin/man/*.1 $(DESTDIR)$(MANDIR)
	install -D -m 644 bin/completion/bash $(DESTDIR)$(BASHDIR)/minictl
	install -D -m 644 bin/completion/zsh $(DESTDIR)$(ZSHDIR)/_minictl
	install -D -m 644 bin/completion/fish $(DESTDIR)$(FISHDIR)/minictl.fish
	for u in minictl.service minictl.socket minictl-witness.service; do \
	  sed 's,@BINDIR@,$(BINDIR),' cmd/packaging/$$u > $(DESTDIR)$(UNITDIR)/$$u && \
	  chmod 644 $(DESTDIR)$(UNITDIR)/$$u || exit 1; done

# The first step refuses while a daemon or containers run, and says what to do.
uninstall: ## what install installed, and all that the daemon left in the kernel; /var/lib/minictl stays
	[ -n "$(DESTDIR)" ] || [ ! -x $(BINDIR)/minictl ] || $(BINDIR)/minictl daemon --cleanup
	rm -f $(DESTDIR)$(BINDIR)/minictl $(DESTDIR)$(MANDIR)/minictl.1 $(DESTDIR)$(MANDIR)/minictl-*.1 \
	  $(DESTDIR)$(BASHDIR)/minictl $(DESTDIR)$(ZSHDIR)/_minictl $(DESTDIR)$(FISHDIR)/minictl.fish \
	  $(DESTDIR)$(UNITDIR)/minictl.service $(DESTDIR)$(UNITDIR)/minictl.socket \
	  $(DESTDIR)$(UNITDIR)/minictl-witness.service

deb: bin/minictl bin/man bin/completion ## a Debian package in bin
	@cmd/packaging/deb.sh

# Both are compressed into the binary. They are written only when their content changes, so that go's cache holds.
shim:
	@for p in shim init; do \
	  $(BUILD) -o bin/minictl-$$p ./cmd/minictl-$$p && gzip -9nc bin/minictl-$$p > bin/$$p.gz || exit 1; \
	  cmp -s bin/$$p.gz $(EMBEDDED)/$$p.gz && rm bin/$$p.gz || mv bin/$$p.gz $(EMBEDDED)/$$p.gz; done

daemon: shim
	$(BUILD) -o bin/minictl-daemon ./cmd/minictl-daemon
	$(GO) run ./cmd/minictl-pack bin/minictl-daemon $(INSIDE)/daemon.zst $(INSIDE)/daemon.facts

deps: ## install what minictl and its tests need from Debian's packages (runc is all that minictl itself needs)
	@testing/deps.sh

test-deps:
	@testing/deps.sh test

images: deps ## build the busybox and httpd images into bin/images
	$(GO) run ./testing/images -o bin/images

demo: deps build images ## two hosts, one overlay network, ping bbox1 across them
	$(GO) build -o bin/demo ./testing/demo
	bin/demo

# A test that needs root fails without it when CI is set. The longest package begins first. Five labs at a time make hosts
# of two cores starve: a test that failed among them has one more try by itself, and is named at the end all the same.
test: test-deps build images bin/minictl-failpoint bin/cli-plugins/docker-compose ## everything, root tests included
	$(GO) vet -tags $(TAGS) ./...
	@rm -f bin/unsteady.txt
	CI=true $(GO) run gotest.tools/gotestsum@v1.13.0 --format pkgname-and-test-fails --packages './testing/e2e ./...' \
	  --rerun-fails=1 --rerun-fails-run-root-test --rerun-fails-max-failures=4 --rerun-fails-report=bin/unsteady.txt -- -tags $(TAGS) -timeout 30m -parallel 5
	@! test -s bin/unsteady.txt || { echo "failed among others, passed alone:"; cat bin/unsteady.txt; }

bin/cli-plugins/docker-compose: FORCE
	@testing/compose.sh

bin/minictl-failpoint: shim FORCE
	$(GO) build -trimpath -tags $(TAGS),failpoint -ldflags '$(LDFLAGS)' -o $@ ./cmd/minictl-daemon

# A BuildKit as old as the client that speaks to it. Its module is compiled once, in ten minutes or so.
BUILDKIT := bin/buildkit/buildkitd
$(BUILDKIT):
	CGO_ENABLED=0 $(GO) build -C $$($(GO) list -m -f '{{.Dir}}' github.com/moby/buildkit) -trimpath -o $(CURDIR)/$@ ./cmd/buildkitd

test-buildkit: test-deps build images bin/minictl-failpoint bin/cli-plugins/docker-compose $(BUILDKIT) ## builds by a real BuildKit, which is compiled first
	PATH=$(CURDIR)/$(dir $(BUILDKIT)):$$PATH CI=true $(GO) test -tags $(TAGS) -run 'TestBuild$$' ./testing/e2e

unit: ## what needs no root
	$(GO) vet -tags $(TAGS) ./...
	$(GO) test -tags $(TAGS) -short $$($(GO) list -tags $(TAGS) ./... | grep -v /testing/e2e)

# The older commit is built in a folder of its own, which is gone afterwards.
test-upgrade: deps build images ## a cluster of an older commit, upgraded host by host: make test-upgrade FROM=<commit>
	@[ -n "$(FROM)" ] || { echo "which release does it begin with? make test-upgrade FROM=<commit>" >&2; exit 1; }
	old=$$(mktemp -d) && trap 'git worktree remove --force $$old/src; rm -rf $$old' EXIT && \
	  git worktree add --detach $$old/src $(FROM) && $(MAKE) -C $$old/src build && \
	  CI=true MINICTL_OLD_BIN=$$old/src/bin/minictl $(GO) test -tags $(TAGS),upgrade -count=1 -v -run 'TestUpgrade$$' ./testing/e2e

chaos: deps build images ## random operations and faults on real daemons: make chaos FOR=1h SEED=7
	$(GO) build -tags $(TAGS) -o bin/chaos ./testing/chaos
	GOGC=400 MINICTL_SIM_SEED=$(or $(SEED),$$RANDOM) MINICTL_SIM_HOSTS=50 $(GO) test -tags $(TAGS) -count=1 -timeout 2h -run TestSimulation -v ./cluster
	bin/chaos $(if $(SEED),-seed $(SEED)) $(if $(FOR),-for $(FOR)) -keep bin/chaos-logs

race: test-deps build images ## the pure packages and the cluster under the race detector
	CGO_ENABLED=1 $(GO) test -race -tags $(TAGS) ./cluster/... ./dnsd/... ./netdriver/ipam/... ./netdriver/portmap/... ./runtime/logs/... ./cmd/internal/api/...

fuzz: ## every fuzz target for ten seconds
	@set -e; for f in $$(grep -rl --include='*_test.go' '^func Fuzz' .); do \
	  for t in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p' $$f); do \
	    echo "$$f $$t"; $(GO) test -tags $(TAGS) -run '^$$' -fuzz "^$$t$$" -fuzztime 10s ./$$(dirname $$f); done; done

bench: deps build images bench-deps ## the figures, beside Debian's Docker Engine, as a table
	$(GO) build -o bin/bench ./testing/bench
	bin/bench

bench-deps: ## unpack Debian's Docker Engine into bin/peer; nothing is installed
	@testing/bench/peer.sh

check: ## the linters
	$(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0 run

fmt: ## gofmt
	gofmt -w $$(git ls-files '*.go')

clean: ## remove what was built
	rm -rf bin $(EMBEDDED)/*.gz $(INSIDE)/daemon.zst $(INSIDE)/daemon.facts

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

FORCE:
