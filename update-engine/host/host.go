// Package host is the real machine as the update agent sees it: what runs, where the other slot and the ESP are, and systemd.
//
// Everything is found by content: the kernel says which root hash dm-verity checks the root file system against, and
// internal/disk finds the slots by it. It implements agent.Machine and health.Systemd.
package host

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/disk"
	"github.com/proa-os/proa/update-engine/agent"
	"github.com/proa-os/proa/update-engine/health"
	"github.com/proa-os/proa/update-engine/install"
	"github.com/proa-os/proa/update-engine/state"
)

// Paths of what is read and where the ESP is mounted for the time of a job.
const (
	osReleaseFile = "/usr/lib/os-release"
	espMount      = "/run/proa/esp"
	efiDir        = "/sys/firmware/efi"
)

// A Host is the machine this program runs on.
type Host struct {
	running    state.Release
	hashOffset int64
	epoch      time.Time
}

// Open reads what runs.
func Open() (*Host, error) {
	device, err := disk.Root()
	if err != nil {
		return nil, err
	}
	root, offset, err := disk.System().Running(device)
	if err != nil {
		return nil, err
	}
	version, err := osVersion(osReleaseFile)
	if err != nil {
		return nil, err
	}
	fi, err := os.Stat(osReleaseFile)
	if err != nil {
		return nil, fmt.Errorf("read when this release was built: %w", err)
	}
	return &Host{running: state.Release{Version: version, Root: root}, hashOffset: offset, epoch: fi.ModTime()}, nil
}

// Epoch is when the running release was built: the time of every file in its root image.
func (h *Host) Epoch() time.Time { return h.epoch }

// osVersion reads IMAGE_VERSION of os-release(5).
func osVersion(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read version: %w", err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if v, ok := strings.CutPrefix(lines.Text(), "IMAGE_VERSION="); ok {
			// The loader's form of a pre-release, see package slot.
			return strings.Replace(strings.Trim(v, `"'`), "~", "-", 1), nil
		}
	}
	return "", fmt.Errorf("read version: %s has no IMAGE_VERSION", path)
}

// Running implements agent.Machine.
func (h *Host) Running() (state.Release, error) { return h.running, nil }

func (h *Host) layout() (*disk.Layout, error) {
	return disk.System().Find(h.running.Root, h.hashOffset)
}

// Boot implements agent.Machine.
func (h *Host) Boot() (agent.BootFolder, error) {
	l, err := h.layout()
	if err != nil {
		return nil, err
	}
	esp, err := install.MountESP(l.ESP.Path, espMount)
	if err != nil {
		return nil, err
	}
	return esp, nil
}

// BIOS implements agent.Machine. A kernel that was started by UEFI shows its services there.
func (h *Host) BIOS() bool {
	_, err := os.Stat(efiDir)
	return errors.Is(err, fs.ErrNotExist)
}

// Passive implements agent.Machine.
func (h *Host) Passive() (install.File, error) {
	l, err := h.layout()
	if err != nil {
		return nil, err
	}
	f, err := install.OpenDevice(l.Passive.Path)
	if errors.Is(err, unix.EBUSY) {
		err = fmt.Errorf("%w: a service that stayed through a soft reboot still uses it; restart that, or reboot in full", err)
	}
	return f, err
}

// FailedUnits implements agent.Machine.
func (h *Host) FailedUnits(ctx context.Context) ([]string, error) { return h.Failed(ctx) }

// Failed implements health.Systemd.
func (h *Host) Failed(ctx context.Context) ([]string, error) {
	return ask(ctx, func(ctx context.Context, c *dbus.Conn) (failed []string, err error) {
		units, err := c.ListUnitsFilteredContext(ctx, []string{"failed"})
		for _, u := range units {
			failed = append(failed, u.Name)
		}
		return failed, err
	})
}

// ActiveState implements health.Systemd.
func (h *Host) ActiveState(ctx context.Context, unit string) (string, error) {
	return ask(ctx, func(ctx context.Context, c *dbus.Conn) (string, error) {
		word := func(property string) (string, error) {
			p, err := c.GetUnitPropertyContext(ctx, unit, property)
			if err != nil {
				return "", err
			}
			s, _ := p.Value.Value().(string)
			return s, nil
		}
		if load, err := word("LoadState"); err != nil || load == health.NotFound {
			return load, err
		}
		return word("ActiveState")
	})
}

// Reboot implements agent.Machine.
func (h *Host) Reboot(ctx context.Context, force bool) error {
	_, err := ask(ctx, func(ctx context.Context, c *dbus.Conn) (int, error) {
		return c.StartUnitContext(ctx, "reboot.target", "replace-irreversibly", nil)
	})
	if err == nil || !force || ctx.Err() != nil || goingDown(err) {
		return err
	}
	_, syncErr := within(ctx, patience, func(context.Context) (int, error) { unix.Sync(); return 0, nil })
	return errors.Join(err, syncErr, unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART))
}

// goingDown reports whether systemd refuses because a shutdown is under way, which a reset must not cut short; it has
// time limits of its own.
func goingDown(err error) bool {
	var e godbus.Error
	return errors.As(err, &e) && e.Name == "org.freedesktop.systemd1.TransactionIsDestructive"
}

// patience is how long the service manager may take for an answer.
const patience = 30 * time.Second

// ask talks to the service manager over its own socket, which is there as long as it is.
func ask[T any](ctx context.Context, do func(context.Context, *dbus.Conn) (T, error)) (T, error) {
	return within(ctx, patience, func(ctx context.Context) (T, error) {
		c, err := dbus.NewSystemdConnectionContext(ctx)
		if err != nil {
			var none T
			return none, fmt.Errorf("talk to systemd: %w", err)
		}
		defer c.Close()
		v, err := do(ctx, c)
		if err != nil {
			return v, fmt.Errorf("ask systemd: %w", err)
		}
		return v, nil
	})
}

// within leaves do behind when its time is over: connecting to a service manager that hangs heeds no context.
func within[T any](ctx context.Context, limit time.Duration, do func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	type answer struct {
		v   T
		err error
	}
	answers := make(chan answer, 1)
	go func() {
		v, err := do(ctx)
		answers <- answer{v, err}
	}()
	select {
	case a := <-answers:
		return a.v, a.err
	case <-ctx.Done():
		var none T
		return none, fmt.Errorf("no answer from systemd or the disk: %w", ctx.Err())
	}
}
