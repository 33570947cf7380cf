package ctl

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/proa-os/proa/internal/registrytest"
	"github.com/proa-os/proa/runtime/store"
	"github.com/proa-os/proa/runtime/unit"
)

// probeReady is a workload that gets ready after a while, says so and waits for its end; or ends without a word.
func probeReady(args []string) int {
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	if args[0] == "never" {
		return 4
	}
	time.Sleep(300 * time.Millisecond)
	if err := os.WriteFile("/data/ready", nil, 0o644); err != nil {
		fmt.Println(err)
		return 5
	}
	if socket := os.Getenv("NOTIFY_SOCKET"); socket != "" {
		conn, err := net.Dial("unixgram", socket)
		if err != nil {
			fmt.Println(err)
			return 6
		}
		for _, text := range []string{"STATUS=READY=1\nMAINPID=1", "A=b\nREADY=1\nSTATUS=up"} {
			if _, err := conn.Write([]byte(text)); err != nil {
				fmt.Println(err)
				return 7
			}
		}
	}
	<-end
	return 0
}

// declare is how a unit starts its container.
func declare(args ...string) []string {
	return append([]string{"declared", "--unit", "web.service", "--name", "systemd-web", "--network", "none", "--tls-verify=false"}, args...)
}

func TestDeclared(t *testing.T) {
	needContainers(t)
	m := bareMachine(t)
	m.pushProbe("KEY=value", "ready", "x")
	defer m.ctl("declared-stop", "systemd-web")
	t.Run("again", m.declaredAgain)
	t.Run("ready", m.declaredReady)
	t.Run("secret", m.declaredSecret)
	t.Run("updated", m.declaredUpdated)
	m.pushProbe("KEY=value", "ready", "x")
	t.Run("foreground", m.declaredForeground)
	t.Run("removed", m.declaredRemoved)
}

// pushProbe pushes an image of the probe with a health check, for which it gets healthy when it is ready.
func (m *machine) pushProbe(env string, cmd ...string) {
	m.t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		m.t.Fatal(err)
	}
	_, err = m.reg.Push("probe:1", registrytest.Image{
		Layers: [][]registrytest.File{{{Name: "probe", Body: string(self), Mode: 0o755}, {Name: "data/", Mode: 0o777}}},
		Config: v1.Config{Entrypoint: []string{"/probe"}, Cmd: cmd, Env: []string{env}, Healthcheck: &v1.HealthConfig{Test: []string{"CMD", "/probe", "exists", "/data/ready"}}},
	})
	if err != nil {
		m.t.Fatal(err)
	}
}

// Each start makes another container in the place of the last one, which people's commands see as any other.
func (m *machine) declaredAgain(t *testing.T) {
	find := func() view {
		t.Helper()
		var list []view
		if err := json.Unmarshal([]byte(m.must("inspect", "systemd-web")), &list); err != nil || len(list) != 1 {
			t.Fatalf("inspect: %v, %v", list, err)
		}
		return list[0]
	}
	m.must(declare("--label", "a=b", m.image(), "ready", "x")...)
	first := find()
	if first.Unit != "web.service" || first.Pid == 0 || first.Labels["a"] != "b" {
		t.Errorf("inspect: %+v", first)
	}
	if out := m.must("exec", "systemd-web", "/probe", "say", "hi"); !strings.HasPrefix(out, "hi systemd-web 0 value") {
		t.Errorf("exec: %q", out)
	}
	m.must("exec", "systemd-web", "/probe", "write", "/trace", "x")
	m.must("declared-stop", "systemd-web")
	m.mustFail("does not run", "exec", "systemd-web", "/probe", "say", "hi")
	m.must(declare(m.image(), "ready", "x")...)
	if v := find(); v.Pid == first.Pid || v.Labels["a"] != "" {
		t.Errorf("it is the last one: %+v", v)
	}
	if _, err := os.Stat(filepath.Join(m.dir, "store/containers/systemd-web/upper/trace")); err == nil {
		t.Error("files of the last run are there")
	}
	m.mustFail("belongs to web.service", "declared", "--unit", "other.service", "--name", "systemd-web", "--network", "none", m.image())
	m.mustFail("unknown flag --no-such-flag", declare("--no-such-flag", m.image())...)
	m.must("declared-stop", "systemd-web")
	m.must("declared-stop", "systemd-web")
}

