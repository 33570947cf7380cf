package unit_test

import (
	"errors"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/proa-os/proa/runtime/unit"
)

const (
	unitIface    = "org.freedesktop.systemd1.Unit"
	serviceIface = "org.freedesktop.systemd1.Service"
	aPath        = "/org/freedesktop/systemd1/unit/a_2eservice"
)

// reexec closes the connection of who waits, as systemd does at daemon-reexec, and says what is the case behind it.
func (m *manager) reexec(t *testing.T, job uint32, state string, pid uint32, code, status int32, result string) {
	t.Helper()
	m.mu.Lock()
	m.all = map[string]map[string]dbus.Variant{
		unitIface: {"ActiveState": dbus.MakeVariant(state), "Job": dbus.MakeVariant(struct {
			ID   uint32
			Path dbus.ObjectPath
		}{job, "/"})},
		serviceIface: {"ExecMainPID": dbus.MakeVariant(pid), "ExecMainCode": dbus.MakeVariant(code), "ExecMainStatus": dbus.MakeVariant(status), "Result": dbus.MakeVariant(result)},
	}
	before := m.client
	m.mu.Unlock()
	before.Close()
	for range 100 {
		m.mu.Lock()
		again := m.client != before
		m.mu.Unlock()
		if again {
			time.Sleep(50 * time.Millisecond) // until it has asked
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("nobody connects again")
}

func (m *manager) say(props map[string]dbus.Variant) {
	m.conn.Emit(aPath, "org.freedesktop.DBus.Properties.PropertiesChanged", serviceIface, props, []string{})
}

// TestReexec: at daemon-reexec systemd closes its connections. Who waits for the end of a unit is told nevertheless, whether that comes
// before or after, and a unit that is about to start is waited for.
func TestReexec(t *testing.T) {
	start := func(result string) (*manager, <-chan unit.End, <-chan error) {
		m := &manager{result: result}
		s := connect(t, m)
		got, failed := make(chan unit.End, 1), make(chan error, 1)
		go func() {
			ends, err := s.Once(t.Context(), "a.service", "[Service]\nType=notify\n", nil)
			failed <- err
			if err == nil {
				if e, ok := <-ends; ok {
					got <- e
				}
				close(got)
			}
		}()
		return m, got, failed
	}
	killed := map[string]dbus.Variant{"ExecMainCode": dbus.MakeVariant(int32(2)), "ExecMainStatus": dbus.MakeVariant(int32(9)), "Result": dbus.MakeVariant("oom-kill")}
	want := unit.End{Code: unit.Killed, Status: 9, Result: "oom-kill"}
	t.Run("runs", func(t *testing.T) {
		m, got, failed := start("done")
		if err := <-failed; err != nil {
			t.Fatal(err)
		}
		m.reexec(t, 0, "active", 7, 0, 0, "success")
		m.reexec(t, 0, "active", 7, 0, 0, "success")
		m.say(killed)
		if e := <-got; e != want {
			t.Errorf("got %+v", e)
		}
	})
	t.Run("ended meanwhile", func(t *testing.T) {
		m, got, failed := start("done")
		if err := <-failed; err != nil {
			t.Fatal(err)
		}
		m.reexec(t, 0, "deactivating", 7, 2, 9, "oom-kill")
		if e := <-got; e != want {
			t.Errorf("got %+v", e)
		}
	})
	t.Run("forgotten", func(t *testing.T) {
		m, got, failed := start("done")
		if err := <-failed; err != nil {
			t.Fatal(err)
		}
		m.reexec(t, 0, "inactive", 0, 0, 0, "success")
		if e, told := <-got; told {
			t.Errorf("got %+v", e)
		}
	})
	t.Run("starts", func(t *testing.T) {
		m, got, failed := start("") // no word of the job yet
		m.awaitAsked()
		m.reexec(t, 3, "inactive", 0, 0, 0, "success")
		m.reexec(t, 3, "activating", 6, 0, 0, "success")
		m.say(map[string]dbus.Variant{"ExecMainPID": dbus.MakeVariant(uint32(7))})
		m.reexec(t, 0, "active", 7, 0, 0, "success")
		if err := <-failed; err != nil {
			t.Fatal(err)
		}
		m.say(killed)
		if e := <-got; e != want {
			t.Errorf("got %+v", e)
		}
	})
	t.Run("has not started", func(t *testing.T) {
		m, _, failed := start("")
		m.awaitAsked()
		m.reexec(t, 3, "deactivating", 6, 1, 127, "exit-code")
		var told *unit.StartError
		if err := <-failed; !errors.As(err, &told) || told.End.Status != 127 {
			t.Errorf("got %v", err)
		}
	})
}

// awaitAsked waits until a job was asked for, and the answer is there.
func (m *manager) awaitAsked() {
	for asked := false; !asked; time.Sleep(200 * time.Millisecond) {
		m.mu.Lock()
		asked = m.job > 0
		m.mu.Unlock()
	}
}
