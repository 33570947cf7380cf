package agent_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/proa-os/proa/update-engine/record"
	"github.com/proa-os/proa/update-engine/state"
)

// What a machine cannot update with is found out before anything of the slot or the ESP changes, and said with numbers and what to do. The
// machine runs on, and updates once it is mended.
func TestEarlyRefusals(t *testing.T) {
	year := func(y int) time.Time { return time.Date(y, 1, 1, 0, 0, 0, 0, time.UTC) }
	for _, c := range []struct {
		name       string
		harm, mend func(*machine)
		want       []string
		asked      bool // the repository may be asked
	}{
		{"clock in 1970", func(m *machine) { m.now = year(1970) }, func(m *machine) { m.now = time.Time{} },
			[]string{"the clock is wrong: it says 1970-01-01T00:00:00Z, which is before the running release was built (2025-12-01", "timedatectl"}, false},
		{"clock in 2100", func(m *machine) { m.now = year(2100) }, func(m *machine) { m.now = time.Time{} },
			[]string{"the clock is wrong: it says 2100-01-01T00:00:00Z, which is more than 15 years after"}, false},
		{"clock two days ahead", func(m *machine) { m.now = m.repo.Time.Add(48 * time.Hour) }, func(m *machine) { m.now = time.Time{} },
			[]string{"timestamp.json: expired", "this machine's clock says 2026-01-03T12:00:00Z", "or the clock is wrong"}, true},
		{"full state", func(m *machine) { m.stateRoom = func() (int64, error) { return 1000, nil } }, func(m *machine) { m.stateRoom = nil },
			[]string{"state is full: it has room for 1000 bytes", fmt.Sprintf("%d bytes are missing", 4<<20-1000), "containerctl gc"}, false},
		{"state without room for files", func(m *machine) {
			m.stateRoom = func() (int64, error) { return 0, fmt.Errorf("/var: %w", record.ErrFiles) }
		},
			func(m *machine) { m.stateRoom = nil }, []string{"state is full: /var: no room for more files", "(inodes)", "containerctl gc"}, false},
		{"read-only state", func(m *machine) {
			m.stateRoom = func() (int64, error) { return 0, fmt.Errorf("/var: %w", syscall.EROFS) }
		},
			func(m *machine) { m.stateRoom = nil }, []string{"state is read-only", "journalctl -k", "reboot"}, false},
		{"full ESP", func(m *machine) { m.free = 1000 }, func(m *machine) { m.free = 1 << 40 },
			[]string{"the ESP is full: it has room for 1000 bytes", "bytes are missing"}, true},
		{"read-only ESP", func(m *machine) { m.freeErr = fmt.Errorf("/run/proa/esp: %w", syscall.EROFS) }, func(m *machine) { m.freeErr = nil },
			[]string{"the ESP is read-only", "fsck.fat"}, true},
		{"ESP that cannot be mounted", func(m *machine) { m.noESP = fmt.Errorf("mount ESP: %w", syscall.EINVAL) }, func(m *machine) { m.noESP = nil },
			[]string{"mount ESP: invalid argument"}, false},
		{"small slot", func(m *machine) { m.truncate("root-b", 1<<16) }, func(m *machine) { m.truncate("root-b", int64(len(m.running.Root))+1<<20) },
			[]string{"passive slot: has 65536 bytes", "bytes are missing", "newer image"}, true},
		{"no network", func(m *machine) { m.offline = true }, func(m *machine) { m.offline = false }, []string{"refused"}, false},
		{"a server that is ill", func(m *machine) { m.server.Tamper("timestamp.json", func([]byte) { panic(http.ErrAbortHandler) }) },
			func(m *machine) { m.server.Tamper("timestamp.json", nil) }, []string{"timestamp.json", "EOF"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t)
			m.repo.Release(t, m.tiny("1.0.1"))
			passive := m.read("root-b")
			c.harm(m)
			before := m.read("root-b")
			_, err := m.apply()
			for _, want := range c.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want an error with %q", err, want)
				}
			}
			m.wantESP("proa_1.0.0.efi")
			if m.rebooted || !bytes.Equal(m.read("root-b"), before) {
				t.Errorf("rebooted: %v; the passive slot was written to", m.rebooted)
			}
			if asked := len(m.server.Requests()) > 0; asked && !c.asked {
				t.Errorf("the repository was asked: %q", m.server.Requests())
			}
			for _, r := range m.server.Requests() {
				if strings.Contains(r, "payload") {
					t.Errorf("downloaded: %s", r)
				}
			}
			c.mend(m)
			m.write("root-b", passive)
			m.update()
			m.wantRuns("1.0.1")
		})
	}
}

// A disk that gives no answer about its room is not a wrong clock, for whoever reads the metrics.
func TestPostponedIsCounted(t *testing.T) {
	for _, c := range []struct {
		harm func(*machine)
		want state.Reason
	}{
		{func(m *machine) { m.stateRoom = func() (int64, error) { return 0, syscall.EIO } }, state.ReasonSpace},
		{func(m *machine) { m.now = time.Unix(0, 0) }, state.ReasonClock},
	} {
		m := newMachine(t)
		c.harm(m)
		if _, err := m.agent().Check(t.Context()); err == nil {
			t.Error("no error")
		}
		if got, err := m.agent().Store.Counters(); err != nil || len(got.Failures) != 1 || got.Failures[string(c.want)] != 1 {
			t.Errorf("got %+v, %v, want one failure: %s", got, err, c.want)
		}
	}
}

// A state that cannot be written says why the machine is not updated as far as it can: in the journal.
func TestPostponedIsLogged(t *testing.T) {
	m := newMachine(t)
	m.stateRoom = func() (int64, error) { return 0, nil }
	if _, err := m.agent().Check(t.Context()); err == nil {
		t.Error("no error")
	}
	if !strings.Contains(m.log.String(), `msg="update postponed" error="state is full`) {
		t.Errorf("log:\n%s", m.log.String())
	}
	if got := m.why(); !strings.Contains(got, "state is full") { // it was not so full after all
		t.Errorf("why: %s", got)
	}
}

func (m *machine) read(name string) []byte {
	m.t.Helper()
	b, err := os.ReadFile(filepath.Join(m.dir, name))
	if err != nil {
		m.t.Fatal(err)
	}
	return b
}

func (m *machine) truncate(name string, size int64) {
	m.t.Helper()
	if err := os.Truncate(filepath.Join(m.dir, name), size); err != nil {
		m.t.Fatal(err)
	}
}
