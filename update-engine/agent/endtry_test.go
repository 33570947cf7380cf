package agent_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/proa-os/proa/update-engine/agent"
)

// Userspace hangs, and the deadline of the try asks: one boot is lost, not three.
func TestEndTry(t *testing.T) {
	for _, make := range []func(*testing.T) *machine{newMachine, newBIOSMachine} {
		m := make(t)
		if err := m.agent().EndTry("hangs"); err != nil {
			t.Fatal(err)
		}
		m.wantESP("proa_1.0.0.efi") // no try, so nothing happens
		m.release("1.0.1")
		if _, err := m.apply(); err != nil {
			t.Fatal(err)
		}
		m.boot()
		m.wantRuns("1.0.1")
		for range 2 { // the reboot may fail, and the timer comes again
			if err := m.agent().EndTry("hangs"); err != nil {
				t.Fatal(err)
			}
		}
		if h, err := m.agent().Store.History(); err != nil || len(h) != 2 {
			t.Errorf("history %+v, %v, want armed and bad", h, err)
		}
		m.boot()
		m.wantRuns("1.0.0")
		if err := m.health(nil); err != nil {
			t.Fatal(err)
		}
		m.wantBad("1.0.1", "hangs")
		if c, err := m.agent().Store.Counters(); err != nil || c.Failures["health"] != 1 {
			t.Errorf("counters %+v, %v", c, err)
		}
	}
}

func TestEndTryWithoutMemoryOrWayBack(t *testing.T) {
	m := newMachine(t)
	m.release("1.0.1")
	if _, err := m.apply(); err != nil {
		t.Fatal(err)
	}
	m.boot()
	m.write("var/quarantine.json", []byte("{"))
	m.write("var/orders.json", []byte("{"))
	if err := m.agent().EndTry("hangs"); err != nil {
		t.Error(err)
	}
	m.wantESP("proa_1.0.0.efi", "proa_1.0.1+0-1.efi")

	m = newMachine(t)
	m.write("esp/proa_1.0.0+2-1.efi", m.running.Boot)
	if err := m.remove("esp/proa_1.0.0.efi"); err != nil {
		t.Fatal(err)
	}
	var stays *agent.NoWayBack
	if err := m.agent().EndTry("hangs"); !errors.As(err, &stays) || !strings.Contains(err.Error(), "hangs") {
		t.Errorf("the only release: %v", err)
	}
	m.wantESP("proa_1.0.0+2-1.efi")
}

func (m *machine) remove(name string) error { return os.Remove(filepath.Join(m.dir, name)) }
