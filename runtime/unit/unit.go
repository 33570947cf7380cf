// Package unit writes the systemd unit of a container and talks to systemd about it.
//
// Text is the decision: container in, unit file out. Install and Uninstall put it where systemd finds it, durably, so that a
// container that runs once runs after every boot. Systemd is the connection over D-Bus, to systemd's own private socket:
// root needs no message bus for it.
//
//	/etc/systemd/system/proa-<name>.service
//	/etc/systemd/system/multi-user.target.wants/proa-<name>.service -> ../proa-<name>.service
//
// The unit is of Type=notify and containerctl launch names the workload to systemd (MAINPID=), so the main process that systemd watches is
// the workload itself and nothing of ours stays in between. Its output goes to the journal through the descriptors it inherits. What
// the container may take is the unit's to limit (MemoryMax= and the like).
//
// A container of one run in the foreground has no unit file: Once is its text, and Systemd.Once gives that to systemd over D-Bus, setting by
// setting; one that is not in the table of property.go is refused. Its one program is oci-runtime run --unit.
//
// At the end containerctl ended notes how the workload ended, and takes a container away that was to live for one run; the unit of
// such a one lies in /run. A container with a health check has a transient timer, proa-<name>:health.timer, bound to its unit.
package unit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/proa-os/proa/internal/durable"
	"github.com/proa-os/proa/runtime/store"
)

// DefaultDir is where units of the machine's administrator live.
const DefaultDir = "/etc/systemd/system"

// TransientDir is where units for this boot live.
const TransientDir = "/run/systemd/system"

const wants = "multi-user.target.wants"

// Name is the unit of a container.
func Name(container string) string { return "proa-" + container + ".service" }

// Of is the unit that a container is: its own, or that of the declaration.
func Of(c *store.Container) string {
	if c.Unit != "" {
		return c.Unit
	}
	return Name(c.Name)
}

// StopTimeout is how long a container has between its stop signal and SIGKILL.
func StopTimeout(c *store.Container) time.Duration {
	if c.StopTimeout > 0 {
		return time.Duration(c.StopTimeout) * time.Second
	}
	return 10 * time.Second
}

// Text returns the unit file. It holds nothing that a newer OS would do better: those parts are in containerctl launch.
func Text(c *store.Container) string {
	stop := fmt.Sprintf("ExecStop=-/usr/bin/oci-runtime stop --time %d --signal %s %s", int(StopTimeout(c).Seconds()), stopSignal(c), c.Name)
	return text(c, launch(c.Name), stop, "ExecStopPost=-/usr/bin/containerctl ended "+c.Name,
		fmt.Sprintf("TimeoutStopSec=%d", int(StopTimeout(c).Seconds())+20))
}

func launch(container string) string { return "/usr/bin/containerctl launch " + container }

// Once returns the unit of a container that lives for one run, in the foreground, and that somebody else has prepared: start is what makes
// it, ended what cleans up. Nothing has to be executed to stop it, which every end would wait for: systemd sends the stop signal.
func Once(c *store.Container, start, ended string) string {
	return text(c, start, "KillSignal="+stopSignal(c), fmt.Sprintf("TimeoutStopSec=%d", max(int(StopTimeout(c).Seconds()), 10)), "ExecStopPost=-"+ended)
}

func stopSignal(c *store.Container) string {
	if c.StopSignal == "" {
		return "TERM"
	}
	return c.StopSignal
}

// text is a unit with what starts it, and the lines about its end.
func text(c *store.Container, start string, end ...string) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# Written by containerctl run; containerctl rm %s removes it.", c.Name)
	line("[Unit]")
	line("Description=Container %s (%s)", c.Name, escape(c.Image))
	line("RequiresMountsFor=/var/lib/proa/containers")
	line("Wants=system-containers.slice")
	for _, mode := range []string{c.Network, c.PID} {
		if other, ok := strings.CutPrefix(mode, "container:"); ok {
			line("Wants=%s", Name(other))
			line("After=%s", Name(other))
		}
	}
	if c.Network == "host" || c.Network == "bridge" {
		line("Wants=network-online.target")
		line("After=network-online.target")
	}
	if c.Restarts > 0 {
		// The first start is one of them; containerctl start begins to count anew.
		line("StartLimitIntervalSec=infinity")
		line("StartLimitBurst=%d", c.Restarts+1)
	} else {
		line("StartLimitIntervalSec=0")
	}
	if c.Remove {
		line("CollectMode=inactive-or-failed")
	}
	line("")
	line("[Service]")
	// The process of ExecStart= names the workload as the main one before that runs, and then ends: however short the workload lives,
	// systemd sees how it ends. A PID file would be read too late.
	line("Type=notify")
	if c.Notify || c.AwaitHealth {
		line("NotifyAccess=all") // launch tells that the workload is ready when it is no main process any more
	}
	line("ExecStart=%s", start)
	if Watched(c) {
		line("ExecStartPost=-/usr/bin/containerctl watch %s", c.Name)
	}
	for _, l := range end {
		line("%s", l)
	}
	line("KillMode=mixed")
	// A workload that ignores its stop signal is killed, and one that does not exits with 128+TERM: both are a clean stop.
	line("SuccessExitStatus=143 SIGKILL")
	for _, l := range append(restart(c), limits(c)...) {
		line("%s", l)
	}
	if AtBoot(c) {
		line("")
		line("[Install]")
		line("WantedBy=multi-user.target")
	}
	return b.String()
}

