package cgroup

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The test binary is also a process in a group that opens devices.
func TestMain(m *testing.M) {
	if os.Getenv("OPEN_DEVICES") != "" {
		for _, f := range []string{"/dev/null", "/dev/zero", "/dev/kmsg", "/dev/loop-control"} {
			for mode, flags := range map[string]int{"r": unix.O_RDONLY, "w": unix.O_WRONLY} {
				fd, err := unix.Open(f, flags|unix.O_NONBLOCK, 0)
				unix.Close(fd)
				fmt.Printf("%s %s %v\n", f, mode, err == unix.EPERM)
			}
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestSettingsV1(t *testing.T) {
	for _, c := range []struct{ resources, want string }{
		{`{}`, ""},
		{`{"memory":{"limit":1000,"reservation":500,"swap":1500,"kernel":5,"kernelTCP":6,"swappiness":10,"disableOOMKiller":true,"useHierarchy":true}}`,
			"memory.limit_in_bytes=1000 memory.memsw.limit_in_bytes=1500 memory.soft_limit_in_bytes=500 memory.kmem.limit_in_bytes=5 memory.kmem.tcp.limit_in_bytes=6 memory.swappiness=10 memory.oom_control=1 memory.use_hierarchy=1"},
		{`{"cpu":{"shares":1024,"quota":50000,"period":100000,"burst":7,"realtimeRuntime":5,"realtimePeriod":6,"cpus":"0-1","mems":"0"}}`,
			"cpu.shares=1024 cpu.cfs_period_us=100000 cpu.cfs_quota_us=50000 cpu.cfs_burst_us=7 cpu.rt_period_us=6 cpu.rt_runtime_us=5 cpuset.cpus=0-1 cpuset.mems=0"},
		{`{"memory":{"limit":-1}}`, "memory.limit_in_bytes=-1 memory.memsw.limit_in_bytes=-1"},
		{`{"pids":{"limit":-1}}`, "pids.max=max"},
		{`{"blockIO":{"weight":10,"leafWeight":20,"weightDevice":[{"major":8,"minor":1,"weight":30,"leafWeight":40}],"throttleReadBpsDevice":[{"major":8,"minor":1,"rate":100}],"throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":0}]}}`,
			"blkio.weight=10 blkio.leaf_weight=20 blkio.weight_device=8:1 30 blkio.leaf_weight_device=8:1 40 blkio.throttle.read_bps_device=8:1 100 blkio.throttle.write_iops_device=8:0 0"},
		{`{"hugepageLimits":[{"pageSize":"2MB","limit":4}]}`, "hugetlb.2MB.limit_in_bytes=4 hugetlb.2MB.rsvd.limit_in_bytes=4"},
		{`{"hugepageLimits":[{"pageSize":"a/b","limit":4}]}`, "!hugepageLimits[0].pageSize"},
		{`{"rdma":{"mlx5":{"hcaHandles":3,"hcaObjects":4}}}`, "rdma.max=mlx5 hca_handle=3 hca_object=4"},
		{`{"network":{"classID":1048577,"priorities":[{"name":"eth0","priority":5}]}}`, "net_cls.classid=1048577 net_prio.ifpriomap=eth0 5"},
		{`{"unified":{"memory.high":"5"}}`, "!linux.resources.unified is not supported"},
		{`{"devices":[{"allow":true,"access":"rq"}]}`, "!linux.resources.devices[0]: access"},
	} {
		var r specs.LinuxResources
		if err := json.Unmarshal([]byte(c.resources), &r); err != nil {
			t.Fatal(err)
		}
		l, err := SettingsV1(&r)
		if want, bad := strings.CutPrefix(c.want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: error %v, want %q", c.resources, err, want)
			}
			continue
		}
		var got []string
		for _, s := range l {
			got = append(got, s.File+"="+s.Value)
		}
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%s: %q %v, want %q", c.resources, got, err, c.want)
		}
	}
	one, three := int64(1), int64(3)
	l, err := SettingsV1(&specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}, {Allow: true, Type: "c", Major: &one, Minor: &three, Access: "rw"}, {Type: "b", Access: "m"}}})
	if err != nil || len(l) < 4 || l[0].File != "devices.deny" || l[0].Value != "a *:* rwm" || l[1].File != "devices.allow" || l[1].Value != "c 1:3 rw" || l[2].Value != "b *:* m" {
		t.Errorf("%v %v", l, err)
	}
	if got := WithoutDevices(l); len(got) != 0 {
		t.Error(got)
	}
}

