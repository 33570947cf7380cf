package oci

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/godbus/dbus/v5"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/runtime/cgroup"
)

// privateBus runs a bus of its own and makes it the system bus of what the test starts.
func privateBus(t *testing.T) *dbus.Conn {
	t.Helper()
	address := testenv.Bus(t, testenv.OpenPolicy, "")
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
	conn, err := dbus.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// fakeManager is as much of systemd as makes scopes: a directory in each hierarchy.
type fakeManager struct {
	conn    *dbus.Conn
	h       cgroup.Hierarchies
	parent  string // path of the slices
	mu      sync.Mutex
	jobs    uint32
	scopes  map[string]map[string]dbus.Variant
	stopped []string
	result  string
}

type property struct {
	Name  string
	Value dbus.Variant
}

type auxiliary struct {
	Name string
	List []property
}

const managerName = "org.freedesktop.systemd1.Manager"

func (f *fakeManager) job(unit string) dbus.ObjectPath {
	f.jobs++
	job := dbus.ObjectPath(fmt.Sprintf("/org/freedesktop/systemd1/job/%d", f.jobs))
	n := f.jobs
	go f.conn.Emit("/org/freedesktop/systemd1", managerName+".JobRemoved", n, job, unit, f.result)
	return job
}

// StartTransientUnit is the manager's method.
func (f *fakeManager) StartTransientUnit(name, _ string, list []property, _ []auxiliary) (dbus.ObjectPath, *dbus.Error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := make(map[string]dbus.Variant)
	for _, p := range list {
		all[p.Name] = p.Value
	}
	f.scopes[name] = all
	for _, top := range []string{f.h.Unified, f.h.V1["name=systemd"]} {
		if top == "" {
			continue
		}
		dir := filepath.Join(top, f.parent, all["Slice"].Value().(string), name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return "", dbus.MakeFailedError(err)
		}
		for _, pid := range all["PIDs"].Value().([]uint32) {
			if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(int(pid))), 0); err != nil {
				return "", dbus.MakeFailedError(err)
			}
		}
	}
	return f.job(name), nil
}

// StopUnit is the manager's method.
func (f *fakeManager) StopUnit(name, _ string) (dbus.ObjectPath, *dbus.Error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.scopes[name] == nil {
		return "", dbus.NewError("org.freedesktop.systemd1.NoSuchUnit", []any{"no such unit"})
	}
	delete(f.scopes, name)
	f.stopped = append(f.stopped, name)
	return f.job(name), nil
}

// SetUnitProperties is the manager's method.
func (f *fakeManager) SetUnitProperties(name string, _ bool, list []property) *dbus.Error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range list {
		f.scopes[name][p.Name] = p.Value
	}
	return nil
}

// TestSystemdCgroup: the group is a scope that systemd has made with the first process in it; limits are told to both.
func TestSystemdCgroup(t *testing.T) {
	b := newBox(t)
	h, err := cgroup.Find()
	if err != nil {
		t.Skip("NOT TESTED: ", err)
	}
	conn := privateBus(t)
	f := &fakeManager{conn: conn, h: h, parent: fmt.Sprintf("/proa-test-sd-%d", os.Getpid()), scopes: map[string]map[string]dbus.Variant{}, result: "done"}
	defer removeGroups(f.parent)
	if err := conn.Export(f, "/org/freedesktop/systemd1", managerName); err != nil {
		t.Fatal(err)
	}
	if r, err := conn.RequestName("org.freedesktop.systemd1", 0); err != nil || r != dbus.RequestNameReplyPrimaryOwner {
		t.Fatalf("%v %v", r, err)
	}
	b.spec.Linux.CgroupsPath = "machine.slice:test:box"
	shares := uint64(512)
	b.spec.Linux.Resources = &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}}
	if h.V1["cpu"] != "" {
		b.spec.Linux.Resources.CPU = &specs.LinuxCPU{Shares: &shares}
	}
	b.spec.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/kmsg", Type: "c", Major: 1, Minor: 11}}
	b.spec.Annotations = map[string]string{"org.systemd.property.TimeoutStopSec": "2", "org.systemd.property.KillSignal": "37", "other": "x",
		"org.systemd.property.After": "['one.service', \"two.service\"]", "org.systemd.property.MemoryMax": "uint64 12345678", "org.systemd.property.Delegate": "false"}
	b.do("open=/dev/kmsg", "cat=/proc/self/cgroup")
	b.write()
	must := func(args ...string) string {
		t.Helper()
		out, errs, code := b.runtime(append([]string{"--systemd-cgroup"}, args...)...)
		if code != 0 {
			t.Fatalf("%v: %d %s", args, code, errs)
		}
		return out
	}
	if out := must("run", "box"); !strings.Contains(out, "open /dev/kmsg: operation not permitted") || (h.Unified != "" && !strings.Contains(out, "0::/\n")) {
		t.Error(out)
	}
	b.leftNothing()
	if strings.Join(f.stopped, " ") != "test-box.scope" {
		t.Errorf("stopped %v", f.stopped)
	}
	b.do("sleep")
	b.write()
	must("run", "-d", "box")
	f.mu.Lock()
	p := f.scopes["test-box.scope"]
	f.mu.Unlock()
	if p["Slice"].Value() != "machine.slice" || p["Delegate"].Value() != false || p["TimeoutStopUSec"].Value() != uint64(2e6) || p["KillSignal"].Value() != int32(37) ||
		p["MemoryMax"].Value() != uint64(12345678) || fmt.Sprint(p["After"].Value()) != "[one.service two.service]" || (h.V1["cpu"] != "" && p["CPUWeight"].Value() != uint64(59)) {
		t.Errorf("%v", p)
	}
	at, err := cgroup.PathOf(b.pid())
	if want := f.parent + "/machine.slice/test-box.scope"; err != nil || at != want {
		t.Errorf("%s %v, want %s", at, err, want)
	}
	must("exec", "-d", "box", "/probe", "sleep")
	var list []int
	if err := json.Unmarshal([]byte(must("ps", "-f", "json", "box")), &list); err != nil || len(list) != 2 {
		t.Errorf("%v %v", err, list)
	}
	if h.V1["cpu"] != "" {
		must("update", "--cpu-share", "1024", "box")
		if p["CPUWeight"].Value() != uint64(100) {
			t.Errorf("%v", p)
		}
	}
	must("delete", "-f", "box")
	must("delete", "-f", "box")

	f.result = "failed"
	if _, errs, code := b.runtime("--systemd-cgroup", "run", "box"); code != 1 || !strings.Contains(errs, "linux.cgroupsPath: make scope test-box.scope: systemd says failed") {
		t.Errorf("%d %s", code, errs)
	}
	b.leftNothing()
	b.spec.Linux.CgroupsPath = "/a/path"
	b.write()
	if _, errs, code := b.runtime("--systemd-cgroup", "run", "box"); code != 1 || !strings.Contains(errs, "want slice:prefix:name") {
		t.Errorf("%d %s", code, errs)
	}
}
