package spec

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

const minimal = `{
 "ociVersion": "1.2.0",
 "process": {"cwd": "/", "args": ["/bin/true"], "user": {"uid": 0, "gid": 0}},
 "root": {"path": "rootfs"},
 "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]}
}`

// with returns the minimal configuration with the JSON value at a dotted path replaced.
func with(t *testing.T, path, value string) []byte {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(minimal), &m); err != nil {
		t.Fatal(err)
	}
	at := m
	keys := strings.Split(path, ".")
	for _, k := range keys[:len(keys)-1] {
		next, ok := at[k].(map[string]any)
		if !ok {
			next = map[string]any{}
			at[k] = next
		}
		at = next
	}
	var v any
	if err := json.Unmarshal([]byte(value), &v); err != nil {
		t.Fatalf("%s: %v", value, err)
	}
	at[keys[len(keys)-1]] = v
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseMinimal(t *testing.T) {
	s, err := Parse([]byte(minimal))
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Process.Args[0]; got != "/bin/true" {
		t.Errorf("args[0] = %q", got)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct{ path, value, want string }{
		{"hooks", `{"prestart":[{"path":"x"}]}`, "hooks.prestart[0].path: want an absolute path"},
		{"hooks", `{"poststop":[{"path":"/x","timeout":0}]}`, "hooks.poststop[0].timeout"},
		{"process.scheduler", `{"policy":"SCHED_CAKE"}`, "process.scheduler.policy"},
		{"process.scheduler", `{"policy":"SCHED_OTHER","flags":["X"]}`, "process.scheduler.flags[0]"},
		{"process.scheduler", `{"policy":"SCHED_DEADLINE","deadline":5000,"period":5000}`, "process.scheduler.runtime: want at least 1024 ns"},
		{"process.scheduler", `{"policy":"SCHED_DEADLINE","runtime":2000}`, "process.scheduler.deadline: want at least the runtime, 2000 ns, found 0"},
		{"process.scheduler", `{"policy":"SCHED_DEADLINE","runtime":2000,"deadline":3000,"period":2500}`, "process.scheduler.period: want at least the deadline"},
		{"process.ioPriority", `{"class":"X"}`, "process.ioPriority.class"},
		{"process.ioPriority", `{"class":"IOPRIO_CLASS_BE","priority":8}`, "process.ioPriority.priority"},
		{"linux.personality", `{"domain":"BSD"}`, "linux.personality.domain"},
		{"process.execCPUAffinity", `{"initial":"0-"}`, "process.execCPUAffinity.initial: want numbers"},
		{"process.execCPUAffinity", `{"final":"3-1"}`, "process.execCPUAffinity.final: want numbers"},
		{"process.execCPUAffinity", `{"final":"99999"}`, "process.execCPUAffinity.final: want numbers"},
		{"linux.intelRdt", `{"closID":"../x"}`, "linux.intelRdt.closID"},
		{"linux.intelRdt", `{"memBwSchema":"L3:0=1"}`, "linux.intelRdt.memBwSchema"},
		{"linux.intelRdt", `{"schemata":["L3:0=1\nMB:0=1"]}`, "linux.intelRdt: want one line"},
		{"linux.memoryPolicy", `{"mode":"MPOL_BEST"}`, "linux.memoryPolicy.mode"},
		{"linux.memoryPolicy", `{"mode":"MPOL_BIND"}`, "linux.memoryPolicy.nodes: MPOL_BIND needs some"},
		{"linux.memoryPolicy", `{"mode":"MPOL_LOCAL","nodes":"0"}`, "linux.memoryPolicy.nodes: MPOL_LOCAL takes none"},
		{"linux.memoryPolicy", `{"mode":"MPOL_BIND","nodes":"0","flags":["X"]}`, "linux.memoryPolicy.flags[0]"},
		{"linux.netDevices", `{"eth0":{}}`, "linux.netDevices: needs a namespace of type network"},
		{"zos", `{"namespaces":[{"type":"mount"}]}`, "zos.namespaces[0].type is not supported"},
		{"vm", `{"kernel":{"path":"/k"}}`, "vm.kernel.path is not supported"},
		{"linux.uidMappings", `[{"containerID":0,"hostID":1,"size":1}]`, "linux.uidMappings: wanted with a namespace of type user"},
		{"linux.namespaces", `[{"type":"mount"},{"type":"user"}]`, "linux.uidMappings: wanted with a namespace of type user"},
		{"linux.namespaces", `[{"type":"mount"},{"type":"user","path":"x"}]`, "linux.namespaces[1].path: want an absolute path"},
		{"linux.timeOffsets", `{"boottime":{"secs":1}}`, "linux.timeOffsets: needs a new namespace of type time"},
		{"linux.devices", `[{"path":"fuse","type":"c"}]`, "linux.devices[0].path"},
		{"linux.devices", `[{"path":"/dev/fuse","type":"x"}]`, "linux.devices[0].type"},
		{"linux.namespaces", `[{"type":"mount"},{"type":"mount"}]`, "appears twice"},
		{"linux.namespaces", `[{"type":"mount"},{"type":"planet"}]`, `no namespace is of type "planet"`},
		{"linux.rootfsPropagation", `"loud"`, "linux.rootfsPropagation: want"},
		{"linux.cgroupsPath", `"/a/../b"`, "linux.cgroupsPath"},
		{"linux.sysctl", `{"vm.swappiness":"1"}`, "would change the host"},
		{"linux.sysctl", `{"net.ipv4.ip_forward":"1"}`, "needs a namespace of type network"},
		{"linux.maskedPaths", `["proc"]`, "linux.maskedPaths[0]: want an absolute path"},
		{"hostname", `"x"`, "hostname: needs a namespace of type uts"},
		{"mounts", `[{"type":"tmpfs"}]`, "mounts[0].destination: missing"},
		{"mounts", `[{"destination":".","type":"tmpfs"}]`, "root.path's place"},
		{"mounts", `[{"destination":"/","type":"tmpfs"}]`, "root.path's place"},
		{"mounts", `[{"destination":"/a","source":"x"}]`, "type: missing"},
		{"mounts", `[{"destination":"/a","type":"bind"}]`, "source: missing"},
		{"mounts", `[{"destination":"/a","type":"bind","source":"/x","options":["rdonly"]}]`, `"rdonly" is no option of a bind mount`},
		{"mounts", `[{"destination":"/a","type":"tmpfs","uidMappings":[{"size":1}],"gidMappings":[{"size":1}]}]`, "uidMappings is not supported: only for bind mounts"},
		{"mounts", `[{"destination":"/a","type":"bind","source":"/x","uidMappings":[{"size":1}]}]`, "want both or none"},
		{"mounts", `[{"destination":"/a","type":"proc","options":["tmpcopyup"]}]`, "tmpcopyup is for tmpfs"},
		{"process.cwd", `"here"`, "process.cwd: want an absolute path"},
		{"process.args", `[]`, "process.args: no program"},
		{"process.env", `["X"]`, "process.env[0]"},
		{"process.rlimits", `[{"type":"RLIMIT_CAKE"}]`, `no limit is called "RLIMIT_CAKE"`},
		{"process.rlimits", `[{"type":"RLIMIT_CPU"},{"type":"RLIMIT_CPU"}]`, "appears twice"},
		{"process.capabilities", `{"effective":["CAP_KILL"]}`, "process.capabilities.effective"},
		{"process.oomScoreAdj", `2000`, "process.oomScoreAdj"},
		{"ociVersion", `"2.0.0"`, "ociVersion"},
		{"root", `{}`, "root.path"},
		{"root", `7`, "parse config"},
	} {
		_, err := Parse(with(t, c.path, c.value))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s = %s: error %v, want %q in it", c.path, c.value, err, c.want)
		}
	}
}

