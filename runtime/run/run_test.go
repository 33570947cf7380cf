package run

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/script"
	"github.com/proa-os/proa/runtime/spec"
)

// The test binary walks a script from standard input when it is told to.
func TestMain(m *testing.M) {
	if os.Getenv("WALK_SCRIPT") != "" {
		p, err := script.Load(os.Stdin)
		if err == nil {
			err = p.Run()
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
	os.Exit(m.Run())
}

// TestLabels: what the workload is to be labelled with arrives in the files of proc_pid_attr(5). No security module is needed for
// that: a directory stands for /proc.
func TestLabels(t *testing.T) {
	dir := t.TempDir()
	for _, f := range []string{"thread-self/attr/exec", "thread-self/attr/apparmor/exec"} {
		file := filepath.Join(dir, f)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p := &plan{Builder: new(script.Builder), process: &specs.Process{SelinuxLabel: "system_u:system_r:container_t:s0:c1,c2", ApparmorProfile: "profile"}}
	p.labels = p.Call("open", unix.SYS_OPENAT, unix.AT_FDCWD, dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	p.setLabels()
	p.Call("end", unix.SYS_EXIT_GROUP, 0)
	var buf bytes.Buffer
	if _, err := p.Finish(2).WriteTo(&buf); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("/proc/self/exe")
	c.Stdin, c.Env = &buf, []string{"WALK_SCRIPT=1"}
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v %q", err, out)
	}
	for f, want := range map[string]string{"exec": p.process.SelinuxLabel, "apparmor/exec": "exec profile"} {
		if b, err := os.ReadFile(filepath.Join(dir, "thread-self/attr", f)); err != nil || string(b) != want {
			t.Errorf("%s: %q %v, want %q", f, b, err, want)
		}
	}
}

func TestLabelMounts(t *testing.T) {
	m := []spec.Mount{{Type: "tmpfs", Data: []string{"size=1m"}}, {Type: "bind"}, {Type: "proc"}, {Type: "devpts"}}
	labelMounts(m, "a:b:c:d,e")
	want := []spec.Mount{{Type: "tmpfs", Data: []string{"size=1m", "context=a:b:c:d,e"}}, {Type: "bind"}, {Type: "proc"}, {Type: "devpts", Data: []string{"context=a:b:c:d,e"}}}
	if !reflect.DeepEqual(m, want) {
		t.Errorf("%+v", m)
	}
}

// TestRdt: what config-linux.md says about directories and files of resctrl, in a directory that stands for one.
func TestRdt(t *testing.T) {
	group := func(t *testing.T, top, name, schemata string) {
		t.Helper()
		for f, text := range map[string]string{"schemata": schemata, "tasks": ""} {
			file := filepath.Join(top, name, f)
			if err := os.MkdirAll(filepath.Join(filepath.Dir(file), "mon_groups"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		rdt       specs.LinuxIntelRdt
		there     string // groups that are there, with "L3:0=007f"
		dir, want string // group, part of an error
		made      []string
	}{
		"default group":  {specs.LinuxIntelRdt{ClosID: "/"}, ".", ".", "", nil},
		"group is there": {specs.LinuxIntelRdt{ClosID: "gold", L3CacheSchema: "L3:0=7f"}, "gold", "gold", "", nil},
		"only its name":  {specs.LinuxIntelRdt{ClosID: "gold"}, "gold", "gold", "", nil},
		"another one":    {specs.LinuxIntelRdt{ClosID: "gold", Schemata: []string{"L3:0=ff"}}, "gold", "", "L3:0=7f, and config.json wants ff", nil},
		"not there":      {specs.LinuxIntelRdt{ClosID: "lead"}, "", "", "is not there", nil},
		"taken":          {specs.LinuxIntelRdt{L3CacheSchema: "L3:0=7f"}, "box", "", "is there already", nil},
	} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			if c.there != "" {
				group(t, top, c.there, "    MB:0=100\n    L3:0=007f\n")
			}
			dir, made, err := joinRdt(top, "box", &c.rdt, 1234)
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%v, want %q", err, c.want)
				}
				return
			}
			b, _ := os.ReadFile(filepath.Join(dir, "tasks"))
			if err != nil || string(b) != "1234" || dir != filepath.Join(top, c.dir) || !reflect.DeepEqual(made, c.made) {
				t.Errorf("%v, %s: %q, made %v", err, dir, b, made)
			}
		})
	}
	// The kernel fills a new directory with its files; here the write fails, and what was made is told.
	top := t.TempDir()
	_, made, err := joinRdt(top, "box", &specs.LinuxIntelRdt{MemBwSchema: "MB:0=50"}, 1)
	if err == nil || !reflect.DeepEqual(made, []string{filepath.Join(top, "box")}) {
		t.Errorf("%v, made %v", err, made)
	}
	c := &Container{RdtMade: made}
	if err := c.removeRdt(); err != nil {
		t.Error(err)
	}
	if es, _ := os.ReadDir(top); len(es) > 0 {
		t.Errorf("left: %v", es)
	}
}

// TestEncodeState: what is written by hand is what encoding/json reads and writes.
func TestEncodeState(t *testing.T) {
	full := &Container{State: specs.State{Version: "1.3.0", ID: "a\"b", Status: specs.StateRunning, Pid: 7, Bundle: "/b <&\xff", Annotations: map[string]string{"k\n": "v"}},
		Created: time.Now().Round(0).UTC(), Started: 1 << 40, Cgroup: "/c", CgroupV1: map[string]string{"memory": "/m"}, Scope: "s", Mounted: "/r", Rdt: "/d", RdtMade: []string{"/d/m"}}
	for _, c := range []*Container{{}, full} {
		got := new(Container)
		if err := json.Unmarshal(c.encode(), got); err != nil {
			t.Fatalf("%v: %s", err, c.encode())
		}
		marshalled, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		want := new(Container)
		if err := json.Unmarshal(marshalled, want); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%v\ngot  %+v\nwant %+v", err, got, want)
		}
	}
	// A field that encode does not know would be lost here.
	n := 0
	for i := range reflect.TypeFor[Container]().NumField() {
		if f := reflect.TypeFor[Container]().Field(i); f.IsExported() && !reflect.ValueOf(*full).Field(i).IsZero() {
			n++
		} else if f.IsExported() {
			t.Errorf("%s is not tried", f.Name)
		}
	}
	if n < 9 {
		t.Errorf("%d fields", n)
	}
}
