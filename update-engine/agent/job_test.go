package agent_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/update-engine/agent"
	"github.com/proa-os/proa/update-engine/client"
	"github.com/proa-os/proa/update-engine/state"
)

// A stalling source holds every file of a kind back after its first bytes.
type stalling struct {
	client.Source
	suffix  string
	stalled chan struct{}
}

func (s stalling) Open(ctx context.Context, url string, offset int64) (io.ReadCloser, error) {
	r, err := s.Source.Open(ctx, url, offset)
	if err != nil || !strings.HasSuffix(url, s.suffix) {
		return r, err
	}
	rest := func() (int, error) {
		s.stalled <- struct{}{}
		<-ctx.Done()
		return 0, ctx.Err()
	}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(io.LimitReader(r, 5000), reader(rest)), r}, nil
}

type reader func() (int, error)

func (r reader) Read([]byte) (int, error) { return r() }

// Who wants a machine to stay need not wait for a download that takes hours, and the download loses nothing.
func TestOrderEndsADownload(t *testing.T) {
	for name, order := range map[string]func(a *agent.Agent) error{
		"hold":   func(a *agent.Agent) error { _, err := a.Hold(nil, by("")); return err },
		"pin":    func(a *agent.Agent) error { _, err := a.Pin("", by("")); return err },
		"unpin":  func(a *agent.Agent) error { _, err := a.Unpin(by("")); return err },
		"resume": func(a *agent.Agent) error { _, err := a.Resume(by("")); return err },
		"rollback": func(a *agent.Agent) error {
			_, err := a.Rollback(t.Context(), "", by(""), false)
			if err != nil && strings.Contains(err.Error(), "the other slot is empty") {
				return nil
			}
			return err
		},
	} {
		for _, stalls := range []string{".payload", "/timestamp.json"} {
			t.Run(name+stalls, func(t *testing.T) { orderEnds(t, stalls, order) })
		}
	}
}

func orderEnds(t *testing.T, stalls string, order func(a *agent.Agent) error) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	m := newMachine(t)
	m.release("1.0.1")
	a := m.agent()
	s := stalling{a.Client.Source, stalls, make(chan struct{}, 10)}
	a.Client.Source = s
	applied := make(chan error, 1)
	go func() { _, err := a.Apply(ctx, true); applied <- err }()
	<-s.stalled
	if err := order(a); err != nil {
		t.Errorf("got %v", err)
	}
	if err := <-applied; !errors.As(err, new(agent.GaveWay)) || !strings.Contains(err.Error(), "an order of core") {
		t.Errorf("apply: %v", err)
	}
	if c, err := a.Store.Counters(); err != nil || len(c.Failures) > 0 {
		t.Errorf("counted as a failure: %+v, %v", c, err)
	}
	if r, err := a.Store.Machine(); err != nil || r.Phase != state.Idle || r.Error != "" || r.Check != nil && r.Check.Error != "" {
		t.Errorf("got machine %+v, %v: nothing has failed", r, err)
	}
	m.wantESP("proa_1.0.0.efi")
	if m.rebooted {
		t.Error("rebooted")
	}
	_, err := m.agent().Unhold(by(""))
	if _, unpinErr := m.agent().Unpin(by("")); errors.Join(err, unpinErr) != nil {
		t.Fatal(err, unpinErr)
	}
	m.update()
	m.wantRuns("1.0.1")
}

// A job that reboots, or reads a slot that it then boots, does not give way: an order is told so at once, and has no effect.
func TestOrderWhileAJobCannotGiveWay(t *testing.T) {
	orders := func(a *agent.Agent) map[string]func() error {
		return map[string]func() error{
			"hold":     func() error { _, err := a.Hold(nil, by("")); return err },
			"pin":      func() error { _, err := a.Pin("", by("")); return err },
			"rollback": func() error { _, err := a.Rollback(t.Context(), "", by(""), false); return err },
		}
	}
	check := func(a *agent.Agent, when string) {
		for name, order := range orders(a) {
			if err := order(); !errors.Is(err, agent.Busy{}) {
				t.Errorf("%s %s: got %v, want %v", name, when, err, agent.Busy{})
			}
		}
	}

	u := withUserspace(newTinyMachine(t))
	a, steps := u.agent(), 0
	u.before = func(step string) {
		if step == "prepare" || step == "leave" {
			steps++
			check(a, "at "+step)
		}
	}
	if _, err := a.Apply(t.Context(), true); err != nil || steps != 2 || !u.rebooted {
		t.Fatalf("apply: %v, %d steps, rebooted %v", err, steps, u.rebooted)
	}
	if o, err := a.Store.Orders(); err != nil || o != (state.Orders{}) {
		t.Errorf("orders: %+v, %v", o, err)
	}
	u.before = nil

	m := newTinyMachine(t)
	m.update()
	a, reads := m.agent(), 0
	a.Progress = func(stage string, _, _ int64) {
		if stage == "read" {
			reads++
			check(a, "while a rollback reads the other slot")
		}
	}
	if _, err := a.Rollback(t.Context(), "", by(""), false); err != nil || reads == 0 {
		t.Errorf("rollback: %v, %d reads", err, reads)
	}
	if o, err := a.Store.Orders(); err != nil || o.Hold != nil || o.Pin != nil || o.Back == nil {
		t.Errorf("orders: %+v, %v", o, err)
	}
}

// While a job works everything else that is asked for, but for orders, is told so; afterwards, even after an error, it has its turn.
func TestOneJobAtATime(t *testing.T) {
	m := newMachine(t)
	m.release("1.0.1")
	a := m.agent()
	jobs := map[string]func() (*state.Result, error){
		"check": func() (*state.Result, error) { return a.Check(t.Context()) },
		"apply": func() (*state.Result, error) { return a.Apply(t.Context(), false) },
	}
	asked := 0
	a.Progress = func(string, int64, int64) {
		a.Progress = nil
		for name, job := range jobs {
			asked++
			if _, err := job(); !errors.Is(err, agent.Busy{}) {
				t.Errorf("%s while a check works: got %v, want %v", name, err, agent.Busy{})
			}
		}
	}
	if _, err := a.Check(t.Context()); err != nil || asked != len(jobs) {
		t.Fatalf("check: %v, %d jobs asked for meanwhile", err, asked)
	}
	jobs["rollback"] = func() (*state.Result, error) { return a.Rollback(t.Context(), "9.9.9", state.Given{}, false) }
	jobs["hold"] = func() (*state.Result, error) { return a.Hold(nil, state.Given{}) }
	jobs["unhold"] = func() (*state.Result, error) { return a.Unhold(state.Given{}) }
	jobs["clear"] = func() (*state.Result, error) { return a.ClearQuarantine("9.9.9", state.Given{}) }
	for name, job := range jobs {
		if _, err := job(); errors.Is(err, agent.Busy{}) {
			t.Errorf("%s when nothing works: %v", name, err)
		}
	}
}
