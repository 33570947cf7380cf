// Package record keeps what the update agent remembers, in /var/lib/proa/update: state.json, quarantine.json, orders.json,
// counters.json, schedule.json, history.jsonl.
//
// Each file is replaced durably as a whole, or in the case of the history appended to and synced, so that a power cut costs at
// most the last line. A file that is missing is empty; one that is damaged is an error for the quarantine, because forgetting it would
// take a bad release again, and for the orders of people, and is begun anew for the state, which is only a hint.
package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/durable"
	"github.com/proa-os/proa/update-engine/state"
)

const (
	stateFile      = "state.json"
	quarantineFile = "quarantine.json"
	ordersFile     = "orders.json"
	countersFile   = "counters.json"
	scheduleFile   = "schedule.json"
	historyFile    = "history.jsonl"

	maxQuarantine = 200 // entries kept; the oldest go first
)

// A Store is the agent's folder.
type Store struct {
	dir  string
	disk durable.Directory // of the tests; nil: dir
	// Changed, if not nil, is called when something has been written.
	Changed func()
}

// Open makes the folder if needed.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("open update state: %w", err)
	}
	return &Store{dir: dir}, nil
}

// Machine returns the state; the zero value if there is none that can be read.
func (s *Store) Machine() (state.Machine, error) {
	var m state.Machine
	b, err := s.read(stateFile)
	if err != nil {
		return m, err
	}
	if json.Unmarshal(b, &m) != nil {
		return state.Machine{}, nil
	}
	return m, nil
}

// SetMachine replaces the state.
func (s *Store) SetMachine(m state.Machine) error {
	return s.alone(func() error { return s.write(stateFile, m) })
}

// Quarantine returns the releases that must not be taken.
func (s *Store) Quarantine() (state.Quarantine, error) {
	var q state.Quarantine
	b, err := s.read(quarantineFile)
	if err != nil || len(b) == 0 {
		return nil, err
	}
	if err := json.Unmarshal(b, &q); err != nil {
		return nil, fmt.Errorf("read %s: %w; it says which releases are bad: repair it, or remove it to forget them", filepath.Join(s.dir, quarantineFile), err)
	}
	return q, nil
}

// AddQuarantine remembers a bad release for good.
func (s *Store) AddQuarantine(e state.Quarantined) error {
	return s.alone(func() error {
		q, err := s.Quarantine()
		if err != nil {
			return err
		}
		q = q.Add(e)
		return s.write(quarantineFile, q[max(0, len(q)-maxQuarantine):])
	})
}

// ClearQuarantine forgets what is bad about a version, and returns what that was.
func (s *Store) ClearQuarantine(version string) (gone state.Quarantine, err error) {
	err = s.alone(func() error {
		q, err := s.Quarantine()
		if err != nil {
			return err
		}
		if q, gone = q.Without(version); len(gone) == 0 {
			return nil
		}
		return s.write(quarantineFile, q)
	})
	return gone, err
}

// Orders returns what people have told this machine.
func (s *Store) Orders() (state.Orders, error) {
	var o state.Orders
	b, err := s.read(ordersFile)
	if err != nil || len(b) == 0 {
		return o, err
	}
	if err := json.Unmarshal(b, &o); err != nil {
		return state.Orders{}, fmt.Errorf("read %s: %w; it says what this machine was told to keep away from: repair it, or remove it to forget that", filepath.Join(s.dir, ordersFile), err)
	}
	return o, nil
}

// SetOrders replaces them.
func (s *Store) SetOrders(o state.Orders) error {
	return s.alone(func() error { return s.write(ordersFile, o) })
}

// Counters returns the sums; zero if there are none that can be read.
func (s *Store) Counters() (state.Counters, error) {
	var c state.Counters
	b, err := s.read(countersFile)
	if err != nil || json.Unmarshal(b, &c) != nil {
		return state.Counters{}, err
	}
	return c, nil
}

// Count changes the sums.
func (s *Store) Count(change func(*state.Counters)) error {
	return s.alone(func() error {
		c, err := s.Counters()
		if err != nil {
			return err
		}
		change(&c)
		return s.write(countersFile, c)
	})
}

// Schedule returns when to look next; the zero value, which means now, if there is none that can be read.
func (s *Store) Schedule() (state.Schedule, error) {
	var next state.Schedule
	b, err := s.read(scheduleFile)
	if err != nil || json.Unmarshal(b, &next) != nil {
		return state.Schedule{}, err
	}
	return next, nil
}

// SetSchedule replaces it.
func (s *Store) SetSchedule(next state.Schedule) error {
	return s.alone(func() error { return s.write(scheduleFile, next) })
}

// History returns all entries, oldest first. A line that is no entry is skipped: it is what a power cut left.
func (s *Store) History() ([]state.Entry, error) {
	b, err := s.read(historyFile)
	if err != nil {
		return nil, err
	}
	var entries []state.Entry
	for line := range bytes.Lines(b) {
		var e state.Entry
		if json.Unmarshal(line, &e) == nil && e.Event != "" {
			entries = append(entries, e)
		}
	}
	return entries, nil
}

// AddHistory appends an entry, durably.
func (s *Store) AddHistory(e state.Entry) error {
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("write history: %w", err)
	}
	return s.alone(func() error { return s.appendHistory(line) })
}

func (s *Store) appendHistory(line []byte) error {
	if torn, err := endsTorn(filepath.Join(s.dir, historyFile)); err != nil {
		return fmt.Errorf("write history: %w", err)
	} else if torn {
		line = slices.Concat([]byte("\n"), line)
	}
	return s.change(func(d durable.Directory) error { return durable.Append(d, historyFile, append(line, '\n'), 0o644) })
}

// endsTorn reports whether the last line has no end.
func endsTorn(name string) (bool, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil || fi.Size() == 0 {
		return false, err
	}
	var last [1]byte
	if _, err := f.ReadAt(last[:], fi.Size()-1); err != nil {
		return false, err
	}
	return last[0] != '\n', nil
}

// alone keeps other processes off the files while do changes them: the agent on the bus and the health check of a boot are
// two, and both settle what they find at their start.
func (s *Store) alone(do func() error) error {
	if err := s.locked(do); err != nil {
		return err
	}
	if s.Changed != nil {
		s.Changed()
	}
	return nil
}

func (s *Store) locked(do func() error) error {
	d, err := os.Open(s.dir)
	if err != nil {
		return fmt.Errorf("lock update state: %w", err)
	}
	defer d.Close() // gives the lock back
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock update state %s: %w", s.dir, err)
	}
	return do()
}

func (s *Store) read(name string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(s.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read update state: %w", err)
	}
	return b, nil
}

func (s *Store) write(name string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return s.change(func(d durable.Directory) error { return durable.Replace(d, name, append(b, '\n'), 0o644) })
}

// change changes files of the folder.
func (s *Store) change(do func(durable.Directory) error) error {
	if s.disk != nil {
		return do(s.disk)
	}
	root, err := os.OpenRoot(s.dir)
	if err != nil {
		return fmt.Errorf("write update state: %w", err)
	}
	defer root.Close()
	return do(durable.In(root))
}
