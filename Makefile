# Proa's targets; what they do is in Go. `make help` lists them.
VERSION ?= 0.1.0
OUT     ?= out
GO      ?= go
export CGO_ENABLED = 0
# The builder compiles without paths, to be the same everywhere. What is vetted and tested is compiled so, too: once for all three.
override GOFLAGS := $(filter-out -trimpath,$(GOFLAGS)) -trimpath
export GOFLAGS
# What is run calls go and gofmt, too: the same ones.
export PATH := $(patsubst %/,%,$(dir $(shell command -v $(GO)))):$(PATH)

# Built once, so that a build in which little has changed does not begin with linking the builder. Its bytes are part of the cache's keys:
# without paths in it, all checkouts of the same source share what they have built.
BUILDER  = $(OUT)/bin/image-builder
# The tools tree of this checkout's lock: another checkout may share the cache and have made another one the current.
WITH_TOOLS = PROA_TOOLS="$$($(BUILDER) tools)" || exit 1; export PROA_TOOLS;
# The tree of the judges: podman, containerd and others, which only tests of the runtime and its benchmarks ask for.
WITH_JUDGES = PROA_JUDGES_TREE="$$($(BUILDER) tools judges)" || exit 1; export PROA_JUDGES_TREE;

.PHONY: help build image inspect diff reproducible run demo test powercut unit check bench bench-payload bench-boot bench-gap bench-runtime bench-pull bench-run judge-runtime judge-tuf fuzz lock release clean check-go builder
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

check-go:
	@command -v $(GO) >/dev/null || { echo "proa: Go 1.26 or newer is needed; '$(GO)' is not in PATH (set GO=/path/to/go)" >&2; exit 1; }
	@v=$$($(GO) env GOVERSION); n=$$(echo "$$v" | sed -n 's/^go1\.\([0-9]*\).*/\1/p'); \
	[ "$${n:-0}" -ge 26 ] || { echo "proa: Go 1.26 or newer is needed; $(GO) is $$v (Debian's is older: install a newer one and set GO=/path/to/go)" >&2; exit 1; }

builder: check-go
	@$(GO) build -trimpath -buildvcs=false -o $(BUILDER) ./image-builder/cmd/image-builder

build: check-go ## compile every program
	$(GO) build ./...

image: builder ## build out/VERSION/ (VERSION=x.y.z): disk images, root image, boot program, SBOM, reports
	$(BUILDER) build --version $(VERSION) --out $(OUT)/$(VERSION)

inspect: builder ## what is in IMAGE (default out/VERSION): partitions, slots, boot programs, packages
	$(BUILDER) inspect --verify $(or $(IMAGE),$(OUT)/$(VERSION))

diff: builder ## what changed from OLD to NEW, two releases or images (OLD=out/1.0.0 NEW=out/1.0.1)
	$(BUILDER) diff $(OLD) $(NEW)

reproducible: builder ## build VERSION twice, as differently as can be; name the first byte that differs
	$(BUILDER) reproduce --version $(VERSION) --dir $(OUT)/reproduce

run: builder ## build the image and boot it in QEMU (CONFIG=file: Ignition JSON or Butane YAML)
	$(BUILDER) build --version $(VERSION) --out $(OUT)/$(VERSION) --no-qcow2
	@$(WITH_TOOLS) $(GO) run ./qemu-tests/cmd/run --image $(OUT)/$(VERSION)/disk.img $(if $(CONFIG),--config $(CONFIG))

demo: builder ## build, boot, provision, run a container, update, come back: the story on the terminal
	@$(WITH_TOOLS) $(GO) run ./qemu-tests/cmd/demo

# How many stories are told at a time: most of their machines have one CPU and 1 GiB, and wait a third of their time. Three keep two processors
# busy all the time; with four a boot takes as much CPU time, and longer by the clock of those who wait for it. The tests that boot a bare
# kernel run beside the first of them, one package at a time.
MACHINES ?= 3
BARE = $$(grep -rlE --include='*_test.go' --exclude-dir=out 'testenv\.Machines\(|guesttest\.Run\(' . | xargs -n1 dirname | sort -u | grep -vx ./qemu-tests)
test: check unit ## checks, unit tests, foreign judges, the stories in QEMU
	@$(WITH_TOOLS) export PROA_STORIES=1 PROA_REQUIRE_TOOLS=1 PROA_MACHINES=$(MACHINES); \
	$(GO) test -vet=off -count=1 -p 1 -parallel 1 -timeout 40m -v $(BARE) > $(OUT)/bare.log 2>&1 & bare=$$!; \
	{ $(GO) test -vet=off -count=1 -parallel 100 -timeout 80m -v ./qemu-tests 2>&1; echo $$? > $(OUT)/stories.status; } | tee $(OUT)/stories.log; \
	wait $$bare; bare=$$?; cat $(OUT)/bare.log; read -r stories < $(OUT)/stories.status; [ $$stories$$bare = 00 ] || \
	{ $(GO) run ./qemu-tests/cmd/failures $(OUT)/stories.log $(OUT)/bare.log; exit 1; }

