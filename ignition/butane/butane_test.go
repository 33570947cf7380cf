package butane

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/vincent-petithory/dataurl"
)

// loose is a node as PyYAML's BaseLoader gives it: every scalar is text.
func (n *node) loose() any {
	switch n.kind {
	case mapping:
		m := map[string]any{}
		for _, p := range n.pairs {
			m[p.key.text] = p.value.loose()
		}
		return m
	case sequence:
		list := []any{}
		for _, i := range n.items {
			list = append(list, i.loose())
		}
		return list
	}
	return n.text
}

// testdata/yaml/*.json is what PyYAML 6.0.3 reads in the YAML beside it.
func TestForeignYAML(t *testing.T) {
	names, err := filepath.Glob("testdata/yaml/*.yaml")
	if err != nil || len(names) < 6 {
		t.Fatal("want six documents", names, err)
	}
	for _, name := range names {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(strings.TrimSuffix(name, "yaml") + "json")
		if err != nil {
			t.Fatal(err)
		}
		var want any
		if err := json.Unmarshal(text, &want); err != nil {
			t.Fatal(err)
		}
		n, err := parse(raw)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := n.loose(); !reflect.DeepEqual(got, want) {
			b, _ := json.MarshalIndent(got, "", " ")
			t.Errorf("%s: got %s", name, b)
		}
	}
}

// plainSources rewrites data URLs and their compression to what they say, and drops what says nothing.
func plainSources(t *testing.T, v any) any {
	switch v := v.(type) {
	case map[string]any:
		if s, ok := v["source"].(string); ok && strings.HasPrefix(s, "data:") {
			d, err := dataurl.DecodeString(s)
			if err != nil {
				t.Fatal(err)
			}
			data := d.Data
			if v["compression"] == "gzip" {
				z, err := gzip.NewReader(bytes.NewReader(data))
				if err != nil {
					t.Fatal(err)
				}
				if data, err = io.ReadAll(z); err != nil {
					t.Fatal(err)
				}
			}
			delete(v, "compression")
			v["source"] = string(data)
		}
		for k := range v {
			v[k] = plainSources(t, v[k])
		}
	case []any:
		for i := range v {
			v[i] = plainSources(t, v[i])
		}
	}
	return v
}

