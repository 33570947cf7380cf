package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/update-engine/plan"
	"github.com/proa-os/proa/update-engine/repotest"
)

// The test binary is the client too.
func TestMain(m *testing.M) {
	if os.Getenv("PROA_TUF_CLIENT") != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A runner drives the client as the conformance tests do.
type runner struct {
	t                 *testing.T
	server            *repotest.Server
	metadata, targets string
	now               time.Time
}

func newRunner(t *testing.T, r *repotest.Repo) *runner {
	c := &runner{t: t, server: r.Serve(t), metadata: t.TempDir(), targets: t.TempDir(), now: r.Time}
	root := filepath.Join(t.TempDir(), "root.json")
	if err := os.WriteFile(root, r.Root, 0o644); err != nil {
		t.Fatal(err)
	}
	if code, out := c.run("init", root); code != 0 || len(c.server.Requests()) != 0 {
		t.Fatalf("init: exit status %d, %v\n%s", code, c.server.Requests(), out)
	}
	return c
}

func (c *runner) run(args ...string) (code int, out string) {
	c.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		c.t.Fatal(err)
	}
	cmd := exec.Command(exe, append([]string{"--metadata-dir", c.metadata}, args...)...)
	cmd.Env = append(os.Environ(), "PROA_TUF_CLIENT=1", "FAKETIME_NOW="+c.now.Format(time.RFC3339))
	b, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		c.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(b)
}

func (c *runner) refresh() (int, string) {
	return c.run("--metadata-url", c.server.URL+"/metadata", "refresh")
}

func (c *runner) download(names ...string) (int, string) {
	args := []string{"--metadata-url", c.server.URL + "/metadata/", "--target-base-url", c.server.URL + "/targets/", "--target-dir", c.targets}
	for _, n := range names {
		args = append(args, "--target-name", n)
	}
	return c.run(append(args, "download")...)
}

func (c *runner) files(dir, pattern string) []string {
	names, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		c.t.Fatal(err)
	}
	for i := range names {
		names[i] = filepath.Base(names[i])
	}
	return names
}

func TestRefresh(t *testing.T) {
	r := repotest.New(t)
	c := newRunner(t, r)
	if code, out := c.refresh(); code != 0 {
		t.Fatalf("exit status %d: %s", code, out)
	}
	if got, want := c.server.Requests(), []string{"GET /metadata/2.root.json", "GET /metadata/timestamp.json", "GET /metadata/1.snapshot.json", "GET /metadata/1.targets.json"}; !slices.Equal(got, want) {
		t.Errorf("requests %v, want %v", got, want)
	}
	if got, want := c.files(c.metadata, "*.json"), []string{"root.json", "snapshot.json", "targets.json", "timestamp.json"}; !slices.Equal(got, want) {
		t.Errorf("stored %v, want %v", got, want)
	}
	for _, names := range [][2]string{{"root.json", "1.root.json"}, {"timestamp.json", "timestamp.json"}, {"targets.json", "1.targets.json"}} {
		a, err := os.ReadFile(filepath.Join(c.metadata, names[0]))
		b, err2 := os.ReadFile(filepath.Join(r.Dir, "metadata", names[1]))
		if err != nil || err2 != nil || !bytes.Equal(a, b) {
			t.Errorf("%s is not what the server gave: %v, %v", names[0], err, err2)
		}
	}
	c.now = r.Time.Add(48 * time.Hour)
	if code, out := c.refresh(); code != 1 || !strings.Contains(out, "expired") {
		t.Errorf("two days later: exit status %d: %s", code, out)
	}
}

func TestDownload(t *testing.T) {
	r := repotest.New(t)
	r.Release(t, repotest.NewBuild(t, "1.0.1"))
	c := newRunner(t, r)
	const name = "releases/1.0.1/amd64/release.json"
	for range 2 {
		if code, out := c.download(name, plan.Target("stable")); code != 0 {
			t.Fatalf("exit status %d: %s", code, out)
		}
	}
	if got := c.files(c.targets, "*"); len(got) != 2 {
		t.Errorf("stored %v", got)
	}
	n := 0
	for _, req := range c.server.Requests() {
		if strings.Contains(req, "/targets/") {
			n++
		}
	}
	if n != 2 {
		t.Errorf("%d downloads of two targets: %v", n, c.server.Requests())
	}
	// What is there already is compared; the server's is, too.
	file := filepath.Join(c.targets, c.files(c.targets, "*release*")[0])
	if err := os.WriteFile(file, []byte("changed"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(c.metadata, "cache")); err != nil {
		t.Fatal(err)
	}
	c.server.Tamper("release.json", func(b []byte) { b[0] ^= 1 })
	if code, out := c.download(name); code != 1 || !strings.Contains(out, "tampered") {
		t.Errorf("a changed target: exit status %d: %s", code, out)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "changed" {
		t.Errorf("what was refused was stored: %.20q, %v", b, err)
	}
	c.server.Tamper("release.json", nil)
	if code, out := c.download("nonexistent target", name); code != 1 || !strings.Contains(out, "not signed") {
		t.Errorf("no such target: exit status %d: %s", code, out)
	}
	if code, out := c.download(name); code != 0 {
		t.Errorf("again: exit status %d: %s", code, out)
	}
}

func TestUsage(t *testing.T) {
	c := newRunner(t, repotest.New(t))
	for _, args := range [][]string{{}, {"refresh", "now"}, {"fetch"}, {"init"}, {"--color", "refresh"}} {
		if code, out := c.run(args...); code != 1 || out == "" {
			t.Errorf("%v: exit status %d: %s", args, code, out)
		}
	}
	if err := os.WriteFile(filepath.Join(c.metadata, anchorFile), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	if code, out := c.refresh(); code != 1 || !strings.Contains(out, "trust anchor") || len(c.server.Requests()) != 0 {
		t.Errorf("a bad root: exit status %d, requests %v: %s", code, c.server.Requests(), out)
	}
}
