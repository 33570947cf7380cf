package unit

import (
	"context"
	"fmt"
	"net/netip"

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
	conn *dbus.Conn
}

// Close closes the connection.
func (s *Systemd) Close() {
	if s.conn != nil {
		s.conn.Close()
	}
}

func (s *Systemd) open(ctx context.Context) (*dbus.Conn, error) {
	if s.conn == nil {
		c, err := dbus.NewSystemdConnectionContext(ctx)
		if err != nil {
			return nil, fmt.Errorf("connect to systemd (needs root): %w", err)
		}
		s.conn = c
	}
	return s.conn, nil
}

// Reload makes systemd read the unit files again.
func (s *Systemd) Reload(ctx context.Context) error {
	c, err := s.open(ctx)
	if err != nil {
		return err
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
