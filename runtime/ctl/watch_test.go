package ctl

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/proa-os/proa/internal/registrytest"
	"github.com/proa-os/proa/runtime/image"
	"github.com/proa-os/proa/runtime/store"
)

func TestHealthNote(t *testing.T) {
	bad := errors.New("bad")
	say := &store.Health{Retries: 2, Start: time.Minute}
	h := &healthState{Status: "starting"}
	for i, c := range []struct {
		failure error
		age     time.Duration
		want    string
	}{
		{bad, time.Second, "starting"}, {bad, time.Second, "starting"}, {bad, time.Second, "starting"}, // the start period
		{bad, 2 * time.Minute, "starting"}, {nil, 2 * time.Minute, "healthy"}, {bad, time.Second, "healthy"}, {bad, time.Second, "unhealthy"},
		{bad, time.Hour, "unhealthy"}, {nil, time.Hour, "healthy"},
	} {
		h.note(say, time.Unix(int64(i), 0), time.Second, c.failure, c.age)
		if h.Status != c.want {
			t.Errorf("%d: %s, want %s", i, h.Status, c.want)
		}
	}
	if len(h.Log) != 5 || h.Log[4].Reason != "" || h.Log[3].Reason != "bad" {
		t.Errorf("log %+v", h.Log)
	}
}

func TestHealthOf(t *testing.T) {
	img := new(image.Config)
	img.Config.Healthcheck = &image.Healthcheck{Test: []string{"CMD", "ok"}, Interval: time.Second, Retries: 9}
	r := newRunFlags()
	r.health.Retries = 2
	h, err := healthOf(r, img)
	if err != nil || h.Interval != time.Second || h.Retries != 2 || h.Timeout != 30*time.Second || !slices.Equal(h.Command, []string{"ok"}) {
		t.Errorf("%+v, %v", h, err)
	}
	r.healthCmd = "mine"
	if h, err = healthOf(r, img); err != nil || h.Interval != 30*time.Second || h.Command[2] != "mine" {
		t.Errorf("%+v, %v", h, err)
	}
	r.healthCmd = `["/x","y z"]`
	if h, err = healthOf(r, img); err != nil || !slices.Equal(h.Command, []string{"/x", "y z"}) {
		t.Errorf("%+v, %v", h, err)
	}
	r.healthCmd = "none"
	if h, err = healthOf(r, img); err != nil || h != nil {
		t.Errorf("%+v, %v", h, err)
	}
}

// TestHealthTimer: a container that has become ill is restarted, and told of, without a process of ours.
func TestHealthTimer(t *testing.T) {
	needContainers(t)
	m := bareMachine(t)
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	_, err = m.reg.Push("probe:1", registrytest.Image{
		Layers: [][]registrytest.File{{{Name: "probe", Body: string(self), Mode: 0o755}, {Name: "data/", Mode: 0o777}}},
		Config: v1.Config{Entrypoint: []string{"/probe"}, Healthcheck: &v1.HealthConfig{Test: []string{"CMD", "/probe", "exists", "/data/well"}, Interval: 100 * time.Millisecond, Retries: 2}},
	})
	if err != nil {
		t.Fatal(err)
	}
	m.must("run", "-d", "--tls-verify=false", "--network", "none", "--name", "ill", "--health-on-failure", "restart", m.image(), "sleep")
	first := m.inspect("ill")
	if first.Healthy == nil || first.Healthy.Status == "healthy" {
		t.Errorf("it begins as %+v", first.Healthy)
	}
	m.until("ill", "started again", func(v inspected) bool { return v.Pid != 0 && v.Pid != first.Pid })
	m.until("ill", "healthy", func(v inspected) bool {
		m.ctl("exec", "ill", "/probe", "write", "/data/well", "x") // it may be restarted at this moment
		return v.Healthy != nil && v.Healthy.Status == "healthy"
	})
	if out := m.must("ps"); !strings.Contains(out, "(healthy)") {
		t.Errorf("ps:\n%s", out)
	}
	if out := m.must("health"); out != "" {
		t.Errorf("health: %s", out)
	}
	m.must("rm", "-f", "ill")
}

// TestStats: stats and top tell of the workload.
func TestStats(t *testing.T) {
	needContainers(t)
	m := newMachine(t)
	m.must("run", "-d", "--tls-verify=false", "--network", "none", "--name", "web", m.image(), "sleep")
	defer m.ctl("rm", "-f", "web")
	var list []usage
	if err := json.Unmarshal([]byte(m.must("stats", "--no-stream", "--json")), &list); err != nil || len(list) != 1 || list[0].Name != "web" {
		t.Errorf("stats: %v %+v", err, list)
	}
	var ps []process
	if err := json.Unmarshal([]byte(m.must("top", "web", "--json")), &ps); err != nil || len(ps) != 1 || ps[0].Inside != 1 || ps[0].Command != "/probe sleep" || ps[0].RSS == 0 {
		t.Errorf("top: %v %+v", err, ps)
	}
	m.mustFail("no such container", "stats", "--no-stream", "web", "other")
}

func TestReadUsage(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"cpu.stat": "usage_usec 1500000\nuser_usec 1\n", "memory.current": "4096\n", "memory.max": "max\n", "pids.current": "3\n",
		"io.stat": "254:0 rbytes=10 wbytes=20 rios=1\n254:16 rbytes=1 wbytes=2\n", "memory.events": "low 0\noom 3\noom_kill 2\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := readUsage(dir), (usage{CPUTime: 1.5, Memory: 4096, Pids: 3, Read: 11, Written: 22}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if n, err := cgroupNumber(filepath.Join(dir, "memory.events"), "oom_kill"); n != 2 || err != nil {
		t.Errorf("oom_kill: %d, %v", n, err)
	}
}

// TestRemoveWhileTried: a check that writes its outcome at that moment does not keep a container from being removed.
func TestRemoveWhileTried(t *testing.T) {
	e := testEnv(t.TempDir())
	k := &store.Container{Name: "x", Health: &store.Health{}}
	for range 100 {
		if err := os.MkdirAll(e.bundle("x"), 0o711); err != nil {
			t.Fatal(err)
		}
		tried := make(chan struct{})
		go func() {
			defer close(tried)
			for e.writeHealth(k, &healthState{}) == nil {
			}
		}()
		for !isFile(e.healthFile(k)) {
		}
		if err := e.removeBundle("x"); err != nil {
			t.Fatal(err)
		}
		<-tried
	}
}

func isFile(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
