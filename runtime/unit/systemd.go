package unit

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	sd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// Status is what systemd says about a unit.
type Status struct {
	Load   string // loaded, not-found ...
	Active string // active, inactive, failed, activating ...
	Sub    string // running, dead, auto-restart ...
}

// Systemd is the service manager. It is connected to at the first call.
type Systemd struct {
	// Bus connects, nil for systemd's own socket.
	Bus func(context.Context) (*dbus.Conn, error)

	mu   sync.Mutex
	last *line
}

// Refresh makes systemd know that a unit's file was written, or removed if there is none any more. Units that it does not know yet it reads
// when they are asked for; all of them it is made to read again only if it holds something older, since that takes a slow machine a second.
func (s *Systemd) Refresh(ctx context.Context, unit string, there bool) error {
	load, err := s.property(ctx, unit, "Unit", "LoadState")
	if err != nil {
		return err
	}
	old, err := s.property(ctx, unit, "Unit", "NeedDaemonReload")
	if err != nil {
		return err
	}
	stale, isBool := old.(bool)
	if isBool && !stale && (load == "loaded") == there {
		return nil
	}
	if err := s.call(ctx, "Reload"); err != nil {
		return fmt.Errorf("reload systemd: %w", err)
	}
	return nil
}

// Freeze stops all processes of a unit where they are; with on false they go on.
func (s *Systemd) Freeze(ctx context.Context, unit string, on bool) error {
	verb, method := "freeze", "FreezeUnit"
	if !on {
		verb, method = "thaw", "ThawUnit"
	}
	if err := s.call(ctx, method, unit); err != nil {
		return fmt.Errorf("%s %s: %w", verb, unit, err)
	}
	return nil
}

// Watch has a command run every interval as long as the unit is up: by a transient timer that is bound to it.
func (s *Systemd) Watch(ctx context.Context, unit string, interval time.Duration, command []string) error {
	l, err := s.line(ctx)
	if err != nil {
		return err
	}
	timer := Timer(unit)
	usec := uint64(interval.Microseconds())
	props := []busProperty{
		property("Description", "Health of "+unit), property("BindsTo", []string{unit}), property("After", []string{unit}),
		property("CollectMode", "inactive-or-failed"), property("AccuracyUSec", min(usec/4, 1_000_000)),
		property("TimersMonotonic", []monotonic{{"OnActiveSec", usec}, {"OnUnitInactiveSec", usec}}),
	}
	service := []other{{strings.TrimSuffix(timer, ".timer") + ".service", []busProperty{
		property("Description", "Health of "+unit), property("Type", "oneshot"), property("ExecStart", []execution{{command[0], command, false}}),
		property("CollectMode", "inactive-or-failed"), property("LogLevelMax", int32(4)), // not a line in the journal each time
	}}}
	// The one of the container's last run may still be about to go.
	for range 20 {
		if _, err = l.call(ctx, "StartTransientUnit", timer, "replace", props, service); err == nil {
			return nil
		}
		if _, serr := l.call(ctx, "StopUnit", timer, "replace"); serr != nil && ctx.Err() != nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("start %s: %w", timer, err)
}

// Timer is the unit that has the health of a container tried, whose unit is given.
func Timer(unit string) string { return strings.TrimSuffix(unit, ".service") + ":health.timer" }

// monotonic is one element of TimersMonotonic.
type monotonic struct {
	Base string
	USec uint64
}

// Restarts is how often systemd has started a unit again by itself.
func (s *Systemd) Restarts(ctx context.Context, unit string) (int, error) {
	p, err := s.property(ctx, unit, "Service", "NRestarts")
	if err != nil {
		return 0, err
	}
	n, ok := p.(uint32)
	if !ok {
		return 0, fmt.Errorf("ask systemd about %s: NRestarts is a %T", unit, p)
	}
	return int(n), nil
}

// ControlGroup is the directory of a unit's cgroup.
func (s *Systemd) ControlGroup(ctx context.Context, unit string) (string, error) {
	p, err := s.property(ctx, unit, "Service", "ControlGroup")
	if err != nil {
		return "", err
	}
	group, _ := p.(string)
	if group == "" {
		return "", fmt.Errorf("ask systemd about %s: it has no cgroup: %w", unit, unix.ENOENT)
	}
	return "/sys/fs/cgroup" + group, nil
}

// Limit changes limits of a unit of Once that is up; the text is lines of a unit's file. Systemd forgets them with the unit.
func (s *Systemd) Limit(ctx context.Context, unit, text string) error {
	props, err := properties(text)
	if err == nil {
		err = s.call(ctx, "SetUnitProperties", unit, true, props)
	}
	if err != nil {
		return fmt.Errorf("limit %s: %w", unit, err)
	}
	return nil
}

// ResetFailed makes systemd forget that a unit failed.
func (s *Systemd) ResetFailed(ctx context.Context, unit string) error {
	if err := s.call(ctx, "ResetFailedUnit", unit); err != nil {
		return fmt.Errorf("reset %s: %w", unit, err)
	}
	return nil
}

// Status asks about several units at once.
func (s *Systemd) Status(ctx context.Context, units []string) (map[string]Status, error) {
	l, err := s.line(ctx)
	if err != nil {
		return nil, err
	}
	var list []struct {
		Name, Description, Load, Active, Sub, Following string
		Path                                            dbus.ObjectPath
		Job                                             uint32
		JobType                                         string
		JobPath                                         dbus.ObjectPath
	}
	if err := l.ask(ctx, "ListUnitsByNames", units).Store(&list); err != nil {
		return nil, fmt.Errorf("ask systemd about units: %w", err)
	}
	out := make(map[string]Status)
	for _, u := range list {
		out[u.Name] = Status{Load: u.Load, Active: u.Active, Sub: u.Sub}
	}
	return out, nil
}

// property asks for what systemd knows of a unit.
func (s *Systemd) property(ctx context.Context, unit, kind, name string) (any, error) {
	l, err := s.line(ctx)
	if err != nil {
		return nil, err
	}
	var v dbus.Variant
	if err := l.conn.Object(bus, pathOf(unit)).CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, bus+"."+kind, name).Store(&v); err != nil {
		return nil, fmt.Errorf("ask systemd about %s: %w", unit, err)
	}
	return v.Value(), nil
}

func pathOf(unit string) dbus.ObjectPath {
	return dbus.ObjectPath("/org/freedesktop/systemd1/unit/" + sd.PathBusEscape(unit))
}

// call asks the manager for what gives no answer.
func (s *Systemd) call(ctx context.Context, method string, args ...any) error {
	l, err := s.line(ctx)
	if err != nil {
		return err
	}
	return l.ask(ctx, method, args...).Err
}