func TestHierarchies(t *testing.T) {
	got := parseMountinfo(`31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
34 31 0:31 /docker/1 /elsewhere/memory rw - cgroup cgroup rw,memory
35 31 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
36 31 0:31 / /again rw - cgroup cgroup rw,memory
37 31 0:32 / /sys/fs/cgroup/unified rw shared:7 - cgroup2 cgroup2 rw
`)
	const top = "/sys/fs/cgroup/"
	want := Hierarchies{top + "unified", map[string]string{"cpu": top + "cpu,cpuacct", "cpuacct": top + "cpu,cpuacct", "name=systemd": top + "systemd", "memory": top + "memory"}}
	if !reflect.DeepEqual(got, want) || !got.Old() {
		t.Errorf("%+v", got)
	}
	if h := (Hierarchies{V1: map[string]string{"name=systemd": "x"}}); h.Old() {
		t.Error("a hierarchy without controllers sets no limits")
	}
}

func TestSettings(t *testing.T) {
	for _, c := range []struct{ resources, want string }{
		{`{}`, ""},
		{`{"memory":{"limit":1000,"reservation":500,"swap":1500}}`, "memory.swap.max=500 memory.max=1000 memory.low=500"},
		{`{"memory":{"limit":-1,"swap":-1}}`, "memory.swap.max=max memory.max=max"},
		{`{"memory":{"swap":10}}`, "!memory.swap: needs memory.limit"},
		{`{"memory":{"swap":10,"limit":11}}`, "!memory.swap: 10 is below"},
		{`{"memory":{"swappiness":10}}`, "!linux.resources.memory.swappiness is not supported"},
		{`{"memory":{"kernel":10}}`, "!linux.resources.memory.kernel is not supported"},
		{`{"memory":{"disableOOMKiller":true}}`, "!linux.resources.memory.disableOOMKiller is not supported"},
		{`{"memory":{"disableOOMKiller":false,"kernel":0}}`, ""},
		{`{"cpu":{"shares":1024,"quota":50000,"period":100000,"cpus":"0-1","mems":"0"}}`, "cpu.weight=100 cpu.max=50000 100000 cpuset.cpus=0-1 cpuset.mems=0"},
		{`{"cpu":{"quota":-1}}`, "cpu.max=max"},
		{`{"cpu":{"quota":1000,"burst":500}}`, "cpu.max=1000 cpu.max.burst=500"},
		{`{"cpu":{"period":5000}}`, "cpu.max=max 5000"},
		{`{"cpu":{"idle":1,"shares":5}}`, "cpu.idle=1"},
		{`{"cpu":{"realtimeRuntime":5}}`, "!linux.resources.cpu.realtimeRuntime is not supported"},
		{`{"pids":{"limit":-1}}`, "pids.max=max"},
		{`{"pids":{"limit":0}}`, "pids.max=1"},
		{`{"pids":{"limit":5}}`, "pids.max=5"},
		{`{"blockIO":{"weight":10,"throttleReadBpsDevice":[{"major":8,"minor":1,"rate":100}],"throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":0}]}}`,
			"io.weight=1 io.max=8:1 rbps=100 io.max=8:0 wiops=max"},
		{`{"blockIO":{"weight":1000,"weightDevice":[{"major":8,"minor":1,"weight":10}]}}`, "io.weight=10000 io.weight=8:1 1"},
		{`{"blockIO":{"weight":5}}`, "!blockIO.weight: want 10 to 1000"},
		{`{"hugepageLimits":[{"pageSize":"2MB","limit":4}]}`, "hugetlb.2MB.max=4 hugetlb.2MB.rsvd.max=4"},
		{`{"hugepageLimits":[{"pageSize":"../x","limit":4}]}`, "!hugepageLimits[0].pageSize"},
		{`{"rdma":{"mlx5":{"hcaHandles":3}}}`, "rdma.max=mlx5 hca_handle=3"},
		{`{"network":{"classID":1}}`, "!linux.resources.network is not supported"},
		{`{"unified":{"memory.high":"5","io.max":"8:0 rbps=1\n8:1 rbps=2"}}`, "io.max=8:0 rbps=1 io.max=8:1 rbps=2 memory.high=5"},
		{`{"unified":{"../x.y":"5"}}`, `!"../x.y" is no file`},
		{`{"unified":{"cgroup.procs":"5"}}`, `!"cgroup.procs" is no file`},
	} {
		var r specs.LinuxResources
		if err := json.Unmarshal([]byte(c.resources), &r); err != nil {
			t.Fatal(err)
		}
		l, err := Settings(&r)
		if want, bad := strings.CutPrefix(c.want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: error %v, want %q", c.resources, err, want)
			}
			continue
		}
		var got []string
		for _, s := range l {
			got = append(got, s.File+"="+s.Value)
			if s.Value == "max" && !s.Optional {
				t.Errorf("%s: %s needs a controller to have no limit", c.resources, s.File)
			}
			if !strings.HasPrefix(s.Field, "linux.resources.") {
				t.Errorf("%s: field %q", c.resources, s.Field)
			}
		}
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%s: %q %v, want %q", c.resources, got, err, c.want)
		}
	}
}

