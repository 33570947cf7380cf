package unit_test

import (
	"context"
	"errors"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	sd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"

	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/runtime/unit"
)

// manager answers as org.freedesktop.systemd1 does, as far as this package asks, and notes what it was asked.
type manager struct {
	conn *dbus.Conn
	mu   sync.Mutex
	did  []string
	busy int // how often a transient unit is still there
	job  uint32
	// result of jobs
	result string
	timer  []property
	aux    []auxiliary
}

type property struct {
	Name  string
	Value dbus.Variant
}

type auxiliary struct {
	Name  string
	Props []property
}

type listed struct {
	Name, Description, Load, Active, Sub, Following string
	Path                                            dbus.ObjectPath
	Job                                             uint32
	JobType                                         string
	JobPath                                         dbus.ObjectPath
}

func (m *manager) note(words ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.did = append(m.did, strings.Join(words, " "))
}

// queue answers with a job and then says how it ended.
func (m *manager) queue(verb, name string) (dbus.ObjectPath, *dbus.Error) {
	m.note(verb, name)
	m.mu.Lock()
	m.job++
	id, result := m.job, m.result
	m.mu.Unlock()
	path := dbus.ObjectPath("/org/freedesktop/systemd1/job/" + string(rune('0'+id%10)))
	time.AfterFunc(20*time.Millisecond, func() {
		m.conn.Emit("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager.JobRemoved", id, path, name, result)
	})
	return path, nil
}

func (m *manager) StartUnit(name, _ string) (dbus.ObjectPath, *dbus.Error) {
	return m.queue("start", name)
}
func (m *manager) StopUnit(name, _ string) (dbus.ObjectPath, *dbus.Error) {
	return m.queue("stop", name)
}
func (m *manager) RestartUnit(name, _ string) (dbus.ObjectPath, *dbus.Error) {
	return m.queue("restart", name)
}
func (m *manager) FreezeUnit(name string) *dbus.Error { m.note("freeze", name); return nil }
func (m *manager) ThawUnit(name string) *dbus.Error   { m.note("thaw", name); return nil }
func (m *manager) Reload() *dbus.Error                { m.note("reload"); return nil }
func (m *manager) ResetFailedUnit(name string) *dbus.Error {
	m.note("reset", name)
	return nil
}
func (m *manager) StartTransientUnit(name, _ string, props []property, aux []auxiliary) (dbus.ObjectPath, *dbus.Error) {
	m.mu.Lock()
	there := m.busy > 0
	m.busy--
	m.timer, m.aux = props, aux
	m.mu.Unlock()
	if there {
		return "/", dbus.NewError("org.freedesktop.systemd1.UnitExists", []any{"Unit " + name + " was already loaded"})
	}
	return m.queue("transient", name)
}
func (m *manager) ListUnitsByNames(names []string) ([]listed, *dbus.Error) {
	var out []listed
	for _, n := range names {
		out = append(out, listed{Name: n, Load: "loaded", Active: "active", Sub: "running", Path: "/org/freedesktop/systemd1/unit/x", JobPath: "/"})
	}
	return out, nil
}

// Get is of org.freedesktop.DBus.Properties.
func (m *manager) Get(msg dbus.Message, of, name string) (dbus.Variant, *dbus.Error) {
	switch unit := path.Base(string(msg.Headers[dbus.FieldPath].Value().(dbus.ObjectPath))); name {
	case "LoadState":
		if unit == "new_2eservice" { // written in the moment in which systemd looked
			return dbus.MakeVariant("not-found"), nil
		}
		return dbus.MakeVariant("loaded"), nil
	case "NeedDaemonReload":
		return dbus.MakeVariant(unit == "old_2eservice"), nil
	}
	if of != "org.freedesktop.systemd1.Service" || name != "NRestarts" {
		return dbus.Variant{}, dbus.MakeFailedError(errors.New("no such property"))
	}
	return dbus.MakeVariant(uint32(3)), nil
}

