package bus_test

import (
	"bufio"
	"context"
	"encoding/xml"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/proa-os/proa/update-engine/bus"
	"github.com/proa-os/proa/update-engine/state"
)

// engine answers at once; Apply tells of its progress first.
type engine struct {
	progress func(string, int64, int64)
	rebooted bool
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

func (e *engine) Status() (*state.Report, error) { return &state.Report{Why: "because"}, nil }

func (e *engine) History() ([]state.Entry, error) {
	return []state.Entry{{Event: state.EventGood, Release: state.Release{Version: "1.0.1"}}}, nil
}

// startBus runs a private bus with the policy of the image for the name.
func startBus(t *testing.T) (connect func() *dbus.Conn) {
	t.Helper()
	daemon, err := exec.LookPath("dbus-daemon")
	if err != nil {
		t.Skip("SKIPPED: no dbus-daemon on this host; the stories in qemu-tests use the real bus")
	}
	policy, err := filepath.Abs("../../manifests/files/usr/share/dbus-1/system.d/io.proa.Update1.conf")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "bus.conf")
	text := `<busconfig><type>system</type><listen>unix:dir=` + dir + `</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><deny own="*"/><deny send_type="method_call"/>
<allow send_type="signal"/><allow send_requested_reply="true" send_type="method_return"/><allow send_requested_reply="true" send_type="error"/>
<allow receive_type="method_call"/><allow receive_type="method_return"/><allow receive_type="error"/><allow receive_type="signal"/>
<allow send_destination="org.freedesktop.DBus"/></policy><include>` + policy + `</include></busconfig>`
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(daemon, "--nofork", "--nopidfile", "--nosyslog", "--print-address=1", "--config-file="+config)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return func() *dbus.Conn {
		conn, err := dbus.Connect(strings.TrimSpace(address))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
}

func TestOverABus(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: the name and Apply are root's, and this test does not run as root")
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
	select {
	case err := <-served:
		if err != nil {
			t.Errorf("serve: %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("it stays although nobody asks")
	}
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
	if got := strings.Join(everyone, " "); got != "Status History Introspect" {
		t.Errorf("everyone may call %s", got)
	}
}