func TestWeight(t *testing.T) {
	for shares, want := range map[uint64]uint64{0: 1, 2: 1, 1024: 100, 262144: 10000, 1 << 40: 10000} {
		if got := Weight(shares); got != want {
			t.Errorf("%d: %d, want %d", shares, got, want)
		}
	}
}

func TestControllers(t *testing.T) {
	got := Controllers([]Setting{{File: "memory.max"}, {File: "memory.low"}, {File: "io.max"}, {File: "cgroup.x"}})
	if !slices.Equal(got, []string{"memory", "io"}) {
		t.Error(got)
	}
}

func group(t *testing.T) Group {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: groups need root; the stories in qemu-tests cover them")
	}
	h, err := Find()
	if err != nil || h.Unified == "" {
		t.Skip("NOT TESTED: no cgroup2 file system is mounted")
	}
	g, err := Make(fmt.Sprintf("/proa-test-%d/%s", os.Getpid(), t.Name()), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		up := Group{Dir: filepath.Dir(g.Dir), V1: map[string]string{}}
		for c, dir := range g.V1 {
			up.V1[c] = filepath.Dir(dir)
		}
		if err := up.Remove(); err != nil {
			t.Error(err)
		}
	})
	return g
}

// TestOtherFile: a setting goes to its other file where the kernel has no first one.
func TestOtherFile(t *testing.T) {
	dir := t.TempDir()
	weight, other := filepath.Join(dir, "io.weight"), filepath.Join(dir, "io.bfq.weight")
	ten := uint16(10)
	list, err := Settings(&specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: &ten, WeightDevice: []specs.LinuxWeightDevice{{}}}})
	if err == nil {
		t.Error("a device without a weight is taken")
	}
	list, err = Settings(&specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: &ten}})
	if err != nil {
		t.Fatal(err)
	}
	g := Group{Dir: dir}
	if err := g.Set(list); err == nil || !strings.Contains(err.Error(), "the controller of io.weight is not available") {
		t.Errorf("without both: %v", err)
	}
	for _, c := range []struct{ file, want string }{{other, "10"}, {weight, "1"}} {
		if err := os.WriteFile(c.file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := g.Set(list); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(c.file); string(got) != c.want {
			t.Errorf("%s: %q, want %s", c.file, got, c.want)
		}
	}
}

