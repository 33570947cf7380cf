package unit

import (
	"context"
	"fmt"
	"net/netip"
)

// Start starts a unit and waits for the outcome.
func (s *Systemd) Start(ctx context.Context, unit string) error {
	return s.job(ctx, "start", unit, "StartUnit", unit, "replace")
}

// Stop stops a unit and waits until it is down.
func (s *Systemd) Stop(ctx context.Context, unit string) error {
	return s.job(ctx, "stop", unit, "StopUnit", unit, "replace")
}

// Restart is Stop and Start in one.
func (s *Systemd) Restart(ctx context.Context, unit string) error {
	return s.job(ctx, "restart", unit, "RestartUnit", unit, "replace")
}

// other is a unit that StartTransientUnit makes besides the one that it starts.
type other struct {
	Name  string
	Props []busProperty
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
	props := []busProperty{
		property("Description", "Names of Containers on "+link),
		property("DefaultDependencies", false),
		property("Conflicts", []string{"shutdown.target"}),
		property("Before", []string{"shutdown.target"}),
		property("CollectMode", "inactive-or-failed"),
		property("BindToDevice", link),
		property("FreeBind", true), // an address may be about to be there
		property("Listen", all),
	}
	return s.job(ctx, "start", unit, "StartTransientUnit", unit, "replace", props, []other{})
}

// job asks for a job and waits for its end.
func (s *Systemd) job(ctx context.Context, verb, unit, method string, args ...any) error {
	l, err := s.line(ctx)
	if err != nil {
		return err
	}
	done, err := l.queue(ctx, method, args...)
	if err != nil {
		return fmt.Errorf("%s %s: %w", verb, unit, err)
	}
	select {
	case result, told := <-done:
		if !told {
			return fmt.Errorf("%s %s: systemd has closed the connection before the job has ended: see systemctl status %s", verb, unit, unit)
		}
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
	method := map[string]string{"start": "StartUnit", "stop": "StopUnit", "restart": "RestartUnit"}[verb]
	if method == "" {
		return fmt.Errorf("queue %s: unknown verb %q", unit, verb)
	}
	l, err := s.line(ctx)
	if err != nil {
		return err
	}
	if _, err := l.call(ctx, method, unit, "replace"); err != nil {
		return fmt.Errorf("%s %s: %w", verb, unit, err)
	}
	return nil
}
