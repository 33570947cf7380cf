package bus_test

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/introspect"

	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/update-engine/bus"
	"github.com/proa-os/proa/update-engine/state"
)

// engine answers at once; Apply tells of its progress first.
type engine struct {
	progress func(string, int64, int64)
	rebooted bool
	mu       sync.Mutex
	orders   state.Orders
	did      []string
}

func (e *engine) Check(context.Context) (*state.Result, error) {
	return nil, errors.New("refuse timestamp.json: expired \xff")
}

func (e *engine) Apply(_ context.Context, reboot bool) (*state.Result, error) {
	for done := int64(0); done <= 1000; done++ {
		e.progress("write", done, 1000)
	}
	e.rebooted = reboot
	return &state.Result{Armed: true, Text: "release 1.0.1 is armed"}, nil
}

func (e *engine) Status() (*state.Report, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return &state.Report{Why: "because", Running: state.Release{Version: "1.0.0"}, Orders: e.orders, Quarantine: state.Quarantine{{Release: state.Release{Version: "1.0.2"}}}}, nil
}

func (e *engine) note(what string, args ...any) (*state.Result, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.did = append(e.did, fmt.Sprintln(append([]any{what}, args...)...))
	return &state.Result{Text: what}, nil
}

func (e *engine) Auto(context.Context) (*state.Result, error) { return nil, state.Busy{} }

func (e *engine) Rollback(_ context.Context, version string, g state.Given, reboot bool) (*state.Result, error) {
	return e.note("rollback", version, g.By, g.Reason, reboot)
}
func (e *engine) Resume(g state.Given) (*state.Result, error) { return e.note("resume", g.Reason) }
func (e *engine) Hold(until *time.Time, g state.Given) (*state.Result, error) {
	e.mu.Lock()
	e.orders.Hold = &state.Hold{Given: g, Until: until}
	e.mu.Unlock()
	return e.note("hold", until != nil && until.Equal(time.Unix(2000000000, 0)), g.Reason)
}
func (e *engine) Unhold(g state.Given) (*state.Result, error) { return e.note("unhold", g.Reason) }
func (e *engine) Pin(version string, g state.Given) (*state.Result, error) {
	return e.note("pin", version, g.Reason)
}
func (e *engine) Unpin(g state.Given) (*state.Result, error) { return e.note("unpin", g.Reason) }
func (e *engine) ClearQuarantine(version string, g state.Given) (*state.Result, error) {
	return e.note("clear", version, g.Reason)
}
func (e *engine) Metrics() (string, error) { return "proa_update_trying 0\n", nil }

func (e *engine) History() ([]state.Entry, error) {
	return []state.Entry{{Event: state.EventGood, Release: state.Release{Version: "1.0.1"}}}, nil
}