func TestNetDevices(t *testing.T) {
	ns, err := Namespaces([]specs.LinuxNamespace{{Type: "mount"}, {Type: "network"}})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"": true, "eth0": true, "eth%d": true, "%d%d": false, "a/b": false, "..": false, "sixteen-letters-": false, "a b": false, "eth%s": false} {
		l := &specs.Linux{NetDevices: map[string]specs.LinuxNetDevice{"host0": {Name: name}}}
		if err := checkNetDevices(l, ns); (err == nil) != want {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestMask(t *testing.T) {
	m, err := Mask("f", "0-3,7,64")
	if err != nil || !reflect.DeepEqual(m, []uint64{0x8f, 1}) {
		t.Errorf("%x %v", m, err)
	}
}

func TestParseAccepts(t *testing.T) {
	for _, c := range []struct{ path, value string }{
		{"process.invented", `{"a":1}`}, // unknown to the specification: to be ignored
		{"somethingNew", `[1,2]`},
		{"hooks", `{}`},
		{"process.consoleSize", `{"height":1,"width":1}`},
		{"annotations", `{"a":"b"}`},
		{"linux.resources", `{}`},
		{"linux.namespaces", `[{"type":"pid"}]`},
		{"mounts", `[{"destination":"/a","type":"bind","source":"/x","options":["rbind","ro","mode=755"]}]`},
		{"mounts", `[{"destination":"/a","type":"tmpfs","options":["nosuid","size=1m","mode=755"]}]`},
	} {
		if _, err := Parse(with(t, c.path, c.value)); err != nil {
			t.Errorf("%s = %s: %v", c.path, c.value, err)
		}
	}
}

// TestEveryFieldIsKnown sets each leaf of the specification's structure, one at a time: it must be in the table of
// supported fields or be refused by name. So nothing can be ignored silently.
func TestEveryFieldIsKnown(t *testing.T) {
	table := make(map[string]bool)
	for _, f := range strings.Fields(supported) {
		table[f] = true
	}
	refused := 0
	eachLeaf(reflect.TypeFor[specs.Spec](), "", func(name string, set func() reflect.Value) {
		known := table[name]
		for p := name; p != ""; {
			known = known || table[p+".*"]
			i := strings.LastIndexByte(p, '.')
			if i < 0 {
				break
			}
			p = p[:i]
		}
		err := walk("", set().Interface())
		var u *UnsupportedError
		if known && err != nil {
			t.Errorf("%s is in the table, but: %v", name, err)
		}
		if !known && (!errors.As(err, &u) || !strings.HasPrefix(u.Field, strings.SplitN(name, ".", 2)[0])) {
			t.Errorf("%s has a value and is not supported: error %v", name, err)
		}
		if !known {
			refused++
		}
	})
	if refused < 40 {
		t.Errorf("only %d fields were tried", refused)
	}
}

// eachLeaf calls visit for every leaf below typ with a function that builds a typ in which only that leaf has a value.
func eachLeaf(typ reflect.Type, name string, visit func(string, func() reflect.Value)) {
	wrap := func(elem reflect.Type, in func(reflect.Value) reflect.Value) {
		eachLeaf(elem, name, func(n string, set func() reflect.Value) {
			visit(n, func() reflect.Value { return in(set()) })
		})
	}
	switch typ.Kind() {
	case reflect.Struct:
		for i := range typ.NumField() {
			f := typ.Field(i)
			tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			n := name
			if tag != "" {
				n = join(name, tag)
			}
			eachLeaf(f.Type, n, func(n string, set func() reflect.Value) {
				visit(n, func() reflect.Value {
					v := reflect.New(typ).Elem()
					v.Field(i).Set(set())
					return v
				})
			})
		}
	case reflect.Pointer:
		wrap(typ.Elem(), func(e reflect.Value) reflect.Value {
			p := reflect.New(typ.Elem())
			p.Elem().Set(e)
			return p
		})
	case reflect.Slice:
		wrap(typ.Elem(), func(e reflect.Value) reflect.Value { return reflect.Append(reflect.Zero(typ), e) })
	case reflect.Map:
		visit(name, func() reflect.Value {
			m := reflect.MakeMap(typ)
			m.SetMapIndex(reflect.ValueOf("k").Convert(typ.Key()), reflect.Zero(typ.Elem()))
			return m
		})
	default:
		visit(name, func() reflect.Value {
			v := reflect.New(typ).Elem()
			switch {
			case v.CanInt():
				v.SetInt(1)
			case v.CanUint():
				v.SetUint(1)
			case v.Kind() == reflect.Interface:
				v.Set(reflect.ValueOf("x"))
			case v.Kind() == reflect.Bool:
				v.SetBool(true)
			case v.Kind() == reflect.String:
				v.SetString("x")
			}
			return v
		})
	}
}

func TestParseMount(t *testing.T) {
	m, err := ParseMount(specs.Mount{Destination: "/x/../d/", Type: "none", Source: "/src", Options: []string{"rbind", "ro", "rw", "ro", "nosuid", "noatime", "rro"}})
	if err != nil {
		t.Fatal(err)
	}
	want := Mount{Destination: "/d", Type: "bind", Source: "/src", Recursive: true,
		Set:    unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOATIME,
		Clear:  unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR__ATIME,
		SetRec: unix.MOUNT_ATTR_RDONLY, ClearRec: unix.MOUNT_ATTR_RDONLY}
	if !reflect.DeepEqual(m, want) {
		t.Errorf("got  %+v\nwant %+v", m, want)
	}
}

func TestCapabilities(t *testing.T) {
	if n, ok := Capability("CAP_CHECKPOINT_RESTORE"); !ok || n != unix.CAP_LAST_CAP {
		t.Errorf("CAP_CHECKPOINT_RESTORE = %d, %v; the list must end at %d", n, ok, unix.CAP_LAST_CAP)
	}
	if n, _ := Capability("CAP_SYS_ADMIN"); n != unix.CAP_SYS_ADMIN {
		t.Errorf("CAP_SYS_ADMIN = %d", n)
	}
}

// TestCapabilitiesLeftOut: what cannot be granted is left out, and told (config.md, "capabilities").
func TestCapabilitiesLeftOut(t *testing.T) {
	kill, chown, admin := uint64(1)<<unix.CAP_KILL, uint64(1)<<unix.CAP_CHOWN, uint64(1)<<unix.CAP_SYS_ADMIN
	list := []string{"CAP_KILL", "CAP_SYS_ADMIN", "CAP_CHOWN", "CAP_FLY"}
	got, warnings, err := Capabilities(&specs.LinuxCapabilities{Bounding: list, Permitted: list, Effective: list,
		Inheritable: []string{"CAP_KILL"}, Ambient: []string{"CAP_CHOWN", "CAP_KILL"}}, kill|chown)
	if err != nil {
		t.Fatal(err)
	}
	if want := (CapSets{Bounding: kill | admin | chown, Effective: kill | chown, Permitted: kill | chown, Inheritable: kill, Ambient: kill}); got != want {
		t.Errorf("got  %x\nwant %x", got, want)
	}
	want := []string{
		"process.capabilities.bounding[3]: cannot grant CAP_FLY: no capability is called so",
		"process.capabilities.permitted[1]: cannot grant CAP_SYS_ADMIN: the caller does not have it",
		"process.capabilities.permitted[3]: cannot grant CAP_FLY: no capability is called so",
		"process.capabilities.effective[1]: cannot grant CAP_SYS_ADMIN: the caller does not have it",
		"process.capabilities.effective[3]: cannot grant CAP_FLY: no capability is called so",
		"process.capabilities.ambient[0]: cannot grant CAP_CHOWN: it is not both permitted and inheritable",
	}
	if !slices.Equal(warnings, want) {
		t.Errorf("warnings:\n%s", strings.Join(warnings, "\n"))
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(minimal))
	f.Add([]byte(`{"ociVersion":"1.0","process":{},"root":{"path":"/"},"linux":{}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Parse(b)
		if err == nil && (s.Process == nil || s.Root == nil || s.Linux == nil || len(s.Process.Args) == 0) {
			t.Errorf("accepted an incomplete configuration: %s", b)
		}
	})
}

// agree decodes both ways.
func agree(t *testing.T, b []byte) {
	t.Helper()
	var got, want specs.Spec
	gotErr, wantErr := decode(b, &got), json.Unmarshal(b, &want)
	if (gotErr == nil) != (wantErr == nil) || gotErr != nil && gotErr.Error() != wantErr.Error() {
		t.Errorf("%q: error %v, want %v", b, gotErr, wantErr)
	}
	if gotErr == nil && !reflect.DeepEqual(got, want) {
		t.Errorf("%q:\ngot  %+v\nwant %+v", b, got, want)
	}
}

// TestDecodeAgrees: each leaf of the specification's structure, and what is odd, is decoded as encoding/json does.
func TestDecodeAgrees(t *testing.T) {
	n := 0
	eachLeaf(reflect.TypeFor[specs.Spec](), "", func(name string, set func() reflect.Value) {
		b, err := json.Marshal(set().Interface())
		if err != nil {
			t.Fatal(err)
		}
		agree(t, b)
		n++
	})
	if n < 200 {
		t.Errorf("only %d leaves", n)
	}
	for _, text := range odd {
		agree(t, []byte(text))
	}
	// Without encoding/json's help: the decoder is worth nothing if it gives up.
	b, err := json.Marshal(specs.Spec{Version: "1.2.0", Process: &specs.Process{Args: []string{"a", "b", "c", "d", "e", "f"}}, Linux: &specs.Linux{
		Resources: &specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{{Rate: 5}}}},
		Sysctl:    map[string]string{"a": "<b>"}}})
	if err != nil {
		t.Fatal(err)
	}
	d := newDecoder(b)
	if !d.value(reflect.ValueOf(new(specs.Spec)).Elem(), 0) || !d.end() {
		t.Errorf("given up at %d of %s", d.at, b)
	}
}

var odd = []string{``, `null`, `{}`, `[]`, `{"ociVersion":null,"process":null,"mounts":null}`, `{"ociVersion":"\u00e4\n\"","hostname":"\xff"}`, `{"OCIVERSION":"x","ociversion":"y"}`,
	`{"ociVersion":"a","ociVersion":"b"}`, `{"mounts":[{"destination":"a","type":"t"}],"mounts":[{"destination":"b"}]}`, `{"process":{"args":["a"]},"process":{"cwd":"/"}}`,
	`{"process":{"user":{"uid":1e3}}}`, `{"process":{"user":{"uid":-1}}}`, `{"process":{"user":{"uid":4294967296}}}`, `{"process":{"user":{"uid":01}}}`, `{"process":{"oomScoreAdj":-5}}`,
	`{"x":{"y":[1,2.5,{"z":null}]},"hostname":"h"}`, `{"x":1.}`, `{"x":nul}`, `{"hostname":"h"} x`, `{"hostname":"h",}`, `{"annotations":{"a":"b","a":"c","":null}}`,
	`{"process":{"env":[null,"a"]}}`, `{"process":{"terminal":"yes"}}`, `{"linux":{"resources":{"blockIO":{"weightDevice":[{"major":8,"minor":1,"weight":10}]}}}}`,
	`{"process":{"user":{"additionalGids":[]}}}`, `{"windows":{"credentialSpec":{"a":[1]}}}`, "{\"hostname\":\"a\nb\"}", `{"hostname":"\ud800"}`, `{"linux":{"devices":[{"fileMode":438}]}}`, `-`, `{"a":tru}`, `{"hostname"`}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(minimal))
	for _, text := range odd {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) { agree(t, b) })
}
