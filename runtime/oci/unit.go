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
	parcel   string
}

func (u *unitFlags) flags(s *flagset.Set) {
	s.Bool(&u.unit, "unit", "tell systemd that the workload is the main process of this unit (of Type=notify), and return when it runs")
	s.String(&u.parcel, "parcel", "NAME", "wait for a message at this socket, one of LISTEN_FDNAMES, that the bundle is there: take standard input, output and error from it, and namespaces to enter")
	s.String(&u.failures, "failure-file", "FILE", "write the exit code of a failed start here, before the unit's main process ends")
}

func (u *unitFlags) run(ctx context.Context, g *global, words []string, o run.Options, detach bool) (int, error) {
	if u.parcel != "" {
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

// inherit takes our descriptor out of those that systemd passes on (sd_listen_fds_with_names(3)). The others are the workload's: of socket
// units, and of files that a drop-in opens (OpenFile=), which come in front of ours and behind.
func (u *unitFlags) inherit(o *run.Options) error {
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	if n, err := strconv.Atoi(os.Getenv("LISTEN_FDS")); err != nil || n != len(names) {
		return fmt.Errorf("take descriptors from systemd: want as many as LISTEN_FDNAMES has, %d, found LISTEN_FDS=%s", len(names), os.Getenv("LISTEN_FDS"))
	}
	at := slices.Index(names, u.parcel)
	if at < 0 {
		return fmt.Errorf("take descriptors from systemd: none is called %s: found %s", u.parcel, strings.Join(names, ", "))
	}
	o.Parcel = 3 + at
	if len(names) == 1 {
		return os.Unsetenv("LISTEN_FDS")
	}
	var err error
	if o.Parcel, err = closeRanks(names, at); err != nil {
		return fmt.Errorf("take descriptors from systemd: %w", err)
	}
	return nil
}

// closeRanks moves the descriptor of one name out of the way, and those behind it, the workload's, by one, so that they go on without a gap.
func closeRanks(names []string, ours int) (moved int, err error) {
	moved, err = unix.FcntlInt(uintptr(3+ours), unix.F_DUPFD_CLOEXEC, 3+len(names))
	if err != nil {
		return 0, fmt.Errorf("move %s: %w", names[ours], err)
	}
	for i := ours + 1; i < len(names); i++ {
		if err := unix.Dup3(3+i, 3+i-1, 0); err != nil {
			return 0, fmt.Errorf("move %s: %w", names[i], err)
		}
	}
	if err := unix.Close(3 + len(names) - 1); err != nil {
		return 0, err
	}
	theirs := slices.Delete(slices.Clone(names), ours, ours+1)
	return moved, errors.Join(os.Setenv("LISTEN_FDS", strconv.Itoa(len(theirs))), os.Setenv("LISTEN_FDNAMES", strings.Join(theirs, ":")))
}
