package unit

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
)

// Status is what systemd says about a unit.
type Status struct {
	Load   string // loaded, not-found ...
	Active string // active, inactive, failed, activating ...
	Sub    string // running, dead, auto-restart ...
}

// Systemd is a connection to the service manager. It is opened at the first call.
type Systemd struct {
	// Dial connects, nil for systemd's own socket.
	Dial func(context.Context) (*dbus.Conn, error)
	// Bus is the same without go-systemd's help, for Once.
	Bus  func(context.Context) (*godbus.Conn, error)
	conn *dbus.Conn
	once chan dialed // of Connect
}

// Close closes the connection.
func (s *Systemd) Close() {
	if s.conn != nil {
		s.conn.Close()
	}
}

func (s *Systemd) open(ctx context.Context) (*dbus.Conn, error) {
	if s.conn == nil {
		dial := s.Dial
		if dial == nil {
			dial = dbus.NewSystemdConnectionContext
		}
		c, err := dial(ctx)
		if err != nil {
			return nil, fmt.Errorf("connect to systemd (needs root): %w", err)
		}
		s.conn = c
	}
	return s.conn, nil
}

// Refresh makes systemd know that a unit's file was written, or removed if there is none any more. Units that it does not know yet it reads
// when they are asked for; all of them it is made to read again only if it holds something older, since that takes a slow machine a second.
func (s *Systemd) Refresh(ctx context.Context, unit string, there bool) error {
	c, err := s.open(ctx)
	if err != nil {
		return err
	}
	load, err := c.GetUnitPropertyContext(ctx, unit, "LoadState")
	if err != nil {
		return fmt.Errorf("ask systemd about %s: %w", unit, err)
	}
	old, err := c.GetUnitPropertyContext(ctx, unit, "NeedDaemonReload")
	if err != nil {
		return fmt.Errorf("ask systemd about %s: %w", unit, err)
	}
	loaded, _ := load.Value.Value().(string)
	stale, isBool := old.Value.Value().(bool)
	if isBool && !stale && (loaded == "loaded") == there {
		return nil
	}
	if err := c.ReloadContext(ctx); err != nil {
		return fmt.Errorf("reload systemd: %w", err)
	}
	return nil
}

// Start starts a unit and waits for the outcome.
func (s *Systemd) Start(ctx context.Context, unit string) error {
	return s.job(ctx, "start", unit, func(c *dbus.Conn, done chan<- string) (int, error) {
		return c.StartUnitContext(ctx, unit, "replace", done)
	})
}

// Stop stops a unit and waits until it is down.
func (s *Systemd) Stop(ctx context.Context, unit string) error {
	return s.job(ctx, "stop", unit, func(c *dbus.Conn, done chan<- string) (int, error) {
		return c.StopUnitContext(ctx, unit, "replace", done)
	})
}

// Listen makes a socket unit for port 53 of one link's addresses, TCP and UDP, that starts the service of the same name. A unit file could
// not say it: BindToDevice= takes no specifiers. Not all addresses of the link, since systemd-resolved has a port 53 that is bound to none.
// The unit is gone when it is stopped.
func (s *Systemd) Listen(ctx context.Context, unit, link string, addresses []netip.Addr) error {
	type listen struct{ Kind, Address string }
	var all []listen
	for _, a := range addresses {
		at := netip.AddrPortFrom(a, 53).String()
		all = append(all, listen{"Datagram", at}, listen{"Stream", at})
	}
	return s.job(ctx, "start", unit, func(c *dbus.Conn, done chan<- string) (int, error) {
		return c.StartTransientUnitContext(ctx, unit, "replace", []dbus.Property{
			dbus.PropDescription("Names of Containers on " + link),
			{Name: "DefaultDependencies", Value: godbus.MakeVariant(false)},
			{Name: "Conflicts", Value: godbus.MakeVariant([]string{"shutdown.target"})},
			{Name: "Before", Value: godbus.MakeVariant([]string{"shutdown.target"})},
			{Name: "CollectMode", Value: godbus.MakeVariant("inactive-or-failed")},
			{Name: "BindToDevice", Value: godbus.MakeVariant(link)},
			{Name: "FreeBind", Value: godbus.MakeVariant(true)}, // an address may be about to be there
			{Name: "Listen", Value: godbus.MakeVariant(all)},
		}, done)
	})
}

// Restart is Stop and Start in one.
func (s *Systemd) Restart(ctx context.Context, unit string) error {
	return s.job(ctx, "restart", unit, func(c *dbus.Conn, done chan<- string) (int, error) {
		return c.RestartUnitContext(ctx, unit, "replace", done)
	})
}