// TestQuota: a group's quota is what a new period is written with.
func TestQuota(t *testing.T) {
	g := Group{Dir: t.TempDir()}
	for _, c := range []struct {
		text string
		want int64
	}{{"", 0}, {"max 100000\n", 0}, {"5000 100000\n", 5000}} {
		if c.text != "" {
			if err := os.WriteFile(filepath.Join(g.Dir, "cpu.max"), []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		got, err := g.Quota()
		if err != nil || (got == nil) != (c.want == 0) || got != nil && *got != c.want {
			t.Errorf("%q: %v %v", c.text, got, err)
		}
	}
	if got, err := (Group{Dir: g.Dir, V1: map[string]string{"cpu": "/x"}}).Quota(); got != nil || err != nil {
		t.Errorf("hybrid: %v %v", got, err)
	}
}

// inside runs a command in the group.
func inside(t *testing.T, g Group, c *exec.Cmd) {
	t.Helper()
	f, err := g.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	c.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(f.Fd())}
}

// TestDevices: the kernel decides as the rules say.
func TestDevices(t *testing.T) {
	one, eleven := int64(1), int64(11)
	for name, c := range map[string]struct {
		rules []specs.LinuxDeviceCgroup
		kmsg  [2]bool // refused to read, to write
	}{
		"deny all":         {[]specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}, [2]bool{true, true}},
		"allow one":        {[]specs.LinuxDeviceCgroup{{Allow: false}, {Allow: true, Type: "c", Major: &one, Minor: &eleven, Access: "rwm"}}, [2]bool{false, false}},
		"allow to read":    {[]specs.LinuxDeviceCgroup{{Allow: false}, {Allow: true, Type: "c", Major: &one, Access: "r"}}, [2]bool{false, true}},
		"deny to write":    {[]specs.LinuxDeviceCgroup{{Allow: true, Type: "a", Access: "rwm"}, {Allow: false, Type: "c", Major: &one, Minor: &eleven, Access: "w"}}, [2]bool{false, true}},
		"the last decides": {[]specs.LinuxDeviceCgroup{{Allow: true, Type: "c", Major: &one, Minor: &eleven, Access: "rwm"}, {Allow: false, Type: "a"}}, [2]bool{true, true}},
		"other type":       {[]specs.LinuxDeviceCgroup{{Allow: false}, {Allow: true, Type: "b", Major: &one, Minor: &eleven, Access: "rwm"}}, [2]bool{true, true}},
	} {
		t.Run(name, func(t *testing.T) {
			g := group(t)
			program, err := DeviceProgram(c.rules)
			if err != nil {
				t.Fatal(err)
			}
			dir, err := g.Open()
			if err != nil {
				t.Fatal(err)
			}
			defer dir.Close()
			if err := SetDevices(dir, program); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = []string{"OPEN_DEVICES=1"}
			inside(t, g, cmd)
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			for i, mode := range []string{"r", "w"} {
				for file, want := range map[string]bool{"/dev/null": false, "/dev/zero": false, "/dev/kmsg": c.kmsg[i]} {
					if line := fmt.Sprintf("%s %s %v\n", file, mode, want); !strings.Contains(string(out), line) {
						t.Errorf("want %q in\n%s", line, out)
					}
				}
			}
		})
	}
}

func TestDeviceProgramRefuses(t *testing.T) {
	big := int64(1) << 40
	for want, r := range map[string]specs.LinuxDeviceCgroup{"type": {Type: "x"}, "access": {Access: "rq"}, "major": {Major: &big}} {
		if _, err := DeviceProgram([]specs.LinuxDeviceCgroup{{}, r}); err == nil || !strings.Contains(err.Error(), "devices[1]: "+want) {
			t.Errorf("%+v: %v", r, err)
		}
	}
}

func TestFreezeAndRemove(t *testing.T) {
	g := group(t)
	c := exec.Command("/bin/sleep", "100")
	inside(t, g, c)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if pids, err := g.Pids(); err != nil || !slices.Equal(pids, []int{c.Process.Pid}) {
		t.Errorf("%v %v", pids, err)
	}
	if err := g.Freeze(true); err != nil || !g.Frozen() {
		t.Errorf("freeze: %v", err)
	}
	if _, err := Make(fmt.Sprintf("/proa-test-%d/%s", os.Getpid(), t.Name()), nil); err == nil {
		t.Error("a group with processes is taken")
	}
	if err := os.Mkdir(filepath.Join(g.Dir, "cold"), 0o755); err != nil {
		t.Fatal(err)
	}
	cold := fmt.Sprintf("/proa-test-%d/%s/cold", os.Getpid(), t.Name())
	if err := (Group{Dir: filepath.Join(g.Dir, "cold")}).Freeze(true); err != nil {
		t.Fatal(err)
	}
	if _, err := Make(cold, nil); err == nil || !strings.Contains(err.Error(), "cold is frozen: thaw it") {
		t.Errorf("a frozen group: %v", err)
	}
	done := make(chan error)
	go func() { done <- c.Wait() }()
	if err := os.Mkdir(filepath.Join(g.Dir, "below"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := g.Remove(); err != nil {
		t.Error(err)
	}
	<-done
	if _, err := os.Stat(g.Dir); err == nil {
		t.Error("the group is still there")
	}
}
