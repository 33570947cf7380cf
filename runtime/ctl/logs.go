package ctl

import (
	"context"
	"fmt"
	"os"
	"syscall"

	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/unit"
)

// logsFlags are the flags of logs, passed on to journalctl.
type logsFlags struct {
	follow       bool
	lines, since string
}

func logsVerb() verb {
	return verb{name: "logs", args: "NAME", what: "show a container's output, from the journal", min: 1, max: 1, lister: "containers", setup: func(s *flagset.Set) action {
		f := new(logsFlags)
		s.Bool(&f.follow, "f,follow", "go on with new output")
		s.String(&f.lines, "n,tail", "LINES", "only the last lines")
		s.String(&f.since, "since", "TIME", "only since then, as journalctl reads it")
		return f.run
	}}
}

// run becomes journalctl. The match is on who wrote a line, so that systemd's own lines about the unit are left out.
func (f *logsFlags) run(_ context.Context, c *call) error {
	k, err := c.container(c.args[0])
	if err != nil {
		return err
	}
	args := []string{c.Journal, "--quiet", "--output=cat", "--all"}
	if f.follow {
		args = append(args, "--follow")
	}
	switch {
	case f.lines != "":
		args = append(args, "--lines="+f.lines)
	case f.follow:
		args = append(args, "--no-tail")
	}
	if f.since != "" {
		args = append(args, "--since="+f.since)
	}
	args = append(args, "--no-pager", "_SYSTEMD_UNIT="+unit.Of(k))
	err = syscall.Exec(args[0], args, os.Environ())
	return fmt.Errorf("execute %s: %w", args[0], err)
}