powercut: builder ## lose the power at every write of an update, and in the middle of it; start machines from a sample (more than an hour)
	PROA_POWERCUT=full $(GO) test -count=1 -run PowerLost -timeout 30m ./update-engine/install ./update-engine/agent
	$(WITH_TOOLS) PROA_STORIES=1 PROA_REQUIRE_TOOLS=1 PROA_POWERCUT=full PROA_MACHINES=$(MACHINES) $(GO) test -count=1 -parallel 100 -timeout 3h -v -run '^(TestLine|TestAnyToLatest|TestFallback|TestPowerCuts|TestHealth|TestDisks|TestContainers|TestPullPowerLost|TestProvisioningCut|TestPlatform|TestMalformedConfig|TestStateGrows|TestUSB|TestBound|TestBitFlipsWhileRunning)$$' ./qemu-tests/

# A folder in memory with 4 GiB of room where programs and device nodes count; nothing where there is none.
MEMORY = $$(awk '$$2 == "/dev/shm" && $$4 !~ /noexec|nodev/ {print $$2}' /proc/mounts | tail -n 1 | while read -r dir; do [ $$(df -Pk "$$dir" | awk 'END {print $$4}') -lt 4194304 ] || echo "$$dir"; done)

# `make check` vets, and more strictly than go test would. Some packages wait more than they work, for fsync most of all: six at a time leave
# somebody to work beside them, and the longest begin, so that they are not waited for alone at the end. Where there is room their files are in
# memory, which takes half of the time; the programs under test stay on the disk.
unit: builder ## unit tests and foreign judges, no machines
	@$(WITH_TOOLS) $(WITH_JUDGES) export PROA_REQUIRE_TOOLS=1; \
	disk=$$(mktemp -d) && files=$$(mktemp -d -p $(MEMORY) 2>/dev/null || mktemp -d) && trap 'rm -rf "$$disk" "$$files"' EXIT && trap 'exit 1' HUP INT TERM && chmod 711 "$$disk" "$$files" && \
	GOTMPDIR=$$disk TMPDIR=$$files $(GO) test -vet=off -p 6 ./update-engine/... ./runtime/... ./...

check: check-go ## formatting and vet
	@bad=$$(gofmt -l .); [ -z "$$bad" ] || { echo "not gofmt-ed: $$bad" >&2; exit 1; }
	$(GO) vet ./...

bench: builder ## benchmarks, then bench-payload, bench-boot, bench-gap, bench-runtime, bench-pull and bench-run
	$(WITH_TOOLS) $(GO) test -run '^$$' -bench . -benchmem ./internal/... ./image-builder/... ./update-engine/... ./runtime/...
	$(MAKE) bench-payload
	$(MAKE) bench-boot
	$(MAKE) bench-gap
	$(MAKE) bench-runtime
	$(MAKE) bench-pull
	$(MAKE) bench-run

bench-payload: builder ## sizes and costs of payloads on pairs of real releases, beside xdelta3, zstd, casync and bsdiff
	@mkdir -p $(OUT)/bin && $(GO) build -trimpath -o $(OUT)/bin/bench-payload ./qemu-tests/cmd/bench-payload
	@$(WITH_TOOLS) $(OUT)/bin/bench-payload --builder $(BUILDER) --out $(OUT)/bench

bench-boot: image ## time Proa's boot beside plain Debian's (BENCH_ROUNDS=3)
	@$(WITH_TOOLS) $(GO) run ./qemu-tests/cmd/bench --image $(OUT)/$(VERSION) --out $(OUT)/bench

lock: builder ## pin today's packages of the Debian archive in manifests/
	$(BUILDER) lock

