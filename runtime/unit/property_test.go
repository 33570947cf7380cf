package unit

import (
	"slices"
	"strings"
	"testing"

	"github.com/proa-os/proa/runtime/store"
)

// TestOnceProperties: whatever flags ask of a unit's file can be asked of systemd without one.
func TestOnceProperties(t *testing.T) {
	swap := int64(2)
	c := &store.Container{Name: "web", Image: "a:1", Network: "bridge", PID: "container:db", Remove: true, Restart: "no", StopSignal: "SIGRTMIN+3", Memory: 1, MemorySwap: &swap, MemoryLow: 3,
		CPUs: 1.5, CPUShares: 1024, CPUSet: "0-2,9", MemSet: "0", BlkioWeight: 10, Pids: 5, NoLog: true, Devices: []store.Device{{Source: "/dev/kvm", Target: "/dev/kvm", Access: "rw"}},
		Health: &store.Health{Interval: 1}}
	for _, s := range []string{"IOReadBandwidthMax", "IOWriteBandwidthMax", "IOReadIOPSMax", "IOWriteIOPSMax"} {
		c.Rates = append(c.Rates, store.Rate{Setting: s, Device: "/dev/vda", Most: 7})
	}
	for _, privileged := range []bool{false, true} {
		c.Privileged = privileged
		got, err := properties(Once(c, "/bin/start web", "/bin/ended web"))
		if err != nil {
			t.Fatal(err)
		}
		names := map[string]any{}
		for _, p := range got {
			names[p.Name] = p.Value.Value()
		}
		for _, want := range []string{"MemoryLow", "AllowedMemoryNodes", "IOWeight", "IOReadBandwidthMax", "IOWriteIOPSMax", "CPUQuotaPerSecUSec", "KillSignal"} {
			if names[want] == nil {
				t.Errorf("%s is not asked for: %v", want, names)
			}
		}
		if names["KillSignal"] != int32(37) {
			t.Errorf("signal: %v", names["KillSignal"])
		}
		if m, _ := names["AllowedCPUs"].([]byte); !slices.Equal(m, []byte{7, 2}) {
			t.Errorf("processors: %v", m)
		}
		if r, _ := names["IOReadIOPSMax"].([]perDevice); len(r) != 1 || r[0] != (perDevice{"/dev/vda", 7}) {
			t.Errorf("rate: %v", r)
		}
	}
}

// TestLimits: each of them can be changed while a container runs, and the lack of one as well.
func TestLimits(t *testing.T) {
	for want, c := range map[string]*store.Container{"MemoryMax=1\nMemorySwapMax=1\nTasksMax=infinity\n": {Memory: 1}, "CPUQuota=150%\nTasksMax=7\n": {Pids: 7, CPUs: 1.5}} {
		got := Limits(c)
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		props, err := properties(got)
		if err != nil || len(props) < 2 {
			t.Errorf("%q: %v, %v", got, props, err)
		}
		for _, p := range props {
			if n, ok := p.Value.Value().(uint64); p.Name == "TasksMax" && (!ok || c.Pids == 0 && n != 1<<64-1) {
				t.Errorf("%q: %v", got, p)
			}
		}
	}
}

// TestCgroupSettings: what systemd would write into a unit's cgroup (systemd.resource-control(5)); limits of devices are left alone.
func TestCgroupSettings(t *testing.T) {
	swap := int64(3)
	k := &store.Container{Memory: 2, MemorySwap: &swap, MemoryLow: 1, CPUs: 1.5, CPUShares: 1024, CPUSet: "0-1", MemSet: "0", BlkioWeight: 1000,
		Rates: []store.Rate{{Setting: "IOReadIOPSMax", Device: "/dev/vda", Most: 7}}}
	got, err := Settings(Limits(k))
	var all []string
	for _, s := range got {
		all = append(all, s.File+"="+s.Value)
	}
	want := "memory.max=2 memory.swap.max=1 cpu.max=150000 100000 cpu.weight=100 cpuset.cpus=0-1 cpuset.mems=0 memory.low=1 io.weight=default 10000 pids.max=max"
	if err != nil || strings.Join(all, " ") != want {
		t.Errorf("%v\n%s, want\n%s", err, strings.Join(all, " "), want)
	}
}
