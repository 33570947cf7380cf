// Package host is the real machine as the update agent sees it: what runs, where the other slot and the ESP are, and systemd.
//
// Everything is found by content: the root hash is read from the kernel command line, which the boot program carries, and
// internal/disk finds the slots by it. It implements agent.Machine and health.Systemd.
package host

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/coreos/go-systemd/v22/dbus"

	"github.com/proa-os/proa/internal/cmdline"
	"github.com/proa-os/proa/internal/disk"
	"github.com/proa-os/proa/update-engine/agent"
	"github.com/proa-os/proa/update-engine/install"
	"github.com/proa-os/proa/update-engine/state"
)

// Paths of what is read and where the ESP is mounted for the time of a job.
const (
	cmdlineFile   = "/proc/cmdline"
	osReleaseFile = "/usr/lib/os-release"
	espMount      = "/run/proa/esp"
)

// A Host is the machine this program runs on.
type Host struct {
	running    state.Release
	hashOffset int64
}

// Open reads what runs.
func Open() (*Host, error) {
	line, err := os.ReadFile(cmdlineFile)
	if err != nil {
		return nil, fmt.Errorf("read kernel command line: %w", err)
	}
	root, offset, err := cmdline.Proa(cmdline.Parse(string(line)))
	if err != nil {
		return nil, fmt.Errorf("this machine was not booted from a Proa boot program: %w", err)
	}
	version, err := osVersion(osReleaseFile)
	if err != nil {
		return nil, err
	}
	return &Host{running: state.Release{Version: version, Root: root}, hashOffset: offset}, nil
}

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

// Passive implements agent.Machine.
func (h *Host) Passive() (install.File, error) {
	l, err := h.layout()
	if err != nil {
		return nil, err
	}
	return install.OpenDevice(l.Passive.Path)
}

// FailedUnits implements agent.Machine.
func (h *Host) FailedUnits(ctx context.Context) ([]string, error) { return h.Failed(ctx) }

// Failed implements health.Systemd.
func (h *Host) Failed(ctx context.Context) ([]string, error) {
	var failed []string
	err := withSystemd(ctx, func(c *dbus.Conn) error {
		units, err := c.ListUnitsFilteredContext(ctx, []string{"failed"})
		for _, u := range units {
			failed = append(failed, u.Name)
		}
		return err
	})
	return failed, err
}

// ActiveState implements health.Systemd.
func (h *Host) ActiveState(ctx context.Context, unit string) (string, error) {
	var active string
	err := withSystemd(ctx, func(c *dbus.Conn) error {
		p, err := c.GetUnitPropertyContext(ctx, unit, "ActiveState")
		if err != nil {
			return err
		}
		active, _ = p.Value.Value().(string)
		return nil
	})
	return active, err
}

// Reboot implements agent.Machine.
func (h *Host) Reboot(ctx context.Context) error {
	return withSystemd(ctx, func(c *dbus.Conn) error {
		_, err := c.StartUnitContext(ctx, "reboot.target", "replace-irreversibly", nil)
		return err
	})
}

// withSystemd talks to the service manager over its own socket, which is there as long as it is.
func withSystemd(ctx context.Context, do func(*dbus.Conn) error) error {
	c, err := dbus.NewSystemdConnectionContext(ctx)
	if err != nil {
		return fmt.Errorf("talk to systemd: %w", err)
	}
	defer c.Close()
	if err := do(c); err != nil {
		return fmt.Errorf("ask systemd: %w", err)
	}
	return nil
}