bench-gap: builder ## measure how long an update keeps a machine away, by a soft and by a full reboot
	@$(WITH_TOOLS) $(GO) run ./qemu-tests/cmd/bench-gap --out $(OUT)/bench

bench-runtime: check-go ## time the start of a container beside pinned crun and runc (as root; BENCH_ROUNDS=60)
	@mkdir -p $(OUT)/bin && $(GO) build -trimpath -ldflags='-s -w' -o $(OUT)/bin/oci-runtime ./runtime/cmd/oci-runtime && $(GO) build -o $(OUT)/bin/bench-runtime ./qemu-tests/cmd/bench-runtime
	@$(OUT)/bin/bench-runtime --runtime $(OUT)/bin/oci-runtime --out $(OUT)/bench/runtime --rounds $(or $(BENCH_ROUNDS),60)

bench-pull: builder ## measure pulling an image of many layers beside pinned containerd and podman (as root; BENCH_ROUNDS=5)
	@mkdir -p $(OUT)/bin && $(GO) build -trimpath -ldflags='-s -w' -o $(OUT)/bin/containerctl ./runtime/cmd/containerctl && $(GO) build -o $(OUT)/bin/bench-pull ./qemu-tests/cmd/bench-pull
	@$(WITH_JUDGES) $(OUT)/bin/bench-pull --containerctl $(OUT)/bin/containerctl --rounds $(or $(BENCH_ROUNDS),5)

bench-run: builder ## time containerctl run on a machine, end to end, beside pinned crun (BENCH_ROUNDS=50)
	$(BUILDER) build --version $(VERSION) --out $(OUT)/$(VERSION) --no-qcow2
	@$(WITH_TOOLS) $(GO) run ./qemu-tests/cmd/bench-run --image $(OUT)/$(VERSION) --out $(OUT)/bench/run --rounds $(or $(BENCH_ROUNDS),50)

judge-runtime: builder ## the OCI's validation suite, fetched and built, against oci-runtime; with RUNC=DIR and CRUN=DIR, checkouts or git directories, their suites too (as root; minutes)
	$(WITH_TOOLS) PROA_JUDGES=1 $(GO) test -count=1 -timeout 30m -run '^TestValidationSuite$$' -v ./runtime/oci
	@[ -z "$(RUNC)$(CRUN)" ] || { mkdir -p $(OUT)/bin && $(GO) build -trimpath -ldflags='-s -w' -o $(OUT)/bin/oci-runtime ./runtime/cmd/oci-runtime && $(GO) build -o $(OUT)/bin/judge-runtime ./qemu-tests/cmd/judge-runtime; }
	@[ -z "$(RUNC)$(CRUN)" ] || $(OUT)/bin/judge-runtime --runc "$(RUNC)" --crun "$(CRUN)" --runtime $(OUT)/bin/oci-runtime --out $(OUT)/judge

judge-tuf: builder ## the TUF project's conformance suite against our TUF client (SUITE=DIR, checkout or git directory of theupdateframework/tuf-conformance)
	@[ -n "$(SUITE)" ] || { echo "proa: judge-tuf: set SUITE=DIR to a checkout or git directory of theupdateframework/tuf-conformance" >&2; exit 1; }
	@mkdir -p $(OUT)/bin && $(GO) build -trimpath -o $(OUT)/bin/tuf-client ./update-engine/cmd/tuf-client && $(GO) build -o $(OUT)/bin/judge-tuf ./qemu-tests/cmd/judge-tuf
	@$(WITH_TOOLS) $(WITH_JUDGES) $(OUT)/bin/judge-tuf --suite "$(SUITE)" --client $(OUT)/bin/tuf-client --out $(OUT)/judge

FUZZTIME ?= 30s
fuzz: check-go ## run every fuzzer for FUZZTIME (30s)
	@grep -rl --include='*_test.go' --exclude-dir=out '^func Fuzz' . | xargs -n1 dirname | sort -u | while read -r dir; do \
		list=$$($(GO) test -list '^Fuzz' "$$dir") || exit 1; for f in $$(echo "$$list" | grep '^Fuzz'); do echo "$$dir $$f"; \
		$(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 20x "$$dir" || exit 1; done; done

release: check-go ## the release desk's commands
	$(GO) run ./update-engine/cmd/release --help

clean: ## remove what was built (the package cache stays)
	rm -rf $(OUT)
