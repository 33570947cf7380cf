package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/durable/durabletest"
	"github.com/proa-os/proa/update-engine/reboot"
	"github.com/proa-os/proa/update-engine/state"
)

var (
	at  = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	bad = state.Release{Version: "1.0.2", Root: digest.Of([]byte("bad"))}
)

// changes are all that the store is asked for, each to be done for the n-th time.
var changes = map[string]func(s *Store, n int) error{
	"state": func(s *Store, n int) error {
		return s.SetMachine(state.Machine{Phase: state.Armed, Since: at, Target: &bad, Error: strings.Repeat("x", 100*n)})
	},
	"quarantine": func(s *Store, n int) error {
		return s.AddQuarantine(state.Quarantined{Release: state.Release{Version: "1.0.2", Root: digest.Of([]byte{byte(n)})}, Reason: "panic", Time: at})
	},
	"quarantine clear": func(s *Store, n int) error {
		if n < 2 {
			return s.AddQuarantine(state.Quarantined{Release: bad, Reason: "panic", Time: at})
		}
		_, err := s.ClearQuarantine(bad.Version)
		return err
	},
	"orders": func(s *Store, n int) error {
		return s.SetOrders(state.Orders{Pin: &state.Pin{Version: fmt.Sprint("1.0.", n), Given: state.Given{By: "core", Time: at}}})
	},
	"counters": func(s *Store, _ int) error { return s.Count(func(c *state.Counters) { c.Checks++ }) },
	"schedule": func(s *Store, n int) error { return s.SetSchedule(state.Schedule{Next: at, Failures: n}) },
	"reboots": func(s *Store, n int) error {
		return s.ChangeReboots(func(m *reboot.Memory) {
			m.Try = &reboot.Try{Release: bad, Kernel: fmt.Sprint("kernel ", n), Time: at}
		})
	},
	"mark": func(s *Store, n int) error {
		if n < 2 {
			return os.WriteFile(s.LeftFile(), nil, 0o644) // init/nextroot
		}
		return s.ForgetLeft()
	},
	"history": func(s *Store, n int) error { return s.AddHistory(entry(n)) },
}

func entry(n int) state.Entry {
	return state.Entry{Time: at, Event: state.EventBad, Release: bad, Detail: fmt.Sprint("entry ", n)}
}

// all is everything that a store has, as text; an error is one that stops the agent.
func all(s *Store) (string, error) {
	m, err := s.Machine()
	q, quarantineErr := s.Quarantine()
	o, ordersErr := s.Orders()
	c, countersErr := s.Counters()
	next, scheduleErr := s.Schedule()
	r, rebootsErr := s.Reboots()
	left, leftErr := s.Left()
	h, historyErr := s.History()
	text, jsonErr := jsonOf(m, q, o, c, next, r, left, h)
	return text, errors.Join(err, quarantineErr, ordersErr, countersErr, scheduleErr, rebootsErr, leftErr, historyErr, jsonErr)
}

func jsonOf(values ...any) (string, error) {
	b, err := json.Marshal(values)
	return string(b), err
}

// powered is a store of these files, written to a disk that may lose power. What it reads is what is there now.
type powered struct {
	*Store
	disk *durabletest.Disk
}

func power(t *testing.T, files map[string]string) powered {
	t.Helper()
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	d := durabletest.New(files)
	s.disk = d
	return powered{s, d}
}

// files are those of a folder.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = string(b)
	}
	return all
}

// cuts calls check with what every power cut in a change leaves, once for what a store reads of it; over says that the change had ended.
func (p powered) cuts(change func() error, check func(left map[string]string, over bool)) error {
	done := map[string]bool{}
	look := func(over bool) {
		for _, left := range p.disk.Cuts() {
			for name := range left {
				if strings.HasPrefix(name, ".") { // nobody reads it, and package durable has its own test
					delete(left, name)
				}
			}
			if key := fmt.Sprint(over, left); !done[key] {
				done[key] = true
				check(left, over)
			}
		}
	}
	p.disk.After = func() { look(false) }
	defer func() { p.disk.After = nil }()
	err := change()
	look(true)
	return err
}

// Power is lost after each call of each change of the state, with every part of what was not synced dropped or torn: everything reads as
// before the change or as behind it, and as behind it when the change has ended.
func TestPowerCuts(t *testing.T) {
	for name, change := range changes {
		if name == "history" { // see below
			continue
		}
		for n := range 2 { // the file is made, and it is replaced
			t.Run(fmt.Sprint(name, n), func(t *testing.T) {
				s, err := Open(t.TempDir())
				if err != nil {
					t.Fatal(err)
				}
				for i := range n {
					if err := change(s, i+1); err != nil {
						t.Fatal(err)
					}
				}
				start := files(t, s.dir)
				before, beforeErr := all(s)
				err = change(s, n+1)
				behind, behindErr := all(s)
				if err := errors.Join(err, beforeErr, behindErr); err != nil || before == behind {
					t.Fatalf("from %s to %s: %v", before, behind, err)
				}
				if name == "mark" && n == 0 {
					return // another program makes it
				}
				p, seen := power(t, start), map[string]bool{}
				err = p.cuts(func() error { return change(p.Store, n+1) }, func(left map[string]string, over bool) {
					got, err := all(power(t, left).Store)
					if err != nil || got != behind && (over || got != before) {
						t.Fatalf("cut after %q, is over %v: left %q: got %s, %v", p.disk.Calls, over, left, got, err)
					}
					seen[got] = true
				})
				if err != nil || !seen[before] || !seen[behind] {
					t.Errorf("%v; %d states were seen", err, len(seen))
				}
			})
		}
	}
}

// Of the history a power cut takes the last line at most, and the next line is whole.
func TestHistoryAndPowerCuts(t *testing.T) {
	for n := range 3 {
		p := power(t, nil)
		add := func(n int) { // as after a run of the agent; nothing syncs the folder
			t.Helper()
			if err := p.AddHistory(entry(n)); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(p.dir, historyFile), []byte(p.disk.Seen()[historyFile]), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		for i := range n {
			add(i)
		}
		cuts := 0
		err := p.cuts(func() error { return p.AddHistory(entry(n)) }, func(left map[string]string, over bool) {
			cuts++
			again := power(t, left)
			h, err := again.History()
			if err != nil || len(h) < n || len(h) > n+1 || over && len(h) == n {
				t.Fatalf("left %q: got %d entries, %v, want %d and perhaps one", left, len(h), err, n)
			}
			if err := again.AddHistory(entry(n + 1)); err != nil {
				t.Fatal(err)
			}
			h, err = power(t, again.disk.Seen()).History()
			if err != nil || len(h) < n+1 || h[len(h)-1] != entry(n+1) {
				t.Fatalf("left %q: after another entry: got %+v, %v", left, h, err)
			}
			for i := range n {
				if h[i] != entry(i) {
					t.Fatalf("left %q: entry %d became %+v", left, i, h[i])
				}
			}
		})
		if err != nil || cuts < 100 {
			t.Errorf("%d cuts, %v", cuts, err)
		}
	}
}
