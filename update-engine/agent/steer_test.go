package agent_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/proa-os/proa/update-engine/agent"
	"github.com/proa-os/proa/update-engine/install/installtest"
	"github.com/proa-os/proa/update-engine/state"
)

// steered is a machine that runs 1.0.0 and has 1.0.1 in the other slot.
func steered(t *testing.T) *fragile {
	t.Helper()
	m := newMachine(t)
	first, next := m.tiny("1.0.0"), m.tiny("1.0.1")
	m.running = first
	m.repo.Release(t, next)
	f := &fragile{machine: m, disk: installtest.New(make([]byte, 2<<20)), first: first, next: next}
	f.disk.Put(first.Boot, "proa_1.0.0.efi")
	if _, err := f.agent().Apply(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	return f
}

// start boots and judges the boot.
func (f *fragile) start(what string) {
	f.t.Helper()
	f.boot(what)
	if _, err := f.agent().Settle(); err != nil {
		f.t.Fatalf("%s: settle: %v", what, err)
	}
	if err := f.health(); err != nil {
		f.t.Fatalf("%s: health: %v", what, err)
	}
}

// leftBehind has gone back from 1.0.1 by hand.
func leftBehind(t *testing.T) *fragile {
	t.Helper()
	f := steered(t)
	f.start("update")
	if _, err := f.agent().Rollback(t.Context(), "", by(""), false); err != nil {
		t.Fatal(err)
	}
	f.start("rollback")
	return f
}

// exhausted has 1.0.1 in its quarantine.
func exhausted(t *testing.T) *fragile {
	t.Helper()
	f := steered(t)
	for range 3 {
		f.boot("a try")
	}
	f.start("back")
	return f
}

// Power is lost in every step of an order that takes a boot program away, and whatever became of what was under way then: what boots
// is whole, the order can be given again and holds, and taken back the machine goes where its channel wants it.
func TestPowerLostInAnOrder(t *testing.T) {
	for _, c := range []struct {
		name  string
		start func(*testing.T) *fragile
		give  func(*agent.Agent) (*state.Result, error)
		undo  func(*agent.Agent) (*state.Result, error) // nil: nothing is to be taken back
	}{
		{"hold", steered, func(a *agent.Agent) (*state.Result, error) { return a.Hold(nil, by("")) },
			func(a *agent.Agent) (*state.Result, error) { return a.Unhold(by("")) }},
		{"pin", steered, func(a *agent.Agent) (*state.Result, error) { return a.Pin("1.0.0", by("")) },
			func(a *agent.Agent) (*state.Result, error) { return a.Unpin(by("")) }},
		{"resume", leftBehind, func(a *agent.Agent) (*state.Result, error) { return a.Resume(by("")) }, nil},
		{"clear", exhausted, func(a *agent.Agent) (*state.Result, error) { return a.ClearQuarantine("1.0.1", by("")) }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			base := c.start(t)
			if base.running != base.first {
				t.Fatalf("runs %s before the order", base.running.Release.Version)
			}
			cuts := 0
			for n := 1; ; n++ {
				f := base.after(base.disk.Fates()[0], false)
				f.disk.FailAt = n
				cut := f.disk.Cut(func() {
					if _, err := c.give(f.agent()); err != nil {
						t.Fatal(err)
					}
				})
				for _, fate := range f.disk.Fates() {
					cuts++
					g := f.after(fate, n%2 == 0)
					what := fmt.Sprintf("step %d: %v, %s", n, cut, fate.Name)
					if g.start(what); g.running == g.first {
						g.obey(what, c.give, c.undo)
					}
					g.life(what)
				}
				if cut == nil {
					break
				}
			}
			if t.Logf("%d power cuts", cuts); cuts < 10 {
				t.Error("too few of them")
			}
		})
	}
}

// obey gives an order again, sees that nothing but what runs boots, and takes it back.
func (f *fragile) obey(what string, give, undo func(*agent.Agent) (*state.Result, error)) {
	f.t.Helper()
	if _, err := give(f.agent()); err != nil && !strings.Contains(err.Error(), "is not quarantined") {
		f.t.Fatalf("%s: again: %v", what, err)
	}
	if f.start(what + ", again"); f.running != f.first {
		f.t.Errorf("%s: the order was given and %s boots", what, f.running.Release.Version)
	}
	if undo == nil {
		return
	}
	if _, err := undo(f.agent()); err != nil {
		f.t.Fatalf("%s: taken back: %v", what, err)
	}
}