// The starting process ends when the workload is ready, and not before.
func (m *machine) declaredReady(t *testing.T) {
	ready := filepath.Join(m.dir, "store/containers/systemd-web/upper/data/ready")
	for _, flags := range [][]string{{"--sdnotify", "container"}, {"--sdnotify", "container", "--user", "33:44"}, {"--sdnotify", "healthy", "--health-interval", "50ms"}} {
		m.must(declare(append(flags, m.image(), "ready", "x")...)...)
		if _, err := os.Stat(ready); err != nil {
			t.Errorf("%v: started before the workload was ready: %v", flags, err)
		}
		m.must("declared-stop", "systemd-web")
	}
	m.mustFail("ended before it said that it was ready", declare("--sdnotify", "container", m.image(), "ready", "never")...)
	m.mustFail("ended before it was healthy", declare("--sdnotify", "healthy", "--health-interval", "50ms", m.image(), "ready", "never")...)
	m.mustFail("there is no health check", declare("--sdnotify", "healthy", "--no-healthcheck", m.image(), "ready", "x")...)
}

// In the foreground it is a command: what a timer's unit of Type=oneshot runs.
func (m *machine) declaredForeground(t *testing.T) {
	if out := m.must(declare("--foreground", "--env", "KEY=mine", m.image(), "say", "done")...); !strings.HasPrefix(out, "done systemd-web 0 mine") {
		t.Errorf("got %q", out)
	}
	if _, errs, code := m.ctl(declare("--foreground", m.image(), "write", "/no/such/dir", "x")...); code != 3 {
		t.Errorf("exit %d, %s: want the workload's", code, errs)
	}
	out, errs, code := m.ctl(declare("--foreground", "--retry", "2", "--retry-delay", "1ms", m.reg.Addr+"/nothing:1")...)
	if code == 0 || strings.Count(errs, "trying again in 1ms") != 2 {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
	// Without its registry "newer" goes on with what is here.
	m.must(declare("--foreground", "--pull", "newer", m.image(), "say", "x")...)
	m.reg.Close()
	if _, errs, code := m.ctl(declare("--foreground", "--pull", "newer", m.image(), "say", "x")...); code != 0 || !strings.Contains(errs, "going on with the image that is here") {
		t.Errorf("exit %d: %s", code, errs)
	}
	m.mustFail("refused", declare("--foreground", "--pull", "always", m.image(), "say", "x")...)
}

// As long as its unit is there a declared container is not people's to remove.
func (m *machine) declaredRemoved(t *testing.T) {
	unitFile := filepath.Join(m.dir, "units/web.service")
	if err := os.WriteFile(unitFile, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	m.mustFail("is declared: it is the unit web.service", "rm", "systemd-web")
	if err := os.Remove(unitFile); err != nil {
		t.Fatal(err)
	}
	m.must("rm", "systemd-web")
	m.mustFail("", "inspect", "systemd-web")
}

// stated are units in given states.
type stated struct {
	Units
	states map[string]unit.Status
}

func (s stated) Status(context.Context, []string) (map[string]unit.Status, error) {
	return s.states, nil
}

// The health of the machine counts a declared container whose unit failed, and not one that is down or has done its work.
func TestDeclaredUp(t *testing.T) {
	c := &call{Env: &Env{Units: stated{states: map[string]unit.Status{
		"up.service": {Load: "loaded", Active: "active", Sub: "running"}, "failed.service": {Load: "loaded", Active: "failed", Sub: "failed"},
		"again.service": {Load: "loaded", Active: "activating", Sub: "auto-restart"}, "down.service": {Load: "loaded", Active: "inactive", Sub: "dead"},
		"done.service": {Load: "loaded", Active: "active", Sub: "exited"}, "gone.service": {Load: "not-found", Active: "inactive", Sub: "dead"},
	}}}}
	all := []*store.Container{{Name: "own"}}
	for _, n := range []string{"up", "failed", "again", "down", "done", "gone"} {
		all = append(all, &store.Container{Name: n, Unit: n + ".service"})
	}
	got, err := c.declaredUp(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"own": false, "up": true, "failed": true, "again": true, "down": false, "done": false, "gone": false} {
		if got[name] != want {
			t.Errorf("%s: got %t, want %t", name, got[name], want)
		}
	}
}
