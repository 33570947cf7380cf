package agent_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/proa-os/proa/update-engine/plan"
	"github.com/proa-os/proa/update-engine/reboot"
	"github.com/proa-os/proa/update-engine/state"
)

func (m *machine) wantWhy(want string) {
	m.t.Helper()
	if got := m.why(); !strings.Contains(got, want) || strings.Contains(got, "\n") {
		m.t.Errorf("why: got %q, want %q in it", got, want)
	}
}

// newTinyMachine runs 1.0.0, and 1.0.1 is published: small enough for stories about words.
func newTinyMachine(t *testing.T) *machine {
	m := newMachine(t)
	m.repo.Release(t, m.tiny("1.0.1"))
	return m
}

// A release that failed is not the reason why the next one is not there yet.
func TestWhyAfterABadRelease(t *testing.T) {
	m := newTinyMachine(t)
	if _, err := m.apply(); err != nil {
		t.Fatal(err)
	}
	m.boot()
	if err := m.health(errors.New("web: not running")); err == nil {
		t.Fatal("no error")
	}
	m.wantWhy("runs 1.0.1, which is bad and goes back to 1.0.0: not healthy after 0s: workload: web: not running")
	m.boot()
	if err := m.health(nil); err != nil {
		t.Fatal(err)
	}
	m.wantWhy("release 1.0.1 is quarantined since")
	m.repo.Release(t, m.tiny("1.0.2"))
	if _, err := m.agent().Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.wantWhy("runs 1.0.0: release 1.0.2 is there, updatectl apply installs it")
}

// An order to reboot that nobody takes leaves the release armed, and the line says that and not that the machine is rebooting.
func TestWhyAfterAPreventedReboot(t *testing.T) {
	u := withUserspace(newTinyMachine(t))
	u.fails = "leave"
	a := u.agent()
	if _, err := a.Apply(t.Context(), true); err == nil {
		t.Fatal("no error")
	}
	r, err := a.Status() // the same process: nothing has settled it
	if want := "runs 1.0.0: release 1.0.1 is written and armed, the next boot tries it"; err != nil || r.Why != want {
		t.Errorf("got %q, %v, want %q", r.Why, err, want)
	}
}

// While those who inhibit with mode delay have their moment, an agent that is started anew leaves the soft reboot alone.
func TestWhyBeforeASoftReboot(t *testing.T) {
	u := withUserspace(newTinyMachine(t))
	if _, err := u.apply(); err != nil {
		t.Fatal(err)
	}
	u.wantLeft(reboot.Soft)
	if _, err := u.agent().Settle(); err != nil {
		t.Fatal(err)
	}
	u.wantWhy("runs 1.0.0 and is rebooting")
	u.softly()
	if err := u.health(nil); err != nil {
		t.Fatal(err)
	}
	u.repo.Release(t, u.tiny("1.0.2"))
	r, err := u.agent().Check(t.Context())
	if err != nil || r.Mode != "full" || !strings.HasSuffix(r.Text, "; the reboot would be full (the boot program has to prove itself)") {
		t.Errorf("check: %+v, %v", r, err)
	}
	u.wantWhy("updatectl apply reboots in full first")
	if after, err := u.apply(); err != nil || after.Mode != r.Mode || after.ModeReason != r.ModeReason {
		t.Errorf("apply: %+v, %v, want what check said, %+v", after, err, r)
	}
}

// What is armed and then halted is not rebooted into by the agent, and the line says so.
func TestWhyArmedAndHalted(t *testing.T) {
	m := newTinyMachine(t)
	if _, err := m.agent().Apply(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if err := m.repo.Publish("stable", plan.Plan{Release: "1.0.1", Halted: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := m.apply(); err != nil || m.rebooted {
		t.Fatalf("apply: %v, rebooted %v", err, m.rebooted)
	}
	m.wantWhy("release 1.0.1 is written and armed, but only a reboot by hand tries it: ")
}

// State becomes read-only in the middle of an update, so that its end cannot be written down: the line goes by what is on the disk.
func TestWhyWithoutMemory(t *testing.T) {
	for _, stop := range []bool{false, true} {
		m := newTinyMachine(t)
		a := m.agent()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		a.Progress = func(stage string, done, total int64) {
			if stage == "write-full" {
				m.write("var/.state.json.new/x", nil) // is in the way of every write
				if stop {
					cancel()
				}
			}
		}
		if _, err := a.Apply(ctx, false); (err != nil) != stop {
			t.Fatalf("apply: %v", err)
		}
		want := "runs 1.0.0: release 1.0.1 is written and armed, the next boot tries it"
		if stop {
			want = "stays on 1.0.0: release 1.0.1 could not be installed: release 1.0.1 was interrupted while writing: apply it again"
		}
		if r, err := a.Status(); err != nil || r.Why != want {
			t.Errorf("got %q, %v, want %q", r.Why, err, want)
		}
	}
}

// With a state that cannot be written a machine that has come back from a bad release still answers, and does not take that release again.
func TestWhyUnsettled(t *testing.T) {
	m := newTinyMachine(t)
	if _, err := m.apply(); err != nil {
		t.Fatal(err)
	}
	for range 4 { // three tries without a verdict, and back
		m.boot()
	}
	m.wantRuns("1.0.0")
	full := []string{"var/.quarantine.json.new", "var/.state.json.new"}
	for _, name := range full {
		m.write(name+"/x", nil)
	}
	a := m.agent()
	if _, err := a.Settle(); err == nil {
		t.Fatal("no error")
	}
	if _, err := a.Apply(t.Context(), true); err == nil || m.rebooted || !strings.Contains(err.Error(), "find out what this boot is") {
		t.Errorf("apply: %v, rebooted %v", err, m.rebooted)
	}
	if r, err := a.Status(); err != nil || !strings.HasPrefix(r.Why, "stays on 1.0.0: release 1.0.1 could not be installed: release 1.0.1: its tries are used up") {
		t.Errorf("got %q, %v", r.Why, err)
	}
	for _, name := range full {
		if err := os.RemoveAll(m.dir + "/" + name); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := a.Apply(t.Context(), true); err != nil || m.rebooted || r.Armed { // the same process: it finds out now
		t.Errorf("apply: %+v, %v, rebooted %v", r, err, m.rebooted)
	}
	m.wantBad("1.0.1", state.LostReason)
}

// What is wrong with the configuration is the reason.
func TestWhyWithABrokenConfiguration(t *testing.T) {
	m := newTinyMachine(t)
	a := m.agent()
	a.Broken = errors.New("read /etc/proa/update/config.json:\nline 1")
	if r, err := a.Status(); err != nil || r.Why != "stays on 1.0.0: read /etc/proa/update/config.json: line 1" {
		t.Errorf("got %+v, %v", r, err)
	}
}