// testdata/fcos.ign is what butane 0.27.0 makes of fcos.yaml, with every feature of the spec and of the sugar.
func TestAsButane(t *testing.T) {
	raw, err := os.ReadFile("testdata/fcos.yaml")
	if err != nil {
		t.Fatal(err)
	}
	out, err := Translate(raw, os.DirFS("testdata"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("testdata/fcos.ign")
	if err != nil {
		t.Fatal(err)
	}
	var got, want any
	if err := errors.Join(json.Unmarshal(out.JSON, &got), json.Unmarshal(text, &want)); err != nil {
		t.Fatal(err, string(out.JSON))
	}
	got, want = plainSources(t, got), plainSources(t, want)
	if !reflect.DeepEqual(got, want) {
		a, _ := json.MarshalIndent(got, "", " ")
		b, _ := json.MarshalIndent(want, "", " ")
		as, bs := strings.Split(string(a), "\n"), strings.Split(string(b), "\n")
		for i := range min(len(as), len(bs)) {
			if as[i] != bs[i] {
				t.Fatalf("line %d: got %s\nwant %s", i+1, strings.Join(as[max(0, i-8):min(i+8, len(as))], "\n"), bs[i])
			}
		}
		t.Fatal("one is longer")
	}
	for path, want := range map[string]Place{
		"storage.files[0].mode":            {"storage.files[0].mode", 67, 11},
		"kernelArguments.shouldExist":      {"kernel_arguments.should_exist", 105, 17},
		"storage.files[1].contents.source": {"storage.files[1].contents.local", 81, 14},
	} {
		if got := out.Places[path]; got != want {
			t.Errorf("%s: got %+v, want %+v", path, got, want)
		}
	}
}

func TestProa(t *testing.T) {
	out, err := Translate([]byte("variant: proa\nversion: 1.0.0\nhostname: web1\n"), nil)
	want := `{"storage":{"files":[{"path":"/etc/hostname","mode":420,"overwrite":true,"contents":{"source":"data:;base64,d2ViMQo="}}]},"ignition":{"version":"3.6.0"}}`
	if err != nil || string(out.JSON) != want {
		t.Errorf("got %s, %v", out.JSON, err)
	}
}

// Butane too orders what servers on the network open behind the network, and lets nothing that is needed to boot wait for it.
func TestMountsOnTheNetwork(t *testing.T) {
	for clevis, want := range map[string]string{
		"{tpm2: true}": "RequiredBy=local-fs.target", "{tang: []}": "RequiredBy=local-fs.target", "{custom: {pin: tpm2, config: '{}'}}": "RequiredBy=local-fs.target",
		"{tang: [{url: 'http://h', thumbprint: x}]}": "Options=noatime,_netdev\n\n[Install]\nRequiredBy=remote-fs.target",
		"{custom: {pin: sss, needs_network: true}}":  "Options=noatime,_netdev\n\n[Install]\nRequiredBy=remote-fs.target",
	} {
		out, err := Translate([]byte("variant: proa\nversion: 1.0.0\nstorage:\n  luks:\n    - {name: other, device: /dev/vdc}\n    - {name: box, device: /dev/vdb, clevis: "+clevis+
			"}\n  filesystems:\n    - {device: /dev/mapper/box, format: xfs, path: /var/x, with_mount_unit: true, mount_options: [noatime]}\n"), nil)
		if err != nil {
			t.Fatal(err)
		}
		var c struct {
			Systemd struct{ Units []struct{ Contents string } }
		}
		if err := json.Unmarshal(out.JSON, &c); err != nil || len(c.Systemd.Units) != 1 || !strings.HasSuffix(c.Systemd.Units[0].Contents, want) {
			t.Errorf("%s: got %+v, %v", clevis, c, err)
		}
	}
}

func TestRefused(t *testing.T) {
	const head = "variant: proa\nversion: 1.0.0\n"
	tests := []struct{ name, text, want string }{
		{"tab", head + "storage:\n\tfiles: []\n", "line 4, column 1: invalid YAML: a tab in the indentation"},
		{"anchor", head + "storage: &a\n", "line 3, column 10: not supported: YAML's anchors, aliases, tags and directives"},
		{"alias", head + "storage: [*a]\n", "line 3, column 11: not supported: YAML's anchors, aliases, tags and directives"},
		{"tag", head + "a: !!str 1\n", "line 3, column 4: not supported: YAML's anchors, aliases, tags and directives"},
		{"twice", head + "a: 1\na: 2\n", "line 4, column 1: key given twice"},
		{"twice in braces", head + "a: {b: 1, b: 2}\n", "line 3, column 11: key given twice, or no key"},
		{"indentation", head + "a:\n    b: 1\n  c: 2\n", "line 5, column 3: invalid YAML: indented further than its neighbours"},
		{"further", head + "a: 1\n  b: 2\n", "line 4, column 3: invalid YAML: expected the rest of the value before, found a key"},
		{"colon", head + "a: b: c\n", `line 3, column 4: invalid YAML: a value without quotes that contains ": "`},
		{"quote", head + "a: \"b\n", "line 4, column 1: invalid YAML: expected the closing quote, found the end"},
		{"bracket", head + "a: [b\n", "line 4, column 1: invalid YAML: expected ], found the end"},
		{"behind", head + "a: \"b\" c\n", "line 3, column 7: invalid YAML: more text behind a value"},
		{"second document", head + "---\na: 1\n", "line 3, column 1: invalid YAML: expected \"key: value\""},
		{"deep", head + "a: " + strings.Repeat("[", 100), "line 3, column 68: invalid YAML: too deep"},
		{"variant", "variant: flatcar\nversion: 1.0.0\n", "line 1, column 10: unsupported variant or version"},
		{"no version", "variant: proa\n", "line 1, column 1: missing variant or version"},
		{"local", head + "storage:\n  files:\n  - path: /a\n    contents:\n      local: a\n", "line 7, column 14: read local file: there are no files beside this config"},
		{"two sources", head + "storage:\n  files:\n  - path: /a\n    contents: {inline: a, source: b}\n", "line 6, column 15: more than one of inline, local and source"},
		{"boot device", "variant: fcos\nversion: 1.5.0\nboot_device: {luks: {tpm2: true}}\n", "line 3, column 14: boot_device is not supported: it is about another system's boot disk"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Translate([]byte(tt.text), nil)
			var e *Error
			if !errors.As(err, &e) || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
	// A local name leads nowhere else.
	for _, name := range []string{"../butane.go", "/etc/passwd", "none"} {
		_, err := Translate([]byte(head+"storage:\n  files:\n  - path: /a\n    contents:\n      local: "+name+"\n"), os.DirFS("testdata"))
		if err == nil {
			t.Errorf("%s was read", name)
		}
	}
}

// FuzzTranslate: any bytes are a config in JSON or an *Error with a place.
func FuzzTranslate(f *testing.F) {
	for _, pattern := range []string{"testdata/yaml/*.yaml", "testdata/fcos.yaml"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, name := range names {
			raw, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(raw)
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		out, err := Translate(raw, nil)
		var e *Error
		if err != nil && (!errors.As(err, &e) || e.Line < 1 || e.Column < 1) {
			t.Fatalf("got %v", err)
		}
		if err == nil && !json.Valid(out.JSON) {
			t.Fatalf("got %s", out.JSON)
		}
	})
}