// connect runs a private bus with the manager on it.
func connect(t *testing.T, m *manager) *unit.Systemd {
	t.Helper()
	address := testenv.Bus(t, testenv.OpenPolicy, "")
	var err error
	dial := func() (*dbus.Conn, error) { return dbus.Connect(address) }
	if m.conn, err = dial(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.conn.Close() })
	err = errors.Join(
		m.conn.Export(m, "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"),
		m.conn.ExportSubtree(m, "/org/freedesktop/systemd1/unit", "org.freedesktop.DBus.Properties"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.conn.RequestName("org.freedesktop.systemd1", dbus.NameFlagDoNotQueue); err != nil {
		t.Fatal(err)
	}
	s := &unit.Systemd{Dial: func(context.Context) (*sd.Conn, error) { return sd.NewConnection(dial) }}
	t.Cleanup(s.Close)
	return s
}

// TestSystemd: the calls are those that systemd's D-Bus interface has (org.freedesktop.systemd1(5)).
func TestSystemd(t *testing.T) {
	m := &manager{result: "done"}
	s := connect(t, m)
	ctx := t.Context()
	err := errors.Join(s.Refresh(ctx, "a.service", true), s.Refresh(ctx, "a.service", false), s.Refresh(ctx, "new.service", true), s.Refresh(ctx, "old.service", true), s.Start(ctx, "a.service"), s.Stop(ctx, "a.service"), s.Restart(ctx, "a.service"), s.Freeze(ctx, "a.service", true), s.Freeze(ctx, "a.service", false),
		s.ResetFailed(ctx, "a.service"), s.Queue(ctx, "stop", "b.service"))
	want := []string{"reload", "reload", "reload", "start a.service", "stop a.service", "restart a.service", "freeze a.service", "thaw a.service", "reset a.service", "stop b.service"}
	if err != nil || !slices.Equal(m.did, want) {
		t.Errorf("%v, %q", err, m.did)
	}
	if n, err := s.Restarts(ctx, "a.service"); n != 3 || err != nil {
		t.Errorf("restarts: %d, %v", n, err)
	}
	if st, err := s.Status(ctx, []string{"a.service"}); err != nil || st["a.service"] != (unit.Status{Load: "loaded", Active: "active", Sub: "running"}) {
		t.Errorf("status: %v, %v", st, err)
	}
	m.mu.Lock()
	m.result = "failed"
	m.mu.Unlock()
	if err := s.Start(ctx, "a.service"); err == nil || !strings.Contains(err.Error(), `"failed": see journalctl -u a.service`) {
		t.Errorf("a job that fails: %v", err)
	}
	if err := s.Queue(ctx, "jump", "a.service"); err == nil {
		t.Error("an unknown verb is queued")
	}
}

// TestWatch: the timer is of the types that systemd takes, and replaces the one of the run before, which is about to go.
func TestWatch(t *testing.T) {
	m := &manager{result: "done", busy: 2}
	s := connect(t, m)
	if err := s.Watch(t.Context(), "proa-web.service", 30*time.Second, []string{"/usr/bin/containerctl", "try", "web"}); err != nil {
		t.Fatal(err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if want := []string{"stop proa-web:health.timer", "stop proa-web:health.timer", "transient proa-web:health.timer"}; !slices.Equal(m.did, want) {
		t.Errorf("did %q", m.did)
	}
	types := func(props []property) map[string]string {
		out := map[string]string{}
		for _, p := range props {
			out[p.Name] = p.Value.Signature().String() + " " + p.Value.String()
		}
		return out
	}
	timer := types(m.timer)
	for name, want := range map[string]string{
		"TimersMonotonic": `a(st) @a(st) [["OnActiveSec", 30000000], ["OnUnitInactiveSec", 30000000]]`, "AccuracyUSec": "t @t 1000000",
		"BindsTo": `as ["proa-web.service"]`, "After": `as ["proa-web.service"]`, "CollectMode": `s "inactive-or-failed"`,
	} {
		if timer[name] != want {
			t.Errorf("%s: %s, want %s", name, timer[name], want)
		}
	}
	if len(m.aux) != 1 || m.aux[0].Name != "proa-web:health.service" || !strings.HasPrefix(types(m.aux[0].Props)["ExecStart"], "a(sasb) ") || types(m.aux[0].Props)["Type"] != `s "oneshot"` {
		t.Errorf("service: %+v", m.aux)
	}
}
