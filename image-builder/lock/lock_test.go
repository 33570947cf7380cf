package lock_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/proa-os/proa/image-builder/archivetest"
	"github.com/proa-os/proa/image-builder/lock"
)

var spec = lock.Spec{Arch: "amd64", Suites: []string{"trixie", "trixie-security"}, Include: []string{"hello"}}

const (
	helloURL = "/debian/pool/main/hello/hello_2.0-1_amd64.deb"
	libcURL  = "/debian-security/pool/main/libc6/libc6_2.41-12+deb13u1_amd64.deb"
)

func newArchive(t *testing.T) *archivetest.Archive {
	a := archivetest.New(t)
	big := strings.Repeat("0123456789abcdef", 4096)
	a.Add("trixie", archivetest.Deb{Name: "hello", Version: "1:2.0-1", Compression: "none",
		Fields: map[string]string{"Depends": "libc6 (>= 2.41)"}, Files: []archivetest.File{{Name: "./usr/bin/hello", Body: big, Mode: 0o755}}})
	a.Add("trixie", archivetest.Deb{Name: "libc6", Version: "2.41-12"})
	a.Add("trixie-security", archivetest.Deb{Name: "libc6", Version: "2.41-12+deb13u1", Files: []archivetest.File{{Name: "./usr/lib/libc.so.6", Body: "libc"}}})
	a.Publish()
	return a
}

func update(t *testing.T, a *archivetest.Archive) *lock.Lock {
	t.Helper()
	l, err := lock.Update(t.Context(), spec, a.Client(), new(bytes.Buffer))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestUpdate(t *testing.T) {
	a := newArchive(t)
	var progress bytes.Buffer
	l, err := lock.Update(t.Context(), spec, a.Client(), &progress)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "lock.json")
	if err := l.Write(file); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`{"name":"trixie","date":"2025-08-09T12:00:00Z"},`,
		`{"name":"hello","version":"1:2.0-1","arch":"amd64","archive":"main","suite":"trixie","filename":"pool/main/hello/hello_2.0-1_amd64.deb",`,
		`{"name":"libc6","version":"2.41-12+deb13u1","arch":"amd64","archive":"security","suite":"trixie-security",`,
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("lock file lacks %s:\n%s", want, b)
		}
	}
	if strings.Contains(string(b), "http") {
		t.Errorf("lock file names a mirror:\n%s", b)
	}
	again, err := lock.Read(file)
	if err != nil {
		t.Fatal(err)
	}
	b2, err := again.Marshal()
	if err != nil || !bytes.Equal(b, b2) {
		t.Errorf("read and written again: %v, got\n%swant\n%s", err, b2, b)
	}
	if !strings.Contains(progress.String(), "index of trixie-security (stable): 1 packages for amd64, dated 2025-08-09") || !strings.Contains(progress.String(), "resolved 2 packages") {
		t.Errorf("progress: got %q", progress.String())
	}
	if p, ok := l.Find("libc6"); !ok || p.String() != "libc6 2.41-12+deb13u1" {
		t.Errorf("find libc6: got %v, %v", p, ok)
	}
	if _, ok := l.Find("absent"); ok {
		t.Error("found a package that is not there")
	}
}

func TestCheck(t *testing.T) {
	l := lock.New(lock.Spec{Arch: "amd64", Suites: []string{"x"}, Include: []string{"b1", "a1"}}, nil, nil)
	if err := l.Check(lock.Spec{Arch: "amd64", Suites: []string{"x"}, Include: []string{"a1", "b1"}}); err != nil {
		t.Errorf("other order: %v", err)
	}
	if err := l.Check(lock.Spec{Arch: "amd64", Suites: []string{"x"}, Include: []string{"a1"}}); err == nil || !strings.Contains(err.Error(), "run image-builder lock") {
		t.Errorf("other list: got %v", err)
	}
}

