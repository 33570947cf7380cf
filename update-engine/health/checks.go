package health

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/proa-os/proa/update-engine/state"
)

// Systemd is what the checks ask the service manager.
type Systemd interface {
	// ActiveState is systemd's word for a unit: active, activating, inactive, failed ..., or NotFound.
	ActiveState(ctx context.Context, unit string) (string, error)
	// Failed lists the failed units.
	Failed(ctx context.Context) ([]string, error)
}

// NotFound is the state of a unit that does not exist: systemd calls it inactive, as if it could still come.
const NotFound = "not-found"

// Booted asks whether the boot has come to its end.
func Booted(s Systemd) Check {
	return active(s, "boot", []string{"multi-user.target"})
}

// Units asks whether the required units are active.
func Units(s Systemd, required []string) Check { return active(s, "units", required) }

func active(s Systemd, name string, units []string) Check {
	return Check{name, func(ctx context.Context) error {
		for _, u := range units {
			got, err := s.ActiveState(ctx, u)
			if err != nil {
				return err
			}
			if got == NotFound {
				return fmt.Errorf("%s does not exist in this release, expected active", u)
			}
			if got != "active" {
				return fmt.Errorf("%s is %s, expected active", u, got)
			}
		}
		return nil
	}}
}

// NoneFailed asks whether units have failed, other than the known ones.
func NoneFailed(s Systemd, known []string) Check {
	return Check{"failed units", func(ctx context.Context) error {
		failed, err := s.Failed(ctx)
		if err != nil {
			return err
		}
		failed = slices.DeleteFunc(failed, func(u string) bool { return slices.Contains(known, u) })
		if len(failed) > 0 {
			return fmt.Errorf("%s failed: see journalctl -u %s", strings.Join(failed, ", "), failed[0])
		}
		return nil
	}}
}

// Network asks whether the network is as good as it was before the update: addresses, default routes, and that somebody answers who did. If
// nothing is known about before, an address with which an interface can leave its link is enough.
func Network(before *state.Network, look func(context.Context) (state.Network, error)) Check {
	return Check{"network", func(ctx context.Context) error {
		now, err := look(ctx)
		if err != nil {
			return err
		}
		if before == nil {
			if !now.IPv4 && !now.IPv6 {
				return errors.New("no interface has an address")
			}
			return nil
		}
		if lost := before.Lost(now); lost != "" {
			return errors.New(lost)
		}
		return nil
	}}
}

// Program asks a program: exit code 0 means well, and what it prints otherwise is the reason. A program that is not installed is
// well.
func Program(name, path string, args ...string) Check {
	return Check{name, func(ctx context.Context) error {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return run(ctx, path, args...)
	}}
}

// Dir asks every executable in a folder, in the order of their names.
func Dir(dir string) Check {
	return Check{dir, func(ctx context.Context) error {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			if fi, err := os.Stat(path); err != nil || !fi.Mode().IsRegular() || fi.Mode()&0o111 == 0 {
				continue
			}
			if err := run(ctx, path); err != nil {
				return err
			}
		}
		return nil
	}}
}

// run gives a program no input and reads a few lines of what it says.
func run(ctx context.Context, path string, args ...string) error {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = time.Second // a grandchild may hold the pipe
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // and all it has started
	var out bytes.Buffer
	limited := &limitedWriter{&out, 2000}
	cmd.Stdout, cmd.Stderr = limited, limited
	err := cmd.Run()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s: no answer in time", path)
	}
	said := strings.Join(strings.FieldsFunc(out.String(), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
	if said == "" {
		said = "it printed nothing"
	}
	return fmt.Errorf("%s: %w: %s", path, err, said)
}

type limitedWriter struct {
	b    *bytes.Buffer
	left int
}

func (w *limitedWriter) Write(p []byte) (int, error) {
	keep := p[:min(len(p), w.left)]
	w.left -= len(keep)
	w.b.Write(keep)
	return len(p), nil
}
