package tuf_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/update-engine/tuf"
)

// metadataFiles are the files of a repository at version 2, and the role that signs each.
var metadataFiles = map[string]string{
	"2.root.json": "root", "timestamp.json": "timestamp", "2.snapshot.json": "snapshot", "2.targets.json": "targets", "2.plan.json": "plan",
}

func secondVersion(t testing.TB) *forge {
	f := newForge(t)
	f.next("root")
	f.putRoot()
	f.release()
	return f
}

// replace puts bytes in the place of a file, and lets the thief of the keys above it name them, so that they are looked at at all.
func (f *forge) replace(file string, b []byte) {
	f.t.Helper()
	switch file {
	case "2.targets.json":
		f.putTargets(b, f.files["metadata/2.plan.json"])
	case "2.plan.json":
		f.putTargets(f.files["metadata/2.targets.json"], b)
	case "2.snapshot.json":
		f.putSnapshot(b)
	default:
		f.put(file, b)
	}
}

// Whatever is in the place of a metadata file: the refusal names it, and nothing falls over.
func TestGarbage(t *testing.T) {
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, _ = w.Write(bytes.Repeat([]byte("0"), 10<<20))
	_ = w.Close()
	garbage := map[string][]byte{
		"nothing": {}, "null": []byte("null"), "true": []byte("true"), "a number": []byte("1e999"), "a list": []byte("[]"), "an object": []byte("{}"),
		"a page": []byte("<html>captive portal</html>"), "not UTF-8": {0xff, 0xfe, 0}, "zeros": make([]byte, 4096), "packed": packed.Bytes(),
		"deep lists": bytes.Repeat([]byte("["), 12000), "deep objects": []byte(strings.Repeat(`{"signed":`, 12000)),
		"signed null": []byte(`{"signed":null,"signatures":null}`), "no type": []byte(`{"signed":{},"signatures":[]}`),
		"another type": []byte(`{"signed":{"_type":"mirrors","version":2,"spec_version":"1.0.31"},"signatures":[]}`),
	}
	whole := secondVersion(t)
	for file := range metadataFiles {
		for what, b := range garbage {
			f := whole.copy()
			v := f.visitor()
			f.replace(file, b)
			if len(b) > 16<<10 {
				if err := v.read(f); err == nil || !strings.Contains(err.Error(), file) {
					t.Errorf("%s in %s: got %v", what, file, err)
				}
				continue
			}
			v.refused(what+" in "+file, f, tuf.Garbage, file)
		}
	}
}

// A file that is cut, or has a flipped bit in what is signed, is refused, or read as what was signed: white space may differ.
func TestCutAndFlipped(t *testing.T) {
	for file := range metadataFiles {
		f := secondVersion(t)
		whole := f.files["metadata/"+file]
		signed := bytes.Index(whole, []byte(`"signed"`)) + len(`"signed"`)
		step := max(1, len(whole)/16)
		for at := 0; at < len(whole); at += step {
			for what, b := range map[string][]byte{"cut": whole[:at], "flipped": flip(whole, at)} {
				g := f.copy()
				g.files["metadata/"+file] = b
				err := f.visitor().read(g)
				if what == "flipped" && err == nil && (at < signed || sameJSON(whole, b)) {
					continue // of three signatures two are enough
				}
				if err == nil || !strings.Contains(err.Error(), file) && file != "2.root.json" {
					t.Errorf("%s %s at %d: got %v", file, what, at, err)
				}
			}
		}
	}
}

func flip(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 1 << (at % 8)
	return b
}

func sameJSON(a, b []byte) bool {
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	return fmt.Sprint(x) == fmt.Sprint(y)
}

