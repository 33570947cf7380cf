package agent_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/internal/slot"
	"github.com/proa-os/proa/update-engine/agent"
	"github.com/proa-os/proa/update-engine/client"
	"github.com/proa-os/proa/update-engine/health"
	"github.com/proa-os/proa/update-engine/state"
)

func (m *machine) auto() (*state.Result, error) {
	a := m.agent()
	a.Clock = agent.Clock{Boot: "this", Jitter: 0.5}
	a.Client.Source = a.Counted(a.Client.Source)
	return a.Auto(m.t.Context())
}

func (m *machine) schedule() state.Schedule {
	m.t.Helper()
	s, err := m.agent().Store.Schedule()
	if err != nil {
		m.t.Fatal(err)
	}
	return s
}

func TestAuto(t *testing.T) {
	m := newMachine(t)
	m.release("1.0.1")
	if !m.schedule().Due(m.repo.Time, "this") {
		t.Error("a new machine does not look")
	}
	if r, err := m.auto(); err != nil || !r.Armed || !m.rebooted {
		t.Fatalf("auto: %+v, %v", r, err)
	}
	if s := m.schedule(); s.Due(m.repo.Time, "this") || s.Next.Sub(m.repo.Time) != time.Hour || s.Failures != 0 {
		t.Errorf("schedule %+v", s)
	}
	m.boot()
	m.wantRuns("1.0.1")
	before := m.schedule()
	if r, err := m.auto(); err != nil || r.Armed || !strings.Contains(r.Text, "on trial") || m.schedule() != before {
		t.Errorf("in a try: %+v, %v, schedule %+v", r, err, m.schedule())
	}
	if err := m.health(nil); err != nil {
		t.Fatal(err)
	}
	m.repo.Time = m.repo.Time.Add(48 * time.Hour) // all that is published has expired
	for n := 1; n <= 2; n++ {
		if _, err := m.auto(); err == nil {
			t.Error("no error")
		}
		if s := m.schedule(); s.Failures != n || s.Next.Sub(m.repo.Time) != time.Duration(n)*10*time.Minute {
			t.Errorf("after a refused look: %+v", s)
		}
	}
	m.release("1.0.2")
	m.free = 1000
	if _, err := m.auto(); err == nil {
		t.Error("no error")
	}
	if s := m.schedule(); s.Failures != 3 || s.Next.Sub(m.repo.Time) != 4*time.Hour {
		t.Errorf("after an installation that failed: %+v", s)
	}
	c, err := m.agent().Store.Counters()
	if err != nil || c.Checks < 4 || c.Fetched < 1_000_000 || c.Failures["metadata"] != 2 || c.Failures["space"] != 1 || c.LastSuccess.IsZero() {
		t.Errorf("counters %+v, %v", c, err)
	}
}

// Of two machines that looked at the same time one looks again before the other, and asks for nothing that it has.
func TestMachinesDoNotPollAsOne(t *testing.T) {
	m := newMachine(t)
	m.repo.Release(t, m.running)
	var next []time.Time
	var fetched []int64 // bytes, so far
	for _, jitter := range []float64{0, 1} {
		a := m.agent()
		a.Clock = agent.Clock{Boot: "this", Jitter: jitter}
		a.Client.Source = a.Counted(child(t, client.Network{}))
		before := len(m.server.Requests())
		if r, err := a.Auto(t.Context()); err != nil || r.Armed {
			t.Fatalf("auto: %+v, %v", r, err)
		}
		c, err := a.Store.Counters()
		if err != nil {
			t.Fatal(err)
		}
		next, fetched = append(next, m.schedule().Next), append(fetched, c.Fetched)
		if asked := m.server.Requests()[before:]; jitter == 1 && len(asked) != 2 {
			t.Errorf("the second time it asked for %q, want the next root and the timestamp", asked)
		}
	}
	if fetched[0] == 0 || fetched[1] != fetched[0] {
		t.Errorf("fetched %d bytes, then %d in all: an unchanged timestamp has none", fetched[0], fetched[1])
	}
	if got := next[1].Sub(next[0]); got != 12*time.Minute {
		t.Errorf("they look again %s apart, want a fifth of the hour", got)
	}
}

// What people decided binds the timer, too; and without a server or told not to it does not even look.
func TestAutoKeepsStill(t *testing.T) {
	m := newMachine(t)
	m.release("1.0.1")
	a := m.agent()
	a.Config.Auto = false
	if r, err := a.Auto(t.Context()); err != nil || r.Armed || !strings.Contains(r.Text, `"auto"`) {
		t.Errorf("told not to: %+v, %v", r, err)
	}
	a = m.agent()
	a.Config.Server = ""
	if r, err := a.Auto(t.Context()); err != nil || r.Armed {
		t.Errorf("no server: %+v, %v", r, err)
	}
	if n := len(m.server.Requests()); n != 0 {
		t.Errorf("%d requests", n)
	}
	if _, err := m.agent().Hold(nil, by("")); err != nil {
		t.Fatal(err)
	}
	if r, err := m.auto(); err != nil || r.Armed || !strings.Contains(r.Text, "held by core") || m.schedule().Failures != 0 {
		t.Errorf("held: %+v, %v", r, err)
	}
	m.wantESP("proa_1.0.0.efi")
}

// A bad release costs a machine that updates itself one trip, and the next one is taken.
func TestAutoAfterABadRelease(t *testing.T) {
	m := newMachine(t)
	m.release("1.0.1")
	if _, err := m.auto(); err != nil {
		t.Fatal(err)
	}
	m.boot()
	if err := m.health(errors.New("web: not running")); err == nil {
		t.Fatal("no error")
	}
	m.boot()
	if err := m.health(nil); err != nil {
		t.Fatal(err)
	}
	if r, err := m.auto(); err != nil || r.Armed || m.rebooted || !strings.Contains(r.Text, "quarantined") {
		t.Errorf("again: %+v, %v", r, err)
	}
	m.release("1.0.2")
	if _, err := m.auto(); err != nil {
		t.Fatal(err)
	}
	for range slot.Tries + 1 { // it dies early
		m.boot()
	}
	m.wantRuns("1.0.0")
	if err := m.health(nil); err != nil {
		t.Fatal(err)
	}
	if c, err := m.agent().Store.Counters(); err != nil || c.Failures["health"] != 2 {
		t.Errorf("counters %+v, %v", c, err)
	}
	text, err := m.agent().Metrics()
	if err != nil || !strings.Contains(text, "proa_update_quarantined_releases 2\n") || !strings.Contains(text, `proa_update_failures_total{reason="health"} 2`) {
		t.Errorf("%v in\n%s", err, text)
	}
}

// What worked of the network is remembered when a release is armed, given to the checks of its try, and forgotten when it is good.
func TestNetworkIsRemembered(t *testing.T) {
	m := newMachine(t)
	m.release("1.0.1")
	a := m.agent()
	want := state.Network{IPv4: true, Gateway: true}
	a.Network = func(context.Context) (state.Network, error) { return want, nil }
	if _, err := a.Apply(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	m.boot()
	var got *state.Network
	gate := health.Gate{Deadline: time.Minute, Interval: time.Millisecond, Timeout: time.Second}
	err := m.agent().Health(t.Context(), gate, func(before state.Machine) []health.Check { got = before.Network; return nil })
	if err != nil || got == nil || *got != want {
		t.Errorf("the checks got %+v, %v, want %+v", got, err, want)
	}
	if s, err := m.agent().Store.Machine(); err != nil || s.Network != nil {
		t.Errorf("after the verdict: %+v, %v", s.Network, err)
	}
}
