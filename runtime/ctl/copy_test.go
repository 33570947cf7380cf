package ctl

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCopy: files go in and out of a container that runs and of one that does not; its links lead nowhere else.
func TestCopy(t *testing.T) {
	needContainers(t)
	m := newMachine(t)
	m.must("run", "-d", "--tls-verify=false", "--network", "none", "--name", "web", m.image(), "sleep")
	site := filepath.Join(m.dir, "site")
	if err := os.MkdirAll(filepath.Join(site, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"index.html": "new", "sub/page": "page"} {
		if err := os.WriteFile(filepath.Join(site, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	read := func(name string) string { b, _ := os.ReadFile(filepath.Join(m.dir, name)); return string(b) }
	for _, state := range []string{"running", "stopped"} {
		m.must("cp", site+"/.", "web:/www")
		m.must("cp", site, "web:/data/copy-"+state)
		m.must("cp", "web:/www/index.html", filepath.Join(m.dir, "out-"+state))
		if got := read("out-" + state); got != "new" {
			t.Errorf("%s: %q", state, got)
		}
		m.must("cp", "web:/data/copy-"+state, filepath.Join(m.dir, "tree-"+state))
		if got := read("tree-" + state + "/sub/page"); got != "page" {
			t.Errorf("%s: %q", state, got)
		}
		if out := m.must("cp", "web:/etc/passwd", "-"); !strings.Contains(out, "www:x:33") || !strings.Contains(out, "ustar") {
			t.Errorf("%s: no archive: %.80q", state, out)
		} else if _, errs, code := m.ctlIn(out, "cp", "-", "web:/data"); code != 0 {
			t.Errorf("%s: exit %d from an archive: %s", state, code, errs)
		}
		m.must("cp", "web:/data/passwd", filepath.Join(m.dir, "back-"+state))
		if got := read("back-" + state); !strings.Contains(got, "www:x:33") {
			t.Errorf("%s: from an archive came %.80q", state, got)
		}
		m.must("stop", "web")
	}
	if got := read("store/containers/web/upper/www/sub/page"); got != "page" {
		t.Errorf("upper: %q", got)
	}
	// The container has a link to the machine's files.
	if err := os.Symlink(m.dir, filepath.Join(m.dir, "store/containers/web/upper/trap")); err != nil {
		t.Fatal(err)
	}
	m.must("start", "web")
	m.mustFail("no such file", "cp", "web:/trap/site/index.html", filepath.Join(m.dir, "stolen"))
	m.mustFail("", "cp", site+"/index.html", "web:/trap/planted/")
	if read("stolen") != "" || read("planted/index.html") != "" {
		t.Error("it has led out")
	}
	m.mustFail("want one path of a container", "cp", "/a", "/b")
	m.mustFail("is no directory", "cp", site, "web:/etc/passwd")
	m.must("rm", "-f", "web")
}
