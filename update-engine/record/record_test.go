package record

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/update-engine/state"
)

func TestStore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "update")
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if m, err := s.Machine(); err != nil || m.Phase != "" {
		t.Errorf("empty: %+v, %v", m, err)
	}
	at := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	bad := state.Release{Version: "1.0.2", Root: digest.Of([]byte("bad"))}
	want := state.Machine{Phase: state.Armed, Since: at, Target: &bad, FailedUnits: []string{"x.service"}}
	if err := s.SetMachine(want); err != nil {
		t.Fatal(err)
	}
	if err := s.AddQuarantine(state.Quarantined{Release: bad, Reason: "panic", Time: at}); err != nil {
		t.Fatal(err)
	}
	for _, e := range []state.Event{state.EventArmed, state.EventBad} {
		if err := s.AddHistory(state.Entry{Time: at, Event: e, Release: bad, Running: "1.0.1"}); err != nil {
			t.Fatal(err)
		}
	}
	s, _ = Open(dir) // as after a reboot
	if got, err := s.Machine(); err != nil || got.Phase != state.Armed || *got.Target != bad || got.FailedUnits[0] != "x.service" {
		t.Errorf("state: %+v, %v", got, err)
	}
	if q, err := s.Quarantine(); err != nil || q.Find(bad.Root) == nil || q.Find(bad.Root).Reason != "panic" {
		t.Errorf("quarantine: %+v, %v", q, err)
	}
	if h, err := s.History(); err != nil || len(h) != 2 || h[1].Event != state.EventBad || h[1].Root != bad.Root {
		t.Errorf("history: %+v, %v", h, err)
	}
}

// A power cut may leave half a line of history; nothing else is lost by it.
func TestTornHistory(t *testing.T) {
	dir := t.TempDir()
	s, _ := Open(dir)
	add := func() {
		t.Helper()
		if err := s.AddHistory(state.Entry{Event: state.EventGood, Release: state.Release{Version: "1.0.1"}}); err != nil {
			t.Fatal(err)
		}
	}
	add()
	name := filepath.Join(dir, historyFile)
	b, _ := os.ReadFile(name)
	if err := os.WriteFile(name, append(b, b[:len(b)/2]...), 0o644); err != nil {
		t.Fatal(err)
	}
	add()
	if h, err := s.History(); err != nil || len(h) != 2 {
		t.Errorf("got %d entries, %v, want 2", len(h), err)
	}
}

func TestDamaged(t *testing.T) {
	dir := t.TempDir()
	s, _ := Open(dir)
	for _, name := range []string{stateFile, quarantineFile, ordersFile} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("{"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if m, err := s.Machine(); err != nil || m.Phase != "" {
		t.Errorf("damaged state: %+v, %v: it is only a hint", m, err)
	}
	if _, err := s.Quarantine(); err == nil || !strings.Contains(err.Error(), "repair it") {
		t.Errorf("damaged quarantine: %v", err)
	}
	if _, err := s.Orders(); err == nil || !strings.Contains(err.Error(), "repair it") {
		t.Errorf("damaged orders: %v", err)
	}
	if err := s.AddQuarantine(state.Quarantined{}); err == nil {
		t.Error("a damaged quarantine was overwritten")
	}
}

// Orders outlive the process, and whoever watches the store is told of each change, behind it and outside of its lock.
func TestOrdersAndChanges(t *testing.T) {
	s, _ := Open(t.TempDir())
	changes := 0
	s.Changed = func() {
		changes++
		if err := s.locked(func() error { return nil }); err != nil {
			t.Error(err)
		}
	}
	bad := state.Release{Version: "1.0.2", Root: digest.Of([]byte("c"))}
	err := errors.Join(
		s.SetOrders(state.Orders{Pin: &state.Pin{Version: "1.0.1", Given: state.Given{By: "core"}}}),
		s.AddQuarantine(state.Quarantined{Release: bad}),
	)
	if err != nil || changes != 2 {
		t.Fatalf("%d changes, %v", changes, err)
	}
	again, _ := Open(s.dir)
	if o, err := again.Orders(); err != nil || o.Pin == nil || o.Pin.Version != "1.0.1" || o.Pin.By != "core" || o.Hold != nil {
		t.Errorf("orders: %+v, %v", o, err)
	}
	if gone, err := s.ClearQuarantine("1.0.3"); err != nil || len(gone) != 0 {
		t.Errorf("clear what is not there: %+v, %v", gone, err)
	}
	if gone, err := s.ClearQuarantine("1.0.2"); err != nil || len(gone) != 1 {
		t.Errorf("clear: %+v, %v", gone, err)
	}
	if q, err := again.Quarantine(); err != nil || len(q) != 0 {
		t.Errorf("quarantine: %+v, %v", q, err)
	}
}

// The agent on the bus and the health check of the boot write at the same time: nothing is lost and nothing is torn.
func TestTwoProcesses(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	for p := range byte(4) {
		wg.Go(func() {
			s, err := Open(dir)
			if err != nil {
				t.Error(err)
				return
			}
			for n := range byte(20) {
				bad := state.Release{Version: "1.0.2", Root: digest.Of([]byte{p, n})}
				err := errors.Join(s.AddQuarantine(state.Quarantined{Release: bad}), s.SetMachine(state.Machine{Target: &bad}),
					s.AddHistory(state.Entry{Event: state.EventBad, Release: bad}))
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	s, _ := Open(dir)
	if q, err := s.Quarantine(); err != nil || len(q) != 80 {
		t.Errorf("quarantined %d, %v, want 80", len(q), err)
	}
	if h, err := s.History(); err != nil || len(h) != 80 {
		t.Errorf("history of %d, %v, want 80", len(h), err)
	}
	if m, err := s.Machine(); err != nil || m.Target == nil {
		t.Errorf("state: %+v, %v", m, err)
	}
}
