package ctl

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/runtime/cgroup"
	"github.com/proa-os/proa/runtime/store"
)

// TestRevise: what is named changes, what is not stays, and what does not go together is refused.
func TestRevise(t *testing.T) {
	swap := int64(1 << 30)
	was := store.Container{Name: "web", Restart: "on-failure", Restarts: 3, Memory: 1 << 20, MemorySwap: &swap, CPUs: 1.5, Pids: 7, CPUShares: 5, CPUSet: "0"}
	for _, c := range []struct {
		given []string
		want  func(*store.Container)
	}{
		{[]string{"--memory=2m"}, func(k *store.Container) { k.Memory = 2 << 20 }},
		{[]string{"--pids-limit=-1"}, func(k *store.Container) { k.Pids = 0 }},
		{[]string{"--cpu-quota=50000", "--cpu-shares=9"}, func(k *store.Container) { k.CPUs, k.CPUShares = 0.5, 9 }},
		{[]string{"--restart=always", "--cpuset-cpus=0-1"}, func(k *store.Container) { k.Restart, k.Restarts, k.CPUSet = "always", 0, "0-1" }},
	} {
		got, want := was, was
		c.want(&want)
		restart, err := revise(&got, c.given)
		if want.MemorySwap = got.MemorySwap; err != nil || got.Memory != want.Memory || got.Pids != want.Pids || got.CPUs != want.CPUs || got.CPUShares != want.CPUShares ||
			got.Restart != want.Restart || got.Restarts != want.Restarts || got.CPUSet != want.CPUSet || *got.MemorySwap != swap || restart != (want.Restart != "on-failure") {
			t.Errorf("%q: %v\n%+v, want\n%+v", c.given, err, got, want)
		}
	}
	for want, k := range map[string]store.Container{"removed when it ends": {Remove: true}, "is declared": {Unit: "a.service"}, "change both": {MemorySwap: &swap}} {
		if _, err := revise(&k, []string{"--restart=always", "--memory=2g"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

// TestEnforce: limits get into the files of a cgroup; what a cgroup has no controller for is told, and the rest still counts.
func TestEnforce(t *testing.T) {
	g := cgroup.Group{Dir: t.TempDir()}
	for _, f := range []string{"memory.max", "pids.max"} {
		if err := os.WriteFile(filepath.Join(g.Dir, f), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	err := enforce(&store.Container{Name: "web", Memory: 5, CPUSet: "0", Pids: 9}, g)
	if err == nil || !strings.Contains(err.Error(), "web runs on without it until its next start: AllowedCPUs: the controller of cpuset.cpus is not available") || strings.Count(err.Error(), "runs on") != 1 {
		t.Errorf("without cpuset: %v", err)
	}
	for f, want := range map[string]string{"memory.max": "5", "pids.max": "9"} {
		if b, err := os.ReadFile(filepath.Join(g.Dir, f)); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", f, b, err)
		}
	}
}

// TestUpdate: limits reach the unit, of whatever kind it is, and the container's later runs.
func TestUpdate(t *testing.T) {
	needContainers(t)
	m := newMachine(t)
	m.must("create", "--name", "web", "--memory", "9m", "--tls-verify=false", "--network", "none", m.image(), "sleep")
	m.must("update", "--pids-limit", "9", "web")
	m.must("start", "web")
	file, wants := filepath.Join(m.dir, "units/proa-web.service"), filepath.Join(m.dir, "units/multi-user.target.wants/proa-web.service")
	has := func(lines ...string) {
		t.Helper()
		b, err := os.ReadFile(file)
		for _, l := range lines {
			if err != nil || !strings.Contains(string(b), "\n"+l+"\n") {
				t.Errorf("want %s in %v\n%s", l, err, b)
			}
		}
	}
	has("MemoryMax=9437184", "TasksMax=9", "Restart=no")
	m.must("container", "update", "-m", "8m", "--cpus", "1.5", "--restart", "unless-stopped", "web")
	has("MemoryMax=8388608", "TasksMax=9", "CPUQuota=150%", "Restart=always")
	if _, err := os.Lstat(wants); err != nil {
		t.Errorf("it does not start at boot: %v", err)
	}
	m.must("update", "--restart", "no", "web")
	has("Restart=no", "MemoryMax=8388608")
	if _, err := os.Lstat(wants); err == nil {
		t.Error("it starts at boot")
	}
	m.mustFail("say what is to change", "update", "web")
	m.mustFail(`flag --memory "x": want a size`, "update", "--memory", "x", "web")
	m.mustFail("unknown flag", "update", "--oom-score-adj", "1", "web")
	m.mustFail("no such container", "update", "--memory", "1m", "wbe")
	m.must("rm", "-f", "web")

	e := testEnv(m.dir)
	b := begin(t, e, "run", "--rm", "--network", "none", "--name", "fg", m.image(), "sleep")
	for deadline := time.Now().Add(20 * time.Second); b.says() == "" && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	m.must("update", "--memory", "7m", "fg")
	if got := m.mgr.Given("proa-fg.service", "MemoryMax"); got != "7340032" {
		t.Errorf("systemd was told of %q", got)
	}
	if out := m.must("inspect", "--format", "{{.memory}}", "fg"); out != "7340032\n" {
		t.Errorf("inspect: %q", out)
	}
	m.mustFail("removed when it ends", "update", "--restart", "always", "fg")
	m.must("kill", "fg")
	<-b.ended
	m.left(t)
}