func TestParseErrors(t *testing.T) {
	b, err := update(t, newArchive(t)).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	good := string(b)
	lines := strings.SplitAfter(good, "\n")
	for want, bad := range map[string]string{
		"unknown field":                strings.Replace(good, `"arch"`, `"arc"`, 1),
		"expected format 1, found 2":   strings.Replace(good, `"format": 1`, `"format": 2`, 1),
		"data after the object":        good + "{}",
		"unexpected EOF":               good[:len(good)/2],
		"does not sort behind":         strings.Join(lines[:9], "") + strings.TrimSuffix(lines[10], "\n") + ",\n" + strings.TrimSuffix(lines[9], ",\n") + "\n" + strings.Join(lines[11:], ""),
		"is neither amd64 nor all":     strings.Replace(good, `"version":"1:2.0-1","arch":"amd64"`, `"version":"1:2.0-1","arch":"arm64"`, 1),
		"is neither main nor security": strings.Replace(good, `"archive":"main"`, `"archive":"elsewhere"`, 1),
		"is not a path to a .deb":      strings.Replace(good, "pool/main/hello", "../main/hello", 1),
		"at most 8589934592":           strings.Replace(good, `"size":`, `"size":9999999`, 1),
		"suite trixie is there twice":  strings.Replace(good, `{"name":"trixie-security"`, `{"name":"trixie"`, 1),
		`suite "../x" is not`:          strings.Replace(good, `{"name":"trixie-security"`, `{"name":"../x"`, 1),
		"expected a date in UTC":       strings.Replace(good, "12:00:00Z", "14:00:00+02:00", 1),
		"parsing time":                 strings.Replace(good, "2025-08-09T12:00:00Z", "yesterday", 1),
		"parse sha256":                 strings.Replace(good, `"sha256":"`, `"sha256":"zz`, 1),
		"parse version":                strings.Replace(good, "1:2.0-1", "1:", 1),
		"package name":                 strings.Replace(good, `"name":"hello"`, `"name":"../hello"`, 1),
		"is not positive":              strings.Replace(good, `"size":`, `"size":-`, 1),
	} {
		if _, err := lock.Parse([]byte(bad)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}

func TestReadMissing(t *testing.T) {
	if _, err := lock.Read(filepath.Join(t.TempDir(), "lock.json")); err == nil || !strings.Contains(err.Error(), "run image-builder lock") {
		t.Errorf("got %v, want the command that makes a lock", err)
	}
}

func TestReadManifest(t *testing.T) {
	const good = "mirror = \"http://m.test/debian\"\n[packages]\narch = \"amd64\"\nsuites = [\"trixie\"]\ninclude = [\"a1\", \"b2\"]\nexclude = [\"c3\"]\n"
	for _, tc := range []struct{ name, text, want string }{
		{"good", good, ""},
		{"unknown key", good + "inclde = []\n", "unknown key packages.inclde"},
		{"unknown table", good + "[other]\nx = 1\n", "unknown key other"},
		{"wrong type", strings.Replace(good, `["c3"]`, `"c3"`, 1), "line 6"},
		{"syntax", good + "=\n", "line 7"},
		{"no arch", strings.Replace(good, "amd64", "", 1), "no arch"},
		{"unknown arch", strings.Replace(good, "amd64", "x86_64", 1), `architecture "x86_64" is not one of amd64, arm64`},
		{"suite twice", strings.Replace(good, `["trixie"]`, `["trixie", "trixie"]`, 1), "suite trixie is there twice"},
		{"no suites", strings.Replace(good, `["trixie"]`, "[]", 1), "no suites"},
		{"no include", strings.Replace(good, `["a1", "b2"]`, "[]", 1), "no include"},
		{"suite", strings.Replace(good, `["trixie"]`, `["../x"]`, 1), `suite "../x"`},
		{"twice", strings.Replace(good, "b2", "a1", 1), "include: a1 is there twice"},
		{"name", strings.Replace(good, "c3", "C3", 1), "exclude: package name"},
	} {
		file := filepath.Join(t.TempDir(), "m.toml")
		if err := os.WriteFile(file, []byte(tc.text), 0o644); err != nil {
			t.Fatal(err)
		}
		m, err := lock.ReadManifest(file)
		switch {
		case tc.want == "" && (err != nil || m.Mirror != "http://m.test/debian" || len(m.Packages.Include) != 2):
			t.Errorf("%s: got %+v, %v", tc.name, m, err)
		case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), file)):
			t.Errorf("%s: got %v, want an error with %q and the file", tc.name, err, tc.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"format":1,"arch":"amd64","spec":"` + strings.Repeat("0", 64) + `","packages":[]}`))
	f.Add([]byte(`{"format":1,"arch":"amd64","spec":"` + strings.Repeat("0", 64) + `","suites":[{"name":"trixie","date":"2025-08-09T12:00:00Z"}],"packages":[` +
		`{"name":"a1","version":"1:2~3-4","arch":"all","archive":"main","suite":"trixie","filename":"pool/a.deb","size":1,"sha256":"` + strings.Repeat("1", 64) + `"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := lock.Parse(b)
		if err != nil {
			return
		}
		text, err := l.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		again, err := lock.Parse(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if text2, err := again.Marshal(); err != nil || !bytes.Equal(text, text2) {
			t.Fatalf("got %s, %v, want %s", text2, err, text)
		}
	})
}