// Watched reports whether the container's health is tried all the time.
func Watched(c *store.Container) bool { return c.Health != nil && c.Health.Interval > 0 }

func restart(c *store.Container) []string {
	out := []string{"Restart=no"}
	switch c.Restart {
	case "on-failure":
		out = []string{"Restart=on-failure", "RestartForceExitStatus=143 SIGKILL"}
	case "always", "unless-stopped":
		out[0] = "Restart=always"
	}
	return append(out, "RestartSec=1", "RestartSteps=6", "RestartMaxDelaySec=60")
}

// limits are what the unit's cgroup keeps the container from.
func limits(c *store.Container) []string {
	// Not cpuset, which costs a start more than the others: --cpuset-cpus is the unit's. system-containers.slice keeps them switched on.
	out := []string{"Delegate=cpu io memory pids"}
	if c.Privileged {
		out[0] = "Delegate=yes" // may hold a service manager, which wants all there is
	}
	line := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if c.Privileged {
		line("DevicePolicy=auto")
	} else {
		line("DevicePolicy=closed")
		line("DeviceAllow=/dev/tty rwm")
		line("DeviceAllow=char-pts rw")
		for _, d := range c.Devices {
			line("DeviceAllow=%s %s", escape(d.Source), d.Access)
		}
	}
	line("IgnoreSIGPIPE=no")
	line("SyslogIdentifier=%s", c.Name)
	if c.NoLog {
		line("StandardOutput=null")
		line("StandardError=null")
	}
	return append(out, resources(c)...)
}

// escape keeps systemd from reading specifiers in a value.
func escape(s string) string { return strings.ReplaceAll(s, "%", "%%") }

// AtBoot reports whether the container starts with the machine.
func AtBoot(c *store.Container) bool {
	return !c.Remove && (c.Restart == "always" || c.Restart == "unless-stopped" || c.Restart == "on-failure")
}

// Install writes the unit to dir and enables it if the container starts at boot.
func Install(dir string, c *store.Container) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write unit: %w", err)
	}
	if err := durable.WritePath(filepath.Join(dir, Name(c.Name)), []byte(Text(c)), 0o644); err != nil {
		return fmt.Errorf("write unit: %w", err)
	}
	if AtBoot(c) {
		return Enable(dir, c.Name)
	}
	return nil
}

// Refresh writes the unit anew if another release wrote it otherwise; systemd reads it at the next boot or daemon-reload. One that is not
// there stays away: its container is about to be removed.
func Refresh(dir string, c *store.Container) error {
	name := filepath.Join(dir, Name(c.Name))
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && string(b) == Text(c) {
		return nil
	}
	if err == nil {
		err = durable.WritePath(name, []byte(Text(c)), 0o644)
	}
	if err != nil {
		return fmt.Errorf("refresh unit: %w", err)
	}
	return nil
}

// Enable makes the unit start at boot.
func Enable(dir, container string) error {
	if err := os.MkdirAll(filepath.Join(dir, wants), 0o755); err != nil {
		return fmt.Errorf("enable unit: %w", err)
	}
	err := os.Symlink("../"+Name(container), filepath.Join(dir, wants, Name(container)))
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("enable unit: %w", err)
	}
	return syncDir(filepath.Join(dir, wants))
}

// Disable is the reverse of Enable.
func Disable(dir, container string) error {
	err := os.Remove(filepath.Join(dir, wants, Name(container)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("disable unit: %w", err)
	}
	return syncDir(filepath.Join(dir, wants))
}

// Enabled reports whether the unit starts at boot, as far as Enable and Disable say.
func Enabled(dir, container string) bool {
	_, err := os.Lstat(filepath.Join(dir, wants, Name(container)))
	return err == nil
}

// Installed reports whether there is a file of the unit.
func Installed(dir, container string) bool {
	_, err := os.Lstat(filepath.Join(dir, Name(container)))
	return err == nil
}

// List returns the containers whose units Install has written to dir. One of that name may also be the OS's own, or an administrator's.
func List(dir string) (containers []string) {
	files, _ := filepath.Glob(filepath.Join(dir, Name("*")))
	for _, f := range files {
		c := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(f), "proa-"), ".service")
		if b, err := os.ReadFile(f); err == nil && strings.Contains(string(b), launch(c)+"\n") {
			containers = append(containers, c)
		}
	}
	return containers
}

// Uninstall removes the unit. The link goes first: a link to no unit is a warning at boot.
func Uninstall(dir, container string) error {
	if err := Disable(dir, container); err != nil {
		return err
	}
	err := os.Remove(filepath.Join(dir, Name(container)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove unit: %w", err)
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
