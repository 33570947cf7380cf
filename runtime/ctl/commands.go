package ctl

import (
	"context"
	"time"

	"github.com/proa-os/proa/runtime/flagset"
)

// commands is the table that parsing and --help share.
func (e *Env) commands() []command {
	var asJSON, all, force, follow, push bool
	tlsVerify := true
	pf := new(pullFlags)
	lines, since := "", ""
	seconds := -1
	jsonFlag := func(s *flagset.Set) { s.Bool(&asJSON, "json", "print JSON") }
	timeFlag := func(s *flagset.Set) {
		s.Int(&seconds, 0, "t,time", "SECONDS", "wait this long before killing (default: what run --stop-timeout said)")
	}
	r := newRunFlags(&tlsVerify)
	x := new(execFlags)
	return append(e.imageCommands(), []command{
		{name: "pull", args: "[flags] IMAGE", what: "fetch an image from a registry", flags: pf.flags, all: true,
			more: `IMAGE is [REGISTRY/]NAME[:TAG] or [REGISTRY/]NAME@sha256:DIGEST. Of an image for many platforms the one for this
machine is fetched. Fetching runs as the user proa-fetch without privileges; what it brings is verified before it
is unpacked. The digest of the image is printed. A pull that was interrupted goes on where it was.

Mirrors, insecure and blocked registries: /etc/containers/registries.conf. Credentials: containerctl login, or
~/.docker/config.json. Authorities: /etc/containers/certs.d/HOST/*.crt. Proxies: HTTPS_PROXY and NO_PROXY.`,
			run: func(ctx context.Context, w []string) (int, error) { return 0, e.pull(ctx, w, pf) }},
		{name: "run", args: "[flags] IMAGE [COMMAND [ARGUMENTS]]", what: "make a container and start it", flags: r.flags,
			more: `With -d the container becomes the unit proa-<name>.service, runs in the background and, unless --restart no is
given, after every boot. Without -d it runs in the foreground and is removed when it ends.
The image is pulled if it is not there. There are no bridge networks yet: --network must be host or none.`,
			run: func(ctx context.Context, w []string) (int, error) { return e.run(ctx, w, r) }},
		{name: "ps", args: "[flags]", what: "list containers", all: true, flags: func(s *flagset.Set) {
			jsonFlag(s)
			s.Bool(&all, "a,all", "those that do not run as well")
		}, run: func(ctx context.Context, w []string) (int, error) { return 0, e.ps(ctx, w, all, asJSON) }},
		{name: "logs", args: "[flags] NAME", what: "show a container's output, from the journal", all: true, flags: func(s *flagset.Set) {
			s.Bool(&follow, "f,follow", "go on with new output")
			s.String(&lines, "n,tail", "LINES", "only the last lines")
			s.String(&since, "since", "TIME", "only since then, as journalctl reads it")
		}, run: func(_ context.Context, w []string) (int, error) { return 1, e.logs(w, follow, lines, since) }},
		{name: "exec", args: "[flags] NAME COMMAND [ARGUMENTS]", what: "run a command in a running container", flags: x.flags,
			run: func(ctx context.Context, w []string) (int, error) { return 1, e.exec(ctx, w, x) }},
		{name: "stop", args: "[flags] NAME...", what: "stop containers", flags: timeFlag, all: true,
			more: "A container starts again at the next boot unless it was made with --restart unless-stopped or no.",
			run: func(ctx context.Context, w []string) (int, error) {
				return 0, e.stop(ctx, w, time.Duration(seconds)*time.Second)
			}},
		{name: "start", args: "NAME...", what: "start stopped containers", all: true,
			run: func(ctx context.Context, w []string) (int, error) { return 0, e.start(ctx, w, false) }},
		{name: "restart", args: "NAME...", what: "stop and start containers", all: true,
			run: func(ctx context.Context, w []string) (int, error) { return 0, e.start(ctx, w, true) }},
		{name: "rm", args: "[flags] NAME...", what: "remove containers with all they have written", all: true, flags: func(s *flagset.Set) {
			s.Bool(&force, "f,force", "also when it runs")
		}, run: func(ctx context.Context, w []string) (int, error) { return 0, e.rm(ctx, w, force) }},
		{name: "inspect", args: "NAME...", what: "print all about containers or images as JSON", all: true, flags: jsonFlag,
			run: func(ctx context.Context, w []string) (int, error) { return 0, e.inspect(ctx, w) }},
		{name: "images", args: "[flags]", what: "list images", all: true, flags: jsonFlag,
			run: func(_ context.Context, w []string) (int, error) { return 0, e.images(w, asJSON) }},
		{name: "rmi", args: "IMAGE...", what: "remove images; layers stay as long as a container needs them", all: true,
			run: func(_ context.Context, w []string) (int, error) { return 0, e.rmi(w) }},
		{name: "health", args: "[flags] [NAME...]", what: "find out whether containers run and answer", all: true, flags: jsonFlag,
			more: `Every container that starts at boot must run, and its --health-cmd must succeed, in as many tries as
--health-retries says. Each one that does not is a line on standard output, and the exit status is 1. The update
agent asks this before it declares a new release good.`,
			run: func(ctx context.Context, w []string) (int, error) { return e.health(ctx, w, asJSON) }},
		{name: "launch", args: "NAME", what: "start a container's workload (for its unit)", hidden: true,
			run: func(ctx context.Context, w []string) (int, error) { return 1, e.launch(ctx, w, true) }},
		{name: "foreground", args: "NAME", what: "run a container's workload (for run without -d)", hidden: true,
			run: func(ctx context.Context, w []string) (int, error) { return 1, e.launch(ctx, w, false) }},
		{name: "fetch", what: "talk to registries for pull and push, over standard input and output", hidden: true,
			flags: func(s *flagset.Set) { s.Bool(&push, "push", "the directory on descriptor 3 is to be pushed") },
			run:   func(ctx context.Context, w []string) (int, error) { return 0, e.fetch(ctx, w, push) }},
	}...)
}
