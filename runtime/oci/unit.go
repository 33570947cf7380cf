package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/run"
	"github.com/proa-os/proa/runtime/sdnotify"
)

// unitFlags are those of run that are not the OCI's, for a unit of systemd whose one program this is.
type unitFlags struct {
	unit     bool
	failures string
}

func (u *unitFlags) flags(s *flagset.Set, o *run.Options) {
	s.Bool(&u.unit, "unit", "tell systemd that the workload is the main process of this unit (of Type=notify), and return when it runs")
	s.Func("enter", "FD", "enter the namespace behind a descriptor first (repeatable)", func(v string) error {
		fd, err := strconv.Atoi(v)
		o.Enter = append(o.Enter, fd)
		return err
	})
	s.Func("stdio", "FD", "take standard input, output and error from a message at this socket", func(v string) (err error) {
		o.Stdio, err = strconv.Atoi(v)
		return err
	})
	s.String(&u.failures, "failure-file", "FILE", "write the exit code of a failed start here, before the unit's main process ends")
}

func (u *unitFlags) run(ctx context.Context, g *global, words []string, o run.Options, detach bool) (int, error) {
	if len(o.Enter) > 0 {
		os.Unsetenv("LISTEN_FDS") // they are no sockets for the workload
	}
	if u.unit {
		// A child of the service manager's, which else would not hear of its end.
		o.Sister = true
		o.Before = func(pid int) error { return sdnotify.Send("MAINPID="+strconv.Itoa(pid), "READY=1") }
	}
	if u.failures != "" {
		o.Failed = func(err error) {
			code := 1
			var command *run.CommandError
			if errors.As(err, &command) {
				code = command.Code()
			}
			if err := os.WriteFile(u.failures, []byte(strconv.Itoa(code)), 0o600); err != nil {
				g.tell("warning", fmt.Sprintf("note the failure: %v", err))
			}
		}
	}
	return g.run(ctx, words, o, detach || u.unit)
}
