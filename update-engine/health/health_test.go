package health

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/proa-os/proa/update-engine/state"
)

func gate(notify func(string, error)) Gate {
	return Gate{Deadline: 5 * time.Minute, Interval: 5 * time.Second, Timeout: time.Minute, Notify: notify}
}

// At its own pace, in no time: the bubble's clock only moves when everybody waits.
func TestGate(t *testing.T) {
	sick := errors.New("x.service is activating")
	for _, c := range []struct {
		name  string
		wells func(at time.Duration) error
		took  time.Duration
		ok    bool
	}{
		{"well at once", func(time.Duration) error { return nil }, 0, true},
		{"well after a minute", func(at time.Duration) error {
			if at < time.Minute {
				return sick
			}
			return nil
		}, time.Minute, true},
		{"well a moment before the deadline", func(at time.Duration) error {
			if at < 295*time.Second {
				return sick
			}
			return nil
		}, 295 * time.Second, true},
		{"never well", func(time.Duration) error { return sick }, 5 * time.Minute, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			changes := 0
			err := gate(func(string, error) { changes++ }).Wait(t.Context(), []Check{
				{"first", func(context.Context) error { return nil }},
				{"second", func(context.Context) error { return c.wells(time.Since(start)) }},
			})
			if took := time.Since(start); took != c.took {
				t.Errorf("%s: took %s, want %s", c.name, took, c.took)
			}
			var unhealthy *Unhealthy
			if c.ok && err != nil || !c.ok && (!errors.As(err, &unhealthy) || unhealthy.Check != "second" || !errors.Is(err, sick)) {
				t.Errorf("%s: got %v", c.name, err)
			}
			if c.took > 0 && changes != 1 {
				t.Errorf("%s: told %d times of one reason", c.name, changes)
			}
		})
	}
}

func TestGateWithHangingCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		err := gate(nil).Wait(t.Context(), []Check{{"hangs", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}})
		if err == nil || time.Since(start) != 5*time.Minute || !strings.Contains(err.Error(), "hangs: no answer in time") {
			t.Errorf("got %v after %s", err, time.Since(start))
		}
	})
}

// A check that does not heed its context, as a call of a service manager that hangs: the verdict comes all the same.
func TestGateWithDeafCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start, end := time.Now(), make(chan struct{})
		defer close(end)
		err := gate(nil).Wait(t.Context(), []Check{{"deaf", func(context.Context) error { <-end; return nil }}})
		var unhealthy *Unhealthy
		if !errors.As(err, &unhealthy) || time.Since(start) > 5*time.Minute+grace || !strings.Contains(err.Error(), "deaf: no answer in time") {
			t.Errorf("got %v after %s", err, time.Since(start))
		}
	})
}

func TestGateStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := gate(nil).Wait(ctx, []Check{{"sick", func(context.Context) error { return errors.New("sick") }}})
		var unhealthy *Unhealthy
		if err == nil || errors.As(err, &unhealthy) {
			t.Errorf("stopped from outside: got %v, want no verdict", err)
		}
	})
}

type units map[string]string

func (u units) ActiveState(_ context.Context, unit string) (string, error) {
	if s, ok := u[unit]; ok {
		return s, nil
	}
	if strings.HasPrefix(unit, "gone") {
		return NotFound, nil
	}
	return "inactive", nil
}

func (u units) Failed(context.Context) ([]string, error) {
	var failed []string
	for n, s := range u {
		if s == "failed" {
			failed = append(failed, n)
		}
	}
	return failed, nil
}

