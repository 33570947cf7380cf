package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/flagset"
	"github.com/proa-os/proa/runtime/run"
	"github.com/proa-os/proa/runtime/sdnotify"
)

// unitFlags are those of run that are not the OCI's, for a unit of systemd whose one program this is.
type unitFlags struct {
	unit     bool
	failures string
	enter    []string
	stdio    string
}

func (u *unitFlags) flags(s *flagset.Set) {
	s.Bool(&u.unit, "unit", "tell systemd that the workload is the main process of this unit (of Type=notify), and return when it runs")
	s.List(&u.enter, "enter", "NAME", "enter the namespace behind a descriptor first, one of LISTEN_FDNAMES (repeatable)")
	s.String(&u.stdio, "stdio", "NAME", "take standard input, output and error from a message at this socket, one of LISTEN_FDNAMES")
	s.String(&u.failures, "failure-file", "FILE", "write the exit code of a failed start here, before the unit's main process ends")
}

func (u *unitFlags) run(ctx context.Context, g *global, words []string, o run.Options, detach bool) (int, error) {
	if len(u.enter) > 0 || u.stdio != "" {
		if err := run.Protect(); err != nil { // which may begin this process anew
			return 1, err
		}
		if err := u.inherit(&o); err != nil {
			return 1, err
		}
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

// inherit takes our descriptors out of those that systemd passes on (sd_listen_fds_with_names(3)). The others are the workload's: of socket
// units, and of files that a drop-in opens (OpenFile=), which come in front of ours and behind.
func (u *unitFlags) inherit(o *run.Options) error {
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	if n, err := strconv.Atoi(os.Getenv("LISTEN_FDS")); err != nil || n != len(names) {
		return fmt.Errorf("take descriptors from systemd: want as many as LISTEN_FDNAMES has, %d, found LISTEN_FDS=%s", len(names), os.Getenv("LISTEN_FDS"))
	}
	ours := map[string]int{}
	for _, name := range append(slices.Clone(u.enter), u.stdio) {
		if name == "" {
			continue
		}
		at := slices.Index(names, name)
		if at < 0 {
			return fmt.Errorf("take descriptors from systemd: none is called %s: found %s", name, strings.Join(names, ", "))
		}
		ours[name] = 3 + at
	}
	if len(ours) < len(names) {
		if err := closeRanks(names, ours); err != nil {
			return fmt.Errorf("take descriptors from systemd: %w", err)
		}
	} else {
		os.Unsetenv("LISTEN_FDS")
	}
	for _, name := range u.enter {
		o.Enter = append(o.Enter, ours[name])
	}
	o.Stdio = ours[u.stdio]
	return nil
}

// closeRanks moves ours out of the way, and the workload's to where it looks for them: from 3 on, without a gap.
func closeRanks(names []string, ours map[string]int) error {
	for name, fd := range ours {
		moved, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3+len(names))
		if err == nil {
			err = unix.Close(fd)
		}
		if err != nil {
			return fmt.Errorf("move %s: %w", name, err)
		}
		ours[name] = moved
	}
	var theirs []string
	for i, name := range names {
		if ours[name] != 0 {
			continue
		}
		if to := 3 + len(theirs); to < 3+i {
			if err := errors.Join(unix.Dup3(3+i, to, 0), unix.Close(3+i)); err != nil {
				return fmt.Errorf("move %s: %w", name, err)
			}
		}
		theirs = append(theirs, name)
	}
	return errors.Join(os.Setenv("LISTEN_FDS", strconv.Itoa(len(theirs))), os.Setenv("LISTEN_FDNAMES", strings.Join(theirs, ":")))
}
