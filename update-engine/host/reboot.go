package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/update-engine/inhibit"
	"github.com/proa-os/proa/update-engine/reboot"
)

// What init/nextroot and the units around a soft reboot read.
const (
	bootIDFile  = "/proc/sys/kernel/random/boot_id"
	requestFile = "/run/proa/nextroot" // root hash, hash offset, mark
	tryFile     = "/run/proa/soft-try" // condition of proa-try.timer

	prepareUnit = "proa-nextroot.service"
	undoUnit    = "proa-nextroot-undo.service"
)

// Kernel implements agent.Userspace.
func (h *Host) Kernel() (id string, up time.Duration, err error) {
	b, err := os.ReadFile(bootIDFile)
	if err != nil {
		return "", 0, fmt.Errorf("read boot ID: %w", err)
	}
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return "", 0, fmt.Errorf("read the time since the start of the kernel: %w", err)
	}
	return strings.TrimSpace(string(b)), time.Duration(t.Nano()), nil
}

// Inhibitors implements agent.Userspace. A logind that does not answer has no locks.
func (h *Host) Inhibitors(ctx context.Context) ([]reboot.Inhibitor, error) {
	list, err := inhibit.Files(inhibit.Dir)
	if err != nil {
		return nil, err
	}
	locks, err := within(ctx, patience, func(ctx context.Context) ([]inhibit.Lock, error) {
		return onSystemBus(ctx, inhibit.Locks)
	})
	if err != nil && ctx.Err() != nil {
		return nil, err
	}
	return append(list, inhibit.OfLocks(locks)...), nil
}

// Leave implements agent.Userspace. logind gives the delay locks their moment before it starts the target; block locks have been looked
// at already. Where it does not take the order, systemd does, as TestSoftReboot has seen past a block lock: of that logind 257 asks polkit, also
// for root (logind-dbus.c, verify_shutdown_creds).
func (h *Host) Leave(ctx context.Context, mode reboot.Mode) error {
	flags, target := uint64(skipInhibitors), "reboot.target"
	if mode == reboot.Soft {
		flags, target = flags|softReboot, "soft-reboot.target"
	}
	_, err := within(ctx, patience, func(ctx context.Context) (int, error) {
		return onSystemBus(ctx, func(ctx context.Context, bus *godbus.Conn) (int, error) {
			logind := bus.Object("org.freedesktop.login1", "/org/freedesktop/login1")
			return 0, logind.CallWithContext(ctx, "org.freedesktop.login1.Manager.RebootWithFlags", 0, flags).Err
		})
	})
	if err == nil {
		return nil
	}
	_, systemdErr := ask(ctx, func(ctx context.Context, c *dbus.Conn) (int, error) {
		return c.StartUnitContext(ctx, target, "replace-irreversibly", nil)
	})
	if systemdErr == nil {
		return nil
	}
	return errors.Join(fmt.Errorf("ask logind to reboot: %w", err), systemdErr)
}

// Flags of logind's RebootWithFlags (systemd 257, login-util.h).
const (
	softReboot     = 1 << 2
	skipInhibitors = 1 << 4
)

// Prepare implements agent.Userspace. This process has a mount namespace of its own, so a unit does it.
func (h *Host) Prepare(ctx context.Context, root digest.SHA256, hashOffset int64, mark string) error {
	if err := os.MkdirAll(filepath.Dir(requestFile), 0o755); err != nil {
		return fmt.Errorf("prepare the next root: %w", err)
	}
	if err := os.WriteFile(requestFile, fmt.Appendf(nil, "%s %d %s\n", root, hashOffset, mark), 0o644); err != nil {
		return fmt.Errorf("prepare the next root: %w", err)
	}
	return runUnit(ctx, prepareUnit)
}

// Undo implements agent.Userspace.
func (h *Host) Undo(ctx context.Context) error { return runUnit(ctx, undoUnit) }

// SetTry implements agent.Userspace.
func (h *Host) SetTry(on bool) error {
	if on {
		return os.WriteFile(tryFile, nil, 0o644)
	}
	if err := os.Remove(tryFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// runUnit starts a oneshot unit and waits until it is done.
func runUnit(ctx context.Context, unit string) error {
	const limit = 3 * time.Minute // more than the unit's own
	_, err := within(ctx, limit, func(ctx context.Context) (int, error) {
		c, err := dbus.NewSystemdConnectionContext(ctx)
		if err != nil {
			return 0, fmt.Errorf("talk to systemd: %w", err)
		}
		defer c.Close()
		done := make(chan string, 1)
		if _, err := c.StartUnitContext(ctx, unit, "replace", done); err != nil {
			return 0, fmt.Errorf("start %s: %w", unit, err)
		}
		select {
		case result := <-done:
			if result != "done" {
				return 0, fmt.Errorf("start %s: %s: see journalctl -u %s", unit, result, unit)
			}
			return 0, nil
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	})
	return err
}

// onSystemBus does something with a connection of its own.
func onSystemBus[T any](ctx context.Context, do func(context.Context, *godbus.Conn) (T, error)) (T, error) {
	bus, err := godbus.ConnectSystemBus(godbus.WithContext(ctx))
	if err != nil {
		var none T
		return none, fmt.Errorf("connect to the system bus: %w", err)
	}
	defer bus.Close()
	return do(ctx, bus)
}