func TestNetworkCheck(t *testing.T) {
	address, broken := state.Network{IPv4: true, Route4: true, Gateway: true}, errors.New("no netlink")
	for _, c := range []struct {
		name   string
		before *state.Network
		now    state.Network
		err    error
		want   string
	}{
		{"nothing known, an address", nil, state.Network{IPv6: true}, nil, ""},
		{"nothing known, no address", nil, state.Network{}, nil, "no interface has an address"},
		{"as before", &address, address, nil, ""},
		{"cut off", &address, state.Network{IPv4: true, Route4: true}, nil, "nobody answers"},
		{"no address", &address, state.Network{}, nil, "before the update it had an IPv4 address and an IPv4 default route"},
		{"a machine without a network", &state.Network{}, state.Network{}, nil, ""},
		{"cannot look", &address, state.Network{}, broken, "no netlink"},
	} {
		err := Network(c.before, func(context.Context) (state.Network, error) { return c.now, c.err }).Run(t.Context())
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

func TestUnitChecks(t *testing.T) {
	u := units{"multi-user.target": "active", "sshd.service": "active", "a.service": "failed"}
	for _, c := range []struct {
		check Check
		want  string
	}{
		{Booted(u), ""},
		{Booted(units{"multi-user.target": "inactive"}), "multi-user.target is inactive"},
		{Units(u, []string{"sshd.service"}), ""},
		{Units(u, []string{"sshd.service", "missing.service"}), "missing.service is inactive"},
		{Units(u, []string{"gone.service"}), "gone.service does not exist in this release"},
		{Units(u, []string{"a.service"}), "a.service is failed, expected active"},
		{NoneFailed(u, nil), "a.service failed: see journalctl -u a.service"},
		{NoneFailed(u, []string{"a.service"}), ""},
	} {
		err := c.check.Run(t.Context())
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", c.check.Name, err, c.want)
		}
	}
}

func TestPrograms(t *testing.T) {
	dir := t.TempDir()
	script := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ctx := t.Context()
	if err := Program("workload", filepath.Join(dir, "missing")).Run(ctx); err != nil {
		t.Errorf("not installed: %v", err)
	}
	if err := Program("workload", script("10-well", "exit 0", 0o755)).Run(ctx); err != nil {
		t.Errorf("well: %v", err)
	}
	script("20-notes", "exit 1", 0o644)
	if err := Dir(dir).Run(ctx); err != nil {
		t.Errorf("folder: %v", err)
	}
	sick := script("30-sick", "echo web: exit code 7; echo db: not running; exit 3", 0o755)
	for _, c := range []Check{Program("workload", sick), Dir(dir)} {
		if err := c.Run(ctx); err == nil || !strings.Contains(err.Error(), "30-sick: exit status 3: web: exit code 7; db: not running") {
			t.Errorf("%s: got %v", c.Name, err)
		}
	}
	if err := Dir(filepath.Join(dir, "none")).Run(ctx); err != nil {
		t.Errorf("no folder: %v", err)
	}
	slow, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	pid := filepath.Join(dir, "pid")
	hangs := script("40-hangs", "sleep 20 & echo $! > "+pid+"; wait", 0o755)
	if err := Program("workload", hangs).Run(slow); err == nil || !strings.Contains(err.Error(), "no answer in time") {
		t.Errorf("a program that hangs: %v", err)
	}
	// What it started ends with it: rounds of a check must not pile up processes.
	b, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		status, err := os.ReadFile("/proc/" + strings.TrimSpace(string(b)) + "/status")
		if err != nil || strings.Contains(string(status), "State:\tZ") {
			break
		}
		if time.Since(start) > 15*time.Second { // the child's own end is at 20
			t.Fatalf("the child of a program that hangs still runs:\n%s", status)
		}
	}
}

// A check that the deadline cuts short must not hide what it said before.
func TestGateKeepsReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		slow := Check{"containers", func(ctx context.Context) error {
			select {
			case <-time.After(40 * time.Second):
				return errors.New("hello: connection refused")
			case <-ctx.Done():
				return ctx.Err()
			}
		}}
		g := gate(nil)
		g.Deadline = 90 * time.Second
		err := g.Wait(t.Context(), []Check{slow})
		if err == nil || !strings.Contains(err.Error(), "hello: connection refused") {
			t.Errorf("got %v after %s, want the check's own reason", err, time.Since(start))
		}
	})
}
