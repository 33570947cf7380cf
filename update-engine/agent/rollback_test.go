package agent_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/internal/grubenv"
	"github.com/proa-os/proa/internal/slot"
	"github.com/proa-os/proa/update-engine/agent"
	"github.com/proa-os/proa/update-engine/install"
	"github.com/proa-os/proa/update-engine/state"
)

func by(reason string) state.Given { return state.Given{By: "core", Reason: reason} }

func (m *machine) rollback(version string) (*state.Result, error) {
	return m.agent().Rollback(m.t.Context(), version, by("too slow"), true)
}

// rolledBack is a machine that was updated from 1.0.0 to 1.0.1 and has gone back by hand.
func rolledBack(t *testing.T, m *machine) {
	t.Helper()
	m.release("1.0.1")
	m.update()
	r, err := m.rollback("")
	if err != nil || r.Offered.Version != "1.0.0" || !m.rebooted || !strings.Contains(r.Text, "rebooting into 1.0.0") {
		t.Fatalf("rollback: %+v, %v", r, err)
	}
	if got := m.why(); !strings.Contains(got, "rolled back by core on ") || !strings.Contains(got, "(too slow), the next boot runs 1.0.0") {
		t.Errorf("why before the reboot: %s", got)
	}
	if r, err := m.rollback(""); err != nil || !strings.Contains(r.Text, "1.0.0") {
		t.Errorf("a second rollback before the reboot: %+v, %v", r, err)
	}
	if _, err := m.apply(); err == nil || !strings.Contains(err.Error(), "reboot first") {
		t.Errorf("apply before the reboot: %v", err)
	}
	m.boot()
	m.wantRuns("1.0.0")
	if err := m.health(nil); err != nil {
		t.Fatal(err)
	}
}

func TestRollback(t *testing.T) {
	for _, firmware := range []struct {
		name string
		make func(*testing.T) *machine
	}{{"uefi", newMachine}, {"bios", newBIOSMachine}} {
		t.Run(firmware.name, func(t *testing.T) {
			m := firmware.make(t)
			if _, err := m.rollback(""); err == nil || !strings.Contains(err.Error(), "nothing to go back to: the other slot is empty") {
				t.Errorf("a new machine: %v", err)
			}
			rolledBack(t, m)
			for range 2 { // it stays
				r, err := m.apply()
				if err != nil || r.Armed || !strings.Contains(r.Text, "stays on 1.0.0: rolled back from 1.0.1 by core") {
					t.Errorf("apply: %+v, %v", r, err)
				}
				m.boot()
				m.wantRuns("1.0.0")
			}
			if q, err := m.agent().Store.Quarantine(); err != nil || len(q) != 0 {
				t.Errorf("quarantine: %+v, %v", q, err)
			}
			h, err := m.agent().Store.History()
			if last := h[len(h)-1]; err != nil || last.Event != state.EventRolledBack || last.Version != "1.0.1" || last.By != "core" || last.Detail != "to 1.0.0: too slow" {
				t.Errorf("history: %+v, %v", last, err)
			}
			if _, err := m.rollback(""); err == nil || !strings.Contains(err.Error(), "which is bad or was left by a rollback") {
				t.Errorf("rollback of a rollback: %v", err)
			}
			m.release("1.0.2") // a newer one ends it
			m.update()
			m.wantRuns("1.0.2")
			if o, err := m.agent().Store.Orders(); err != nil || o.Back != nil {
				t.Errorf("orders: %+v, %v", o, err)
			}
			if _, err := m.rollback("0.9.0"); err == nil || !strings.Contains(err.Error(), "the other slot holds 1.0.0, not 0.9.0") {
				t.Errorf("rollback to what is not there: %v", err)
			}
		})
	}
}