// startBus runs a private bus with the policy of the image for the name.
func startBus(t *testing.T) (connect func() *dbus.Conn) {
	t.Helper()
	policy, err := filepath.Abs("../../manifests/files/usr/share/dbus-1/system.d/io.proa.Update1.conf")
	if err != nil {
		t.Fatal(err)
	}
	address := testenv.Bus(t, `<allow user="*"/><deny own="*"/><deny send_type="method_call"/><allow send_destination="org.freedesktop.DBus"/>`, "<include>"+policy+"</include>")
	return func() *dbus.Conn {
		conn, err := dbus.Connect(address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
}

// asRoot runs the test again as root of a user namespace, the bus with it: the name and Apply are root's.
func asRoot(t *testing.T) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER, UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		testenv.Missing(t, "as root, nor in a user namespace: %v", err)
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(out.String(), "--- PASS: "+t.Name()) {
		t.Errorf("as root of a user namespace: %v\n%s", err, &out)
	}
}

func TestOverABus(t *testing.T) {
	if os.Getuid() != 0 {
		asRoot(t)
		return
	}
	connect := startBus(t)
	e := &engine{}
	s, err := bus.NewServer(t.Context(), connect(), e)
	if err != nil {
		t.Fatal(err)
	}
	e.progress = s.Progress
	served := make(chan error, 1)
	go func() { served <- s.Serve(400 * time.Millisecond) }()
	c := bus.NewClient(connect())
	var report *state.Report
	for range 50 { // until it has the name
		if report, err = c.Status(t.Context()); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil || report.Why != "because" {
		t.Fatalf("status: %+v, %v", report, err)
	}
	var last uint64
	signals := 0
	r, err := c.Apply(t.Context(), true, func(stage string, done, total uint64) {
		if signals++; stage != "write" || total != 1000 || done < last {
			t.Errorf("progress: %s %d of %d after %d", stage, done, total, last)
		}
		last = done
	})
	if err != nil || !r.Armed || !e.rebooted {
		t.Errorf("apply: %+v, %v", r, err)
	}
	if last != 1000 || signals > 100 {
		t.Errorf("%d signals, the last at %d", signals, last)
	}
	if _, err := c.Check(t.Context()); err == nil || err.Error() != "refuse timestamp.json: expired ?" {
		t.Errorf("check: %v", err)
	}
	if h, err := c.History(t.Context()); err != nil || len(h) != 1 || h[0].Version != "1.0.1" {
		t.Errorf("history: %+v, %v", h, err)
	}
	testOrders(t, c, e)
	testProperties(t, connect(), c)
	select {
	case err := <-served:
		if err != nil {
			t.Errorf("serve: %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("it stays although nobody asks")
	}
}

// Every method gets to the engine with all that was said.
func testOrders(t *testing.T, c *bus.Client, e *engine) {
	t.Helper()
	ctx := t.Context()
	for want, do := range map[string]func() (*state.Result, error){
		"rollback 1.0.0 root too slow true\n": func() (*state.Result, error) { return c.Rollback(ctx, "1.0.0", " too\nslow ", true) },
		"resume why\n":                        func() (*state.Result, error) { return c.Order(ctx, "Resume", "why") },
		"hold true audit\n":                   func() (*state.Result, error) { return c.Hold(ctx, time.Unix(2000000000, 0), "audit") },
		"hold false \n":                       func() (*state.Result, error) { return c.Hold(ctx, time.Time{}, "") },
		"unhold why\n":                        func() (*state.Result, error) { return c.Order(ctx, "Unhold", "why") },
		"pin 1.0.1 why\n":                     func() (*state.Result, error) { return c.OrderVersion(ctx, "Pin", "1.0.1", "why") },
		"unpin \n":                            func() (*state.Result, error) { return c.Order(ctx, "Unpin", "") },
		"clear 1.0.2 why\n":                   func() (*state.Result, error) { return c.OrderVersion(ctx, "ClearQuarantine", "1.0.2", "why") },
	} {
		e.did = nil
		r, err := do()
		if err != nil || len(e.did) != 1 || r.Text == "" {
			t.Errorf("%s: %+v, %v, did %q", want, r, err, e.did)
			continue
		}
		// Who logged in to run these tests is none of their business.
		if got := regexp.MustCompile(`^rollback 1.0.0 \S+`).ReplaceAllString(e.did[0], "rollback 1.0.0 root"); got != want {
			t.Errorf("did %q, want %q", got, want)
		}
	}
	if _, err := c.Auto(ctx); !errors.Is(err, state.Busy{}) {
		t.Errorf("busy: %v", err)
	}
	if text, err := c.Metrics(ctx); err != nil || text != "proa_update_trying 0\n" {
		t.Errorf("metrics: %q, %v", text, err)
	}
}

// Properties can be read, not set, and their changes are told.
func testProperties(t *testing.T, conn *dbus.Conn, c *bus.Client) {
	t.Helper()
	o := conn.Object(bus.Name, bus.Path)
	if v, err := o.GetProperty(bus.Interface + ".RunningVersion"); err != nil || v.Value() != "1.0.0" {
		t.Errorf("RunningVersion: %v, %v", v, err)
	}
	if v, err := o.GetProperty(bus.Interface + ".Quarantined"); err != nil || fmt.Sprint(v.Value()) != "[1.0.2]" {
		t.Errorf("Quarantined: %v, %v", v, err)
	}
	if err := o.SetProperty(bus.Interface+".Held", dbus.MakeVariant(true)); err == nil {
		t.Error("a property was set")
	}
	if _, err := o.GetProperty(bus.Interface + ".Nonsense"); err == nil || !strings.Contains(err.Error(), "RunningVersion") {
		t.Errorf("an unknown property: %v", err)
	}
	if err := conn.AddMatchSignal(dbus.WithMatchInterface("org.freedesktop.DBus.Properties"), dbus.WithMatchObjectPath(bus.Path)); err != nil {
		t.Fatal(err)
	}
	signals := make(chan *dbus.Signal, 64)
	conn.Signal(signals)
	if _, err := c.Apply(t.Context(), false, nil); err != nil { // its progress is a property too
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for deadline := time.After(5 * time.Second); !seen["Progress"]; {
		select {
		case s := <-signals:
			changed, ok := s.Body[1].(map[string]dbus.Variant)
			if !ok || s.Body[0] != bus.Interface {
				t.Fatalf("signal %v", s.Body)
			}
			for name := range changed {
				seen[name] = true
			}
		case <-deadline:
			t.Fatalf("told of %v only", seen)
		}
	}
	if seen["Channel"] || seen["RunningVersion"] {
		t.Errorf("told of %v, which have not changed", seen)
	}
}

// What introspection says is what is there: godbus exports every exported method of a value.
func TestIntrospection(t *testing.T) {
	var node introspect.Node
	if err := xml.Unmarshal([]byte(bus.Introspection), &node); err != nil {
		t.Fatal(err)
	}
	found := map[string]introspect.Interface{}
	for _, i := range node.Interfaces {
		found[i.Name] = i
	}
	for name, v := range bus.Exported() {
		want := map[string]string{}
		for _, m := range introspect.Methods(v) {
			want[m.Name] = signature(m.Args)
		}
		got := map[string]string{}
		for _, m := range found[name].Methods {
			got[m.Name] = signature(m.Args)
		}
		if len(got) == 0 || !maps.Equal(got, want) {
			t.Errorf("%s: introspection says %v, there is %v", name, got, want)
		}
	}
	want := map[string]string{}
	for name, v := range bus.Properties(&state.Report{}) {
		want[name] = v.Signature().String()
	}
	got := map[string]string{}
	for _, p := range found[bus.Interface].Properties {
		if got[p.Name] = p.Type; p.Access != "read" {
			t.Errorf("%s can be %s", p.Name, p.Access)
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("properties: introspection says %v, there is %v", got, want)
	}
}

func signature(args []introspect.Arg) (s string) {
	for _, a := range args {
		s += a.Direction + ":" + a.Type + " "
	}
	return s
}

// The policy is well formed and says what the package says.
func TestPolicy(t *testing.T) {
	b, err := os.ReadFile("../../manifests/files/usr/share/dbus-1/system.d/io.proa.Update1.conf")
	if err != nil {
		t.Fatal(err)
	}
	var conf struct {
		Policies []struct {
			User    string `xml:"user,attr"`
			Context string `xml:"context,attr"`
			Allow   []struct {
				Own         string `xml:"own,attr"`
				Destination string `xml:"send_destination,attr"`
				Member      string `xml:"send_member,attr"`
				Interface   string `xml:"send_interface,attr"`
			} `xml:"allow"`
		} `xml:"policy"`
	}
	if err := xml.Unmarshal(b, &conf); err != nil {
		t.Fatal(err)
	}
	var everyone []string
	for _, p := range conf.Policies {
		for _, a := range p.Allow {
			if p.Context == "default" {
				everyone = append(everyone, a.Member)
				if a.Own != "" || a.Destination != bus.Name || a.Interface == "" || a.Member == "" {
					t.Errorf("everyone may do more than call one method: %+v", a)
				}
			}
		}
	}
	if got := strings.Join(everyone, " "); got != "Status History Metrics Get GetAll Introspect" {
		t.Errorf("everyone may call %s", got)
	}
}
