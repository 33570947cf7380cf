package scope

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/godbus/dbus/v5"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestParseUnit(t *testing.T) {
	for _, c := range []struct{ path, slice, name, bad string }{
		{"", "", "oci-runtime-box.scope", ""},
		{"machine.slice:libpod:abc", "machine.slice", "libpod-abc.scope", ""},
		{":cri:abc", "", "cri-abc.scope", ""},
		{"a.slice::abc", "a.slice", "abc.scope", ""},
		{"/a/b", "", "", "want slice:prefix:name"},
		{"a:b:c:d", "", "", "want slice:prefix:name"},
		{"a.slice:b:../c", "", "", "want slice:prefix:name"},
		{"a:b:c", "", "", "want a slice"},
	} {
		u, err := ParseUnit(c.path, "box")
		if c.bad != "" {
			if err == nil || !strings.Contains(err.Error(), c.bad) {
				t.Errorf("%s: %v, want %q", c.path, err, c.bad)
			}
		} else if err != nil || u != (Unit{c.slice, c.name}) {
			t.Errorf("%s: %+v %v", c.path, u, err)
		}
	}
}

func TestProperties(t *testing.T) {
	var r specs.LinuxResources
	if err := json.Unmarshal([]byte(`{"cpu":{"shares":1024,"quota":12345,"period":50000,"cpus":"0-1,8","mems":"0"},"memory":{"limit":1000,"swap":1500,"reservation":-1},"pids":{"limit":7}}`), &r); err != nil {
		t.Fatal(err)
	}
	got, err := properties(&r)
	want := []Property{{"CPUWeight", uint64(100)}, {"CPUQuotaPerSecUSec", uint64(250000)}, {"CPUQuotaPeriodUSec", uint64(50000)}, {"AllowedCPUs", []byte{3, 1}},
		{"AllowedMemoryNodes", []byte{1}}, {"MemoryMax", uint64(1000)}, {"MemoryLow", uint64(1<<64 - 1)}, {"MemorySwapMax", uint64(500)}, {"TasksMax", uint64(7)}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v %v\nwant %v", got, err, want)
	}
}

// TestMessages: another implementation of D-Bus reads what is written here, and the other way round.
func TestMessages(t *testing.T) {
	e := new(encoder)
	e.string("box.scope")
	e.string("replace")
	e.properties([]Property{{"Slice", "a.slice"}, {"Delegate", true}, {"PIDs", []uint32{7}}, {"MemoryMax", uint64(9)}, {"AllowedCPUs", []byte{3}}})
	e.array(8, func() {})
	m, err := dbus.DecodeMessage(bytes.NewReader(call(5, destination, path, manager, "StartTransientUnit", "ssa(sv)a(sa(sv))", e.b)))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.IsValid(); err != nil || m.Headers[dbus.FieldMember].Value() != "StartTransientUnit" || m.Serial() != 5 {
		t.Errorf("%v %v", err, m)
	}
	var name, mode string
	var list []struct {
		Name  string
		Value dbus.Variant
	}
	var aux []struct {
		Name string
		List []struct {
			Name  string
			Value dbus.Variant
		}
	}
	if err := dbus.Store(m.Body, &name, &mode, &list, &aux); err != nil || name != "box.scope" || mode != "replace" || len(list) != 5 || len(aux) != 0 {
		t.Fatalf("%v %v", err, m.Body)
	}
	for i, want := range []any{"a.slice", true, []uint32{7}, uint64(9), []byte{3}} {
		if !reflect.DeepEqual(list[i].Value.Value(), want) {
			t.Errorf("%s: %v, want %v", list[i].Name, list[i].Value, want)
		}
	}

	signal := &dbus.Message{Type: dbus.TypeSignal, Headers: map[dbus.HeaderField]dbus.Variant{
		dbus.FieldPath: dbus.MakeVariant(dbus.ObjectPath(path)), dbus.FieldInterface: dbus.MakeVariant(manager), dbus.FieldMember: dbus.MakeVariant("JobRemoved"),
		dbus.FieldSignature: dbus.MakeVariant(dbus.SignatureOf(uint32(0), dbus.ObjectPath(""), "", "")), dbus.FieldSender: dbus.MakeVariant(":1.3")},
		Body: []any{uint32(4), dbus.ObjectPath("/job/4"), "box.scope", "failed"}}
	var buf bytes.Buffer
	if err := signal.EncodeTo(&buf, binary.LittleEndian); err != nil {
		t.Fatal(err)
	}
	b := buf.Bytes()
	got, err := parse(b[:headSize], b[headSize:])
	if err != nil || got.kind != typeSignal || got.member != "JobRemoved" || got.path != path {
		t.Fatalf("%v %+v", err, got)
	}
	got.body.uint32()
	if job, unit, result := got.body.string(), got.body.string(), got.body.string(); got.body.bad || job != "/job/4" || unit != "box.scope" || result != "failed" {
		t.Errorf("%s %s %s", job, unit, result)
	}
}

func FuzzParse(f *testing.F) {
	e := new(encoder)
	e.string("x")
	f.Add(call(1, destination, path, manager, "StopUnit", "s", e.b))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < headSize {
			return
		}
		fields, body, _, err := sizes(b[:headSize])
		if err != nil || len(b) != headSize+fields+body {
			return
		}
		if m, err := parse(b[:headSize], b[headSize:]); err == nil {
			m.body.string()
			m.body.uint32()
		}
	})
}

func TestFromAnnotations(t *testing.T) {
	for text, want := range map[string]any{"true": true, "'a b'": "a b", `"it's"`: "it's", `'it\'s'`: "it's", "[]": []string{}, "['a','b', \"c\"]": []string{"a", "b", "c"},
		"-5": int32(-5), "int64 -5": int64(-5), "uint32 5": uint32(5), "uint64 18446744073709551615": uint64(1<<64 - 1)} {
		got, err := FromAnnotations(map[string]string{"org.systemd.property.Thing": text, "thing": "?"})
		if err != nil || len(got) != 1 || got[0].Name != "Thing" || !reflect.DeepEqual(got[0].Value, want) {
			t.Errorf("%s: %v %v, want %v", text, got, err, want)
		}
	}
	for name, text := range map[string]string{"Thing": "bare", "Thing1": "['a' 'b']", "Thing2": "['a'", "Thing3": "uint32 -1", "Thing4": "byte 5", "Thing5": "'a' 'b'", "X": "1", "A-B": "1", "StopSec": "x", "Wait": ""} {
		if got, err := FromAnnotations(map[string]string{"org.systemd.property." + name: text}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %s is taken: %v %v", name, text, got, err)
		}
	}
	if got, err := FromAnnotations(map[string]string{"org.systemd.property.RuntimeMaxSec": "1.5"}); err != nil || got[0] != (Property{"RuntimeMaxUSec", uint64(1500000)}) {
		t.Errorf("%v %v", got, err)
	}
}