func TestResume(t *testing.T) {
	m := newMachine(t)
	if r, err := m.agent().Resume(by("")); err != nil || !strings.Contains(r.Text, "nothing was rolled back") {
		t.Errorf("resume: %+v, %v", r, err)
	}
	rolledBack(t, m)
	m.wantESP("proa_1.0.0.efi", "proa_1.0.1+0-1.efi")
	if _, err := m.agent().Pin("1.0.1", by("")); err == nil || !strings.Contains(err.Error(), "updatectl resume") {
		t.Errorf("pin to it: %v", err)
	}
	if _, err := m.agent().Resume(by("")); err != nil {
		t.Fatal(err)
	}
	m.wantESP("proa_1.0.0.efi")
	if err := m.health(nil); err != nil { // nothing looks like a lost try
		t.Fatal(err)
	}
	m.update()
	m.wantRuns("1.0.1")
}

// What was good once may have rotted since.
func TestRollbackToADamagedSlot(t *testing.T) {
	for name, at := range map[string]int64{"content": 1 << 20, "tree": -100} {
		m := newMachine(t)
		m.release("1.0.1")
		m.update()
		f, err := os.OpenFile(filepath.Join(m.dir, "root-a"), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if at < 0 {
			at += m.running.Release.Root.Size
		}
		_, err = f.WriteAt([]byte("rot"), at)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		if _, err := m.rollback(""); err == nil || m.rebooted || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%s: got %v, rebooted %v", name, err, m.rebooted)
		}
		m.wantESP("proa_1.0.0.efi", "proa_1.0.1.efi")
		if o, err := m.agent().Store.Orders(); err != nil || o.Back != nil {
			t.Errorf("%s: orders %+v, %v", name, o, err)
		}
	}
}

func TestRollbackFromATry(t *testing.T) {
	m := newMachine(t)
	m.release("1.0.1")
	if _, err := m.apply(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.rollback(""); err == nil || !strings.Contains(err.Error(), "has not been tried yet; updatectl hold") {
		t.Errorf("an armed release: %v", err)
	}
	m.boot()
	m.wantRuns("1.0.1")
	if _, err := m.rollback("1.0.0"); err != nil {
		t.Fatal(err)
	}
	m.boot()
	m.wantRuns("1.0.0")
	if err := m.health(nil); err != nil {
		t.Fatal(err)
	}
	if q, err := m.agent().Store.Quarantine(); err != nil || len(q) != 0 {
		t.Errorf("quarantine: %+v, %v", q, err)
	}
}

// A soft try has no file that a loader sees; the machine goes back by any start.
func TestRollbackAroundASoftReboot(t *testing.T) {
	m := newMachine(t)
	u := withUserspace(m)
	m.release("1.0.1")
	if _, err := m.apply(); err != nil {
		t.Fatal(err)
	}
	if len(u.left) != 1 || u.left[0] != "soft" {
		t.Fatalf("left %v, want softly", u.left)
	}
	u.softly()
	m.wantRuns("1.0.1")
	if _, err := m.rollback(""); err == nil || !strings.Contains(err.Error(), "on trial after a soft reboot") {
		t.Errorf("in the try: %v", err)
	}
	if err := m.health(nil); err != nil {
		t.Fatal(err)
	}
	if _, err := m.rollback(""); err != nil {
		t.Fatal(err)
	}
	u.start()
	m.wantRuns("1.0.0")
	if err := m.health(nil); err != nil {
		t.Fatal(err)
	}
	if q, err := m.agent().Store.Quarantine(); err != nil || len(q) != 0 {
		t.Errorf("quarantine: %+v, %v", q, err)
	}
	u.start()
	m.wantRuns("1.0.0")
}

// cut is the loss of power.
type cut struct{}

// cutting is a boot folder in which power is lost at a rename: before it, with both names left, as FAT may leave them, or behind it.
type cutting struct {
	agent.BootFolder
	m    *machine
	step func() bool // reports whether power is lost here
}

func (c cutting) Rename(from, to string) error {
	if c.step() {
		panic(cut{})
	}
	if c.step() {
		esp := filepath.Join(c.m.dir, "esp")
		if err := os.Link(filepath.Join(esp, from), filepath.Join(esp, to)); err != nil {
			c.m.t.Fatal(err)
		}
		panic(cut{})
	}
	if err := c.BootFolder.Rename(from, to); err != nil {
		return err
	}
	if c.step() {
		panic(cut{})
	}
	return nil
}

// cutMachine is the machine with such folders.
type cutMachine struct {
	*machine
	step func() bool
}

func (c cutMachine) Boot() (agent.BootFolder, error) {
	f, err := c.machine.Boot()
	return cutting{f, c.machine, c.step}, err
}

// Power is lost at every durable step of a rollback. Whatever the loader then boots is good and whole, it is one of the two, nothing is
// held against either, and the rollback can be asked for again and then happens.
func TestRollbackPowerCuts(t *testing.T) {
	for _, bios := range []bool{false, true} {
		for at, done := 0, false; !done; at++ {
			m := newMachine(t)
			if bios {
				m.bios = true
				m.write("esp/"+grubenv.File, grubenv.Empty())
			}
			m.release("1.0.1")
			m.update()
			n := 0
			step := func() bool { n++; return n == at+1 }
			a := m.agent()
			a.Machine = cutMachine{m, step}
			a.Store.Changed = func() {
				if step() {
					panic(cut{})
				}
			}
			done = survives(t, func() {
				if _, err := a.Rollback(t.Context(), "", by(""), true); err != nil {
					t.Error(err)
				}
			})
			name := fmt.Sprintf("bios %v, cut at step %d, ESP %q", bios, at+1, m.esp())
			m.boot()
			if v := m.running.Release.Version; v != "1.0.0" && v != "1.0.1" || done && v != "1.0.0" {
				t.Fatalf("%s: runs %s", name, v)
			}
			if err := m.health(nil); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if q, err := m.agent().Store.Quarantine(); err != nil || len(q) != 0 {
				t.Errorf("%s: quarantine %+v, %v", name, q, err)
			}
			if m.running.Release.Version == "1.0.1" {
				if got := m.why(); strings.Contains(got, "rolled back") {
					t.Errorf("%s: why: %s", name, got)
				}
				if _, err := m.rollback(""); err != nil {
					t.Fatalf("%s: again: %v", name, err)
				}
				m.boot()
			}
			m.wantRuns("1.0.0")
			if r, err := m.apply(); err != nil || r.Armed {
				t.Errorf("%s: apply: %+v, %v", name, r, err)
			}
			if at > 20 {
				t.Fatal("it never ends")
			}
			if done && at < 5 {
				t.Errorf("only %d steps were cut", at)
			}
		}
	}
}

// survives reports whether do came to its end with power on.
func survives(t *testing.T, do func()) (whole bool) {
	t.Helper()
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(cut); !ok {
				panic(r)
			}
		}
	}()
	do()
	return true
}

