package endpoint

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/proa-os/proa/runtime/ref"
)

func config(t *testing.T, registries, auth string) Config {
	t.Helper()
	dir := t.TempDir()
	c := Config{Registries: filepath.Join(dir, "registries.conf"), Auth: []string{filepath.Join(dir, "none.json"), filepath.Join(dir, "auth.json")}, Certs: []string{filepath.Join(dir, "certs.d")}}
	for name, text := range map[string]string{"registries.conf": registries, "auth.json": auth} {
		if text == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// show is one endpoint a word: name, then ! for insecure, t or d where it serves only tags or digests.
func show(list []Endpoint) string {
	var words []string
	for _, e := range list {
		w := e.Name
		if e.Insecure {
			w += "!"
		}
		if !e.Digests {
			w += " t"
		}
		if !e.Tags {
			w += " d"
		}
		words = append(words, w)
	}
	return strings.Join(words, ", ")
}

func TestFor(t *testing.T) {
	c := config(t, `
unqualified-search-registries = ["docker.io"]
[[registry]]
location = "docker.io"
[[registry.mirror]]
location = "mirror.example:5000/hub"
insecure = true
[[registry.mirror]]
location = "second.example"
pull-from-mirror = "digest-only"
[[registry]]
prefix = "example.org/team"
location = "store.example/x"
mirror-by-digest-only = true
[[registry.mirror]]
location = "near.example/y"
[[registry]]
location = "example.org"
insecure = true
[[registry]]
prefix = "example.org/team/evil"
blocked = true
[[registry]]
prefix = "*.inner.example"
location = "cache.example/inner"
`, "")
	for name, want := range map[string]string{
		"busybox":                   "mirror.example:5000/hub/library/busybox!, second.example/library/busybox d, docker.io/library/busybox",
		"example.org/team/a:1":      "near.example/y/a d, store.example/x/a",
		"example.org/teams/a":       "example.org/teams/a!",
		"example.org:5000/team/a":   "example.org:5000/team/a",
		"a.inner.example/b":         "cache.example/inner/b",
		"inner.example.evil.test/b": "inner.example.evil.test/b",
	} {
		r, err := ref.Parse(name)
		if err != nil {
			t.Fatal(err)
		}
		list, err := c.For(r, false)
		if got := show(list); err != nil || got != want {
			t.Errorf("%s: %s %v, want %s", name, got, err, want)
		}
	}
	r, _ := ref.Parse("example.org/team/evil/x")
	if _, err := c.For(r, true); err == nil || !strings.Contains(err.Error(), "blocked by") {
		t.Errorf("blocked: %v", err)
	}
}

// TestDropIn: files in registries.conf.d replace what the main file says of a prefix.
func TestDropIn(t *testing.T) {
	c := config(t, "[[registry]]\nlocation = \"example.org\"\n", "")
	if err := os.Mkdir(c.Registries+".d", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.Registries+".d/10.conf", []byte("[[registry]]\nprefix = \"example.org\"\nlocation = \"other.example\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r, _ := ref.Parse("example.org/a")
	if list, err := c.For(r, false); err != nil || show(list) != "other.example/a" {
		t.Errorf("%s %v", show(list), err)
	}
}

func TestBadConf(t *testing.T) {
	r, _ := ref.Parse("example.org/a")
	for text, want := range map[string]string{
		"[[registry]]\nlocation = \"x\"\nblockd = true\n":                      "unknown key registry.blockd",
		"[[registry]]\nblocked = true\n":                                       "neither prefix nor location",
		"[[registry]]\nlocation = \"https://x\"\n":                             "want host",
		"[[registry]]\nlocation = \"x\"\n[[registry]]\nlocation = \"x\"\n":     "twice",
		"[[registry]]\nlocation = \"x\"\n[[registry.mirror]]\ninsecure=true\n": "a mirror without location",
		"[[registry]\n": "registries.conf",
	} {
		if _, err := config(t, text, "").For(r, false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q in it", text, err, want)
		}
	}
}

func TestCredentials(t *testing.T) {
	dir := t.TempDir()
	helper := "#!/bin/sh\nread s || true\ncase $s in helped.example) echo '{\"Username\":\"<token>\",\"Secret\":\"tok\"}';; store.example) echo '{\"Username\":\"u\",\"Secret\":\"p\"}';; *) echo credentials not found in native keychain; exit 1;; esac\n"
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-test"), []byte(helper), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	c := config(t, "", `{"auths":{"example.org":{"auth":"YW5uOnNlY3JldDp4"},"example.org/team":{"auth":"Ym9iOnA="},"https://index.docker.io/v1/":{"username":"h","password":"q"},
		"dots.example":{}},"credHelpers":{"helped.example":"test"},"credsStore":"test","HttpHeaders":{"x":"y"}}`)
	for name, want := range map[string]string{
		"example.org/a": "ann secret:x ", "example.org/team/a": "bob p ", "example.org:5000/a": "  ", "busybox": "h q ",
		"helped.example/a": "  tok", "store.example/a": "u p ", "dots.example/a": "  ",
	} {
		r, _ := ref.Parse(name)
		list, err := c.For(r, false)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		a := list[0].Auth
		if got := fmt.Sprint(a.Username, " ", a.Password, " ", a.Token); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	for text, want := range map[string]string{`{`: "auth.json", `{"auths":{"example.org":{"auth":"!"}}}`: "entry example.org", `{"credHelpers":{"example.org":"../x"}}`: "no name of a program"} {
		r, _ := ref.Parse("example.org/a")
		if _, err := config(t, "", text).For(r, false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q in it", text, err, want)
		}
	}
}

func TestSave(t *testing.T) {
	c := config(t, "", "")
	file := c.Auth[1]
	r, _ := ref.Parse("example.org/a")
	for _, a := range []Auth{{Username: "ann", Password: "a:b"}, {}} {
		if err := Save(file, "example.org", a); err != nil {
			t.Fatal(err)
		}
		list, err := c.For(r, false)
		if err != nil || list[0].Auth != a {
			t.Errorf("%+v %v", list[0].Auth, err)
		}
	}
	if i, err := os.Stat(file); err != nil || i.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", i.Mode(), err)
	}
}

func TestCertificates(t *testing.T) {
	c := config(t, "", "")
	dir := filepath.Join(c.Certs[0], "example.org:5000")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"a.crt", "b.crt", "client.cert", "client.key", "other"} {
		if err := os.WriteFile(filepath.Join(dir, n), []byte(n), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"example.org:5000/a": "a.crt\nb.crt\n client.cert client.key", "example.org/a": "  "} {
		r, _ := ref.Parse(name)
		list, err := c.For(r, false)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%s %s %s", list[0].CA, list[0].Cert, list[0].Key); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