func (s *Systemd) job(ctx context.Context, verb, unit string, queue func(*dbus.Conn, chan<- string) (int, error)) error {
	c, err := s.open(ctx)
	if err != nil {
		return err
	}
	done := make(chan string, 1)
	if _, err := queue(c, done); err != nil {
		return fmt.Errorf("%s %s: %w", verb, unit, err)
	}
	select {
	case result := <-done:
		if result != "done" {
			return fmt.Errorf("%s %s: the job ends with %q: see journalctl -u %s", verb, unit, result, unit)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s %s: %w", verb, unit, ctx.Err())
	}
}

// Queue starts ("start"), stops or restarts a unit and does not wait.
func (s *Systemd) Queue(ctx context.Context, verb, unit string) error {
	c, err := s.open(ctx)
	if err != nil {
		return err
	}
	queue := map[string]func(context.Context, string, string, chan<- string) (int, error){
		"start": c.StartUnitContext, "stop": c.StopUnitContext, "restart": c.RestartUnitContext}[verb]
	if queue == nil {
		return fmt.Errorf("queue %s: unknown verb %q", unit, verb)
	}
	if _, err := queue(ctx, unit, "replace", nil); err != nil {
		return fmt.Errorf("%s %s: %w", verb, unit, err)
	}
	return nil
}

// Freeze stops all processes of a unit where they are; with on false they go on.
func (s *Systemd) Freeze(ctx context.Context, unit string, on bool) error {
	c, err := s.open(ctx)
	if err != nil {
		return err
	}
	verb, do := "freeze", c.FreezeUnit
	if !on {
		verb, do = "thaw", c.ThawUnit
	}
	if err := do(ctx, unit); err != nil {
		return fmt.Errorf("%s %s: %w", verb, unit, err)
	}
	return nil
}

// Watch has a command run every interval as long as the unit is up: by a transient timer that is bound to it.
func (s *Systemd) Watch(ctx context.Context, unit string, interval time.Duration, command []string) error {
	c, err := s.open(ctx)
	if err != nil {
		return err
	}
	timer := Timer(unit)
	service := strings.TrimSuffix(timer, ".timer") + ".service"
	usec := uint64(interval.Microseconds())
	props := []dbus.Property{
		dbus.PropDescription("Health of " + unit), dbus.PropBindsTo(unit), dbus.PropAfter(unit),
		property("CollectMode", "inactive-or-failed"), property("AccuracyUSec", min(usec/4, 1_000_000)),
		property("TimersMonotonic", []monotonic{{"OnActiveSec", usec}, {"OnUnitInactiveSec", usec}}),
	}
	aux := dbus.PropertyCollection{Name: service, Properties: []dbus.Property{
		dbus.PropDescription("Health of " + unit), dbus.PropType("oneshot"), dbus.PropExecStart(command, false),
		property("CollectMode", "inactive-or-failed"), property("LogLevelMax", int32(4)), // not a line in the journal each time
	}}
	// The one of the container's last run may still be about to go.
	for range 20 {
		done := make(chan string, 1)
		if _, err = c.StartTransientUnitAux(ctx, timer, "replace", props, []dbus.PropertyCollection{aux}, done); err == nil {
			return nil
		}
		if _, serr := c.StopUnitContext(ctx, timer, "replace", nil); serr != nil && ctx.Err() != nil {
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

func property(name string, value any) dbus.Property {
	return dbus.Property{Name: name, Value: godbus.MakeVariant(value)}
}

// Restarts is how often systemd has started a unit again by itself.
func (s *Systemd) Restarts(ctx context.Context, unit string) (int, error) {
	c, err := s.open(ctx)
	if err != nil {
		return 0, err
	}
	p, err := c.GetUnitTypePropertyContext(ctx, unit, "Service", "NRestarts")
	if err != nil {
		return 0, fmt.Errorf("ask about %s: %w", unit, err)
	}
	n, ok := p.Value.Value().(uint32)
	if !ok {
		return 0, fmt.Errorf("ask about %s: NRestarts is a %s", unit, p.Value.Signature())
	}
	return int(n), nil
}

// ResetFailed makes systemd forget that a unit failed.
func (s *Systemd) ResetFailed(ctx context.Context, unit string) error {
	c, err := s.open(ctx)
	if err != nil {
		return err
	}
	return c.ResetFailedUnitContext(ctx, unit)
}

// Status asks about several units at once.
func (s *Systemd) Status(ctx context.Context, units []string) (map[string]Status, error) {
	c, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	list, err := c.ListUnitsByNamesContext(ctx, units)
	if err != nil {
		return nil, fmt.Errorf("ask systemd: %w", err)
	}
	out := make(map[string]Status)
	for _, u := range list {
		out[u.Name] = Status{Load: u.LoadState, Active: u.ActiveState, Sub: u.SubState}
	}
	return out, nil
}
