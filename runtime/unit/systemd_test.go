package unit_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/runtime/store"
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
	// what GetAll says, by interface; the unit is forgotten if there is nothing
	all map[string]map[string]dbus.Variant
	// the last connection of a client, and how many there were
	client  *dbus.Conn
	clients int
}

// hangUp closes the client's connection, as systemd does at daemon-reexec.
func (m *manager) hangUp() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.client.Close()
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
	if result == "" {
		return path, nil
	}
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
func (m *manager) SetUnitProperties(name string, runtime bool, props []property) *dbus.Error {
	for _, p := range props {
		m.note("set", name, fmt.Sprint(runtime), p.Name, p.Value.String())
	}
	return nil
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

// GetAll is of org.freedesktop.DBus.Properties.
func (m *manager) GetAll(of string) (map[string]dbus.Variant, *dbus.Error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.all[of], nil
}

// connect runs a private bus with the manager on it.
func connect(t *testing.T, m *manager) *unit.Systemd {
	t.Helper()
	address := testenv.Bus(t, testenv.OpenPolicy, "")
	var err error
	if m.conn, err = dbus.Connect(address); err != nil {
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
	bus := func(context.Context) (*dbus.Conn, error) {
		c, err := dbus.Connect(address, dbus.WithSignalHandler(dbus.NewSequentialSignalHandler()))
		if err == nil { // systemd's own socket gives all signals unasked
			err = c.AddMatchSignal(dbus.WithMatchPathNamespace("/org/freedesktop/systemd1"))
		}
		m.mu.Lock()
		m.client, m.clients = c, m.clients+1
		m.mu.Unlock()
		return c, err
	}
	s := &unit.Systemd{Bus: bus}
	t.Cleanup(s.Close)
	return s
}

// TestSystemd: the calls are those that systemd's D-Bus interface has (org.freedesktop.systemd1(5)).
func TestSystemd(t *testing.T) {
	m := &manager{result: "done"}
	s := connect(t, m)
	ctx := t.Context()
	err := errors.Join(s.Refresh(ctx, "a.service", true), s.Refresh(ctx, "a.service", false), s.Refresh(ctx, "new.service", true), s.Refresh(ctx, "old.service", true), s.Start(ctx, "a.service"), s.Stop(ctx, "a.service"), s.Restart(ctx, "a.service"), s.Freeze(ctx, "a.service", true), s.Freeze(ctx, "a.service", false),
		s.ResetFailed(ctx, "a.service"), s.Queue(ctx, "stop", "b.service"), s.Limit(ctx, "a.service", "MemoryMax=5\n"))
	want := []string{"reload", "reload", "reload", "start a.service", "stop a.service", "restart a.service", "freeze a.service", "thaw a.service", "reset a.service", "stop b.service", "set a.service true MemoryMax @t 5"}
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

// TestHangUp: a connection that goes ends the wait for a job with an error that says so, and the next call makes another one.
func TestHangUp(t *testing.T) {
	m := &manager{} // jobs go on
	s := connect(t, m)
	time.AfterFunc(200*time.Millisecond, m.hangUp)
	if err := s.Start(t.Context(), "a.service"); err == nil || !strings.Contains(err.Error(), "closed the connection") {
		t.Errorf("a connection that goes: %v", err)
	}
	m.mu.Lock()
	m.result = "done"
	m.mu.Unlock()
	if err := s.Stop(t.Context(), "a.service"); err != nil || m.clients != 2 {
		t.Errorf("after it: %v, %d connections", err, m.clients)
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

// TestOnce: the unit goes over the bus as its text says, with descriptors, and its end comes back; one whose first process ends before it
// is up has not started; a name that is taken is told apart.
func TestOnce(t *testing.T) {
	m := &manager{result: "done"}
	s := connect(t, m)
	k := &store.Container{Name: "a-b", Image: "example.org/x%y:1", Network: "bridge", Restart: "no", Remove: true, Memory: 1 << 20, CPUs: 1.5, Pids: 7, CPUShares: 512,
		MemSet: "1", MemoryLow: 5, BlkioWeight: 10, Rates: []store.Rate{{Setting: "IOReadIOPSMax", Device: "/dev/vda", Most: 7}}, NoLog: true,
		CPUSet: "0-2,9", StopSignal: "quit", StopTimeout: 3, Health: &store.Health{Interval: time.Second}, Devices: []store.Device{{Source: "/dev/a b", Access: "rw"}}}
	text := unit.Once(k, "/usr/bin/oci-runtime run --unit a-b", "/usr/bin/containerctl ended a-b 1")
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	say := func(code, status int32, result string) {
		path := dbus.ObjectPath("/org/freedesktop/systemd1/unit/proa_2da_2db_2eservice")
		m.conn.Emit(path, "org.freedesktop.DBus.Properties.PropertiesChanged", "org.freedesktop.systemd1.Service",
			map[string]dbus.Variant{"ExecMainCode": dbus.MakeVariant(code), "ExecMainStatus": dbus.MakeVariant(status), "Result": dbus.MakeVariant(result)}, []string{})
	}
	s.Connect(t.Context())
	ends, err := s.Once(t.Context(), "proa-a-b.service", text, unit.Files{read, write})
	if err != nil {
		t.Fatal(err)
	}
	say(0, 0, "success")
	say(2, 9, "signal")
	if e := <-ends; e != (unit.End{Code: unit.Killed, Status: 9, Result: "signal"}) {
		t.Errorf("end %+v", e)
	}
	got := map[string]string{}
	for _, p := range m.timer {
		got[p.Name] += p.Value.Signature().String() + " " + p.Value.String() + ";"
	}
	for name, want := range map[string]string{
		"Description": `s "Container a-b (example.org/x%y:1)";`, "After": `as ["network-online.target"];`, "StartLimitIntervalUSec": "t @t 0;",
		"CollectMode": `s "inactive-or-failed";`, "Type": `s "notify";`, "KillSignal": "i 3;", "TimeoutStopUSec": "t @t 10000000;", "Restart": `s "no";`,
		"ExecStart":         `a(sasb) [["/usr/bin/oci-runtime", ["/usr/bin/oci-runtime", "run", "--unit", "a-b"], false]];`,
		"ExecStartPost":     `a(sasb) [["/usr/bin/containerctl", ["/usr/bin/containerctl", "watch", "a-b"], true]];`,
		"ExecStopPost":      `a(sasb) [["/usr/bin/containerctl", ["/usr/bin/containerctl", "ended", "a-b", "1"], true]];`,
		"SuccessExitStatus": `(aiai) [[143], [9]];`, "DelegateControllers": `as ["cpu", "io", "memory", "pids"];`, "IgnoreSIGPIPE": "b false;",
		"DeviceAllow": `a(ss) [["/dev/tty", "rwm"]];a(ss) [["char-pts", "rw"]];a(ss) [["/dev/a b", "rw"]];`,
		"MemoryMax":   "t @t 1048576;", "CPUQuotaPerSecUSec": "t @t 1500000;", "TasksMax": "t @t 7;", "CPUWeight": "t @t 59;", "AllowedCPUs": "ay @ay [0x7, 0x2];",
		"AllowedMemoryNodes": "ay @ay [0x2];", "MemoryLow": "t @t 5;", "IOWeight": "t @t 1;", "IOReadIOPSMax": `a(st) @a(st) [["/dev/vda", 7]];`, "StandardOutput": "",
	} {
		if got[name] != want {
			t.Errorf("%s: %s, want %s", name, got[name], want)
		}
	}
	for name, sig := range map[string]string{"ExtraFileDescriptors": "a(hs)"} {
		if !strings.HasPrefix(got[name], sig+" ") {
			t.Errorf("%s: %s, want %s", name, got[name], sig)
		}
	}
	m.mu.Lock()
	m.result = "" // the job goes on
	m.mu.Unlock()
	tell := func(pid uint32, code, status int32) {
		path := dbus.ObjectPath("/org/freedesktop/systemd1/unit/proa_2da_2db_2eservice")
		m.conn.Emit(path, "org.freedesktop.DBus.Properties.PropertiesChanged", "org.freedesktop.systemd1.Service",
			map[string]dbus.Variant{"ExecMainPID": dbus.MakeVariant(pid), "ExecMainCode": dbus.MakeVariant(code), "ExecMainStatus": dbus.MakeVariant(status)}, []string{})
	}
	// A workload that has ended before ExecStartPost= has.
	time.AfterFunc(100*time.Millisecond, func() { tell(1, 0, 0); tell(2, 0, 0); tell(2, 1, 7) })
	if ends, err := s.Once(t.Context(), "proa-a-b.service", text, unit.Files{}); err != nil {
		t.Error(err)
	} else if e := <-ends; e.Code != unit.Exited || e.Status != 7 {
		t.Errorf("end %+v", e)
	}
	time.AfterFunc(100*time.Millisecond, func() { say(1, 127, "exit-code") })
	var failed *unit.StartError
	if _, err := s.Once(t.Context(), "proa-a-b.service", text, unit.Files{}); !errors.As(err, &failed) || failed.End.Status != 127 {
		t.Errorf("a first process that ends: %v", err)
	}
	m.mu.Lock()
	m.busy = 1
	m.mu.Unlock()
	if _, err := s.Once(t.Context(), "proa-a-b.service", text, unit.Files{}); !errors.Is(err, unit.ErrTaken) {
		t.Errorf("a name that is taken: %v", err)
	}
	if _, err := s.Once(t.Context(), "proa-a-b.service", "[Service]\nNice=1\n", unit.Files{}); err == nil || !strings.Contains(err.Error(), "Nice=") {
		t.Errorf("an unknown setting: %v", err)
	}
}