func TestHold(t *testing.T) {
	m := newMachine(t)
	m.release("1.0.1")
	if _, err := m.agent().Apply(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	past := m.repo.Time.Add(-time.Minute)
	if _, err := m.agent().Hold(&past, by("")); err == nil || !strings.Contains(err.Error(), "that is past") {
		t.Errorf("hold until the past: %v", err)
	}
	m.wantESP("proa_1.0.0.efi", "proa_1.0.1+3.efi")
	until := m.repo.Time.Add(time.Hour)
	r, err := m.agent().Hold(&until, by("year-end"))
	if err != nil || !strings.Contains(r.Text, "release 1.0.1 was armed and is not tried") {
		t.Errorf("hold: %+v, %v", r, err)
	}
	m.wantESP("proa_1.0.0.efi")
	m.boot()
	m.wantRuns("1.0.0")
	if r, err := m.apply(); err != nil || r.Armed || !strings.Contains(r.Text, "stays on 1.0.0: held by core on ") || !strings.Contains(r.Text, "(year-end), until ") || !strings.Contains(r.Text, "offers 1.0.1") {
		t.Errorf("apply: %+v, %v", r, err)
	}
	m.repo.Time = until
	m.update() // it is over
	m.wantRuns("1.0.1")
	m.release("1.0.2")
	if _, err := m.agent().Hold(nil, by("")); err != nil {
		t.Fatal(err)
	}
	if r, err := m.apply(); err != nil || r.Armed || !strings.Contains(r.Text, "until updatectl unhold") {
		t.Errorf("apply: %+v, %v", r, err)
	}
	if _, err := m.agent().Unhold(by("")); err != nil {
		t.Fatal(err)
	}
	m.update()
	m.wantRuns("1.0.2")
}

func TestPin(t *testing.T) {
	m := newMachine(t)
	m.release("1.0.1")
	m.release("1.0.2") // what the channel plans
	if r, err := m.agent().Pin("", by("")); err != nil || !strings.Contains(r.Text, "pinned to 1.0.0") {
		t.Errorf("pin to what runs: %+v, %v", r, err)
	}
	if r, err := m.apply(); err != nil || r.Armed || !strings.Contains(r.Text, "stays on 1.0.0: pinned by core") || !strings.Contains(r.Text, "channel stable offers 1.0.2") {
		t.Errorf("apply: %+v, %v", r, err)
	}
	if _, err := m.agent().Pin("0.9.0", by("")); err == nil || !strings.Contains(err.Error(), "older than the running 1.0.0") {
		t.Errorf("pin to an older one: %v", err)
	}
	if _, err := m.agent().Pin("1.0.1", by("certified")); err != nil {
		t.Fatal(err)
	}
	m.update()
	m.wantRuns("1.0.1")
	if r, err := m.apply(); err != nil || r.Armed {
		t.Errorf("apply: %+v, %v", r, err)
	}
	if _, err := m.agent().Unpin(by("")); err != nil {
		t.Fatal(err)
	}
	m.update()
	m.wantRuns("1.0.2")
}

func TestClearQuarantine(t *testing.T) {
	m := newMachine(t)
	m.release("1.0.1")
	if _, err := m.apply(); err != nil {
		t.Fatal(err)
	}
	for range slot.Tries + 1 {
		m.boot()
	}
	if err := m.health(nil); err != nil {
		t.Fatal(err)
	}
	m.wantBad("1.0.1", "tries are used up")
	if _, err := m.agent().Pin("1.0.1", by("")); err == nil || !strings.Contains(err.Error(), "updatectl quarantine clear 1.0.1") {
		t.Errorf("pin to it: %v", err)
	}
	if _, err := m.agent().ClearQuarantine("1.0.7", by("")); err == nil || !strings.Contains(err.Error(), "not quarantined") {
		t.Errorf("clear another: %v", err)
	}
	if _, err := m.agent().ClearQuarantine("1.0.1", by("it was the power supply")); err != nil {
		t.Fatal(err)
	}
	if err := m.health(nil); err != nil {
		t.Fatal(err)
	}
	m.update()
	m.wantRuns("1.0.1")
}

// Two bad releases in a row: each time back on the last good one, never on an older, under both firmwares.
func TestTwoBadReleases(t *testing.T) {
	for _, bios := range []bool{false, true} {
		m := newMachine(t)
		if bios {
			m.bios = true
			m.write("esp/"+grubenv.File, grubenv.Empty())
		}
		m.release("1.0.1")
		m.update() // the last good one; 1.0.0 is the older
		for i, bad := range []string{"1.0.2", "1.0.3", "1.0.4"} {
			m.release(bad)
			if _, err := m.apply(); err != nil {
				t.Fatal(err)
			}
			for tries := 0; ; tries++ {
				m.boot()
				if m.running.Release.Version == "1.0.1" {
					break
				}
				m.wantRuns(bad)
				if i == 1 { // the others die before anything runs
					if err := m.health(errors.New("web: not running")); err == nil || !m.rebooted {
						t.Fatalf("health: %v, rebooted %v", err, m.rebooted)
					}
				}
				if tries > slot.Tries {
					t.Fatalf("bios %v: %s has more than its tries", bios, bad)
				}
			}
			if err := m.health(nil); err != nil {
				t.Fatal(err)
			}
			m.wantRuns("1.0.1")
			m.wantBad(bad, map[bool]string{true: "web: not running", false: "tries are used up"}[i == 1])
			m.boot()
			m.wantRuns("1.0.1")
		}
		q, err := m.agent().Store.Quarantine()
		if err != nil || len(q) != 3 {
			t.Errorf("quarantine: %+v, %v", q, err)
		}
		m.release("1.0.5")
		m.update()
		m.wantRuns("1.0.5")
	}
}

var _ install.Folder = cutting{}