// Whoever holds the keys of a role can sign any nonsense. Each value of each file is replaced by values of other kinds, and signed: the
// client says what is wrong, or takes it, and always ends without a panic.
func TestSignedNonsense(t *testing.T) {
	nonsense := []any{nil, -1.0, map[string]any{"x": nil}} // FuzzThief tries more
	refused := 0
	v := newForge(t).visitor()
	for file, role := range metadataFiles {
		f := secondVersion(t)
		var whole struct {
			Signed json.RawMessage `json:"signed"`
		}
		if err := json.Unmarshal(f.files["metadata/"+file], &whole); err != nil {
			t.Fatal(err)
		}
		for i := range nodes(t, whole.Signed) {
			for _, value := range nonsense {
				var signed any
				if err := json.Unmarshal(whole.Signed, &signed); err != nil {
					t.Fatal(err)
				}
				n := i
				signed = put(signed, &n, value)
				g := f.copy()
				v.state = stateDir(t)
				g.replace(file, signAny(t, signed, g.keys[role]))
				if err := v.read(g); err != nil {
					refused++
				}
			}
		}
	}
	if refused < 300 {
		t.Errorf("only %d files were refused: is nonsense looked at?", refused)
	}
}

// nodes counts the values in a JSON text, its own among them.
func nodes(t *testing.T, b []byte) int {
	t.Helper()
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	n := 0
	var walk func(any)
	walk = func(v any) {
		n++
		switch v := v.(type) {
		case map[string]any:
			for _, k := range slices.Sorted(maps.Keys(v)) {
				walk(v[k])
			}
		case []any:
			for _, e := range v {
				walk(e)
			}
		}
	}
	walk(v)
	return n
}

// put replaces the n-th value in the order of nodes.
func put(v any, n *int, value any) any {
	if *n == 0 {
		*n = -1
		return value
	}
	*n--
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			if *n >= 0 {
				v[k] = put(v[k], n, value)
			}
		}
	case []any:
		for i := range v {
			if *n >= 0 {
				v[i] = put(v[i], n, value)
			}
		}
	}
	return v
}

// canonical is canonical JSON, as far as these files go: their strings need no escapes.
func canonical(t testing.TB, v any) []byte {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

func signAny(t testing.TB, signed any, keys []signature.Signer) []byte {
	t.Helper()
	payload := canonical(t, signed)
	signatures := []any{}
	for _, s := range keys {
		sig, err := s.SignMessage(bytes.NewReader(payload))
		if err != nil {
			t.Fatal(err)
		}
		signatures = append(signatures, map[string]any{"keyid": keyID(t, s), "sig": fmt.Sprintf("%x", sig)})
	}
	b, err := json.Marshal(map[string]any{"signed": signed, "signatures": signatures})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The next major version of the specification is not ours to read.
func TestSpecVersion(t *testing.T) {
	repo := secondVersion(t)
	for file, role := range metadataFiles {
		for _, version := range []string{"2.0.0", "0.9", "", "1", "one"} {
			f := repo.copy()
			v := f.visitor()
			var whole struct {
				Signed map[string]any `json:"signed"`
			}
			if err := json.Unmarshal(f.files["metadata/"+file], &whole); err != nil {
				t.Fatal(err)
			}
			whole.Signed["spec_version"] = version
			f.replace(file, signAny(t, whole.Signed, f.keys[role]))
			v.refused(file+" "+version, f, tuf.Garbage, file, "spec_version")
		}
	}
}

// Plans and releases are targets: what is in them is not looked at here, but all of it must be what was signed.
func TestFlippedTargets(t *testing.T) {
	f := newForge(t)
	for _, name := range []string{planName, releaseName} {
		c := f.visitor().open(f)
		target, err := c.Target(name)
		if err != nil {
			t.Fatal(err)
		}
		file := strings.TrimPrefix(target.URL, memory+"/")
		whole := f.files[file]
		for at := range whole {
			f.files[file] = flip(whole, at)
			if _, err := c.Read(name, 100); err == nil || !strings.Contains(err.Error(), digest.Of(whole).String()) {
				t.Fatalf("%s, byte %d: got %v", name, at, err)
			}
		}
		f.files[file] = whole
	}
}
