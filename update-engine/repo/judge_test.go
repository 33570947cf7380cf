package repo_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/internal/tooltree"
	"github.com/proa-os/proa/update-engine/repo"
	"github.com/proa-os/proa/update-engine/repotest"
)

// referenceClient runs the Python reference client and returns what it prints.
func referenceClient(t *testing.T, tools *tooltree.Tree, url, anchor, folder string) (string, error) {
	t.Helper()
	script, err := filepath.Abs("testdata/client.py")
	if err != nil {
		t.Fatal(err)
	}
	cmd := tools.Command(t.Context(), "python3.13", script, url, anchor, folder, "stable")
	if cmd.Err != nil {
		testenv.Missing(t, "by the reference client of TUF: %v", cmd.Err)
	}
	cmd.Env = append(cmd.Environ(), "PYTHONHOME="+tools.Path("usr"), "PYTHONPATH="+tools.Path("usr/lib/python3/dist-packages"), "PYTHONDONTWRITEBYTECODE=1", "no_proxy=*")
	out, err := cmd.Output()
	if exit, ok := err.(*exec.ExitError); ok {
		lines := strings.Split(strings.TrimSpace(string(exit.Stderr)), "\n")
		return lines[len(lines)-1], err
	}
	return strings.TrimSpace(string(out)), err
}

// The TUF project's reference client, python-tuf, reads what we write: releases, payloads, deltas, a plan, keys of every role changed
// twice; and it refuses what it must.
func TestReferenceClient(t *testing.T) {
	t.Parallel()
	tools := testenv.Tools(t)
	d := careful(t)
	now := time.Now() // it has no other clock; the repository's year is long over or has not begun
	d.Now = func() time.Time { return now }
	if _, err := d.Renew("root", "targets"); err != nil {
		t.Fatal(err)
	}
	issue(t, d, repotest.Similar(t, "1.0.0", 256<<10), repo.Options{})
	url, anchor, folder := serve(t, d.Dir), filepath.Join(d.Dir, "metadata/1.root.json"), t.TempDir()
	want := func(version string) {
		t.Helper()
		if got, err := referenceClient(t, tools, url, anchor, folder); err != nil || got != version {
			t.Errorf("got %q, %v, want %s", got, err, version)
		}
	}
	want("1.0.0")
	issue(t, d, repotest.Similar(t, "1.0.1", 256<<10), repo.Options{Deltas: 1})
	for range 2 {
		rotateAll(t, d)
		if _, err := d.PublishStaged(nil); err != nil {
			t.Fatal(err)
		}
	}
	want("1.0.1")
	if got, err := referenceClient(t, tools, url, anchor, t.TempDir()); err != nil || got != "1.0.1" {
		t.Errorf("a client that knows only the first root: got %q, %v", got, err)
	}
	old, err := os.ReadFile(filepath.Join(d.Dir, "metadata/timestamp.json"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.PublishPlan(repo.PlanEdit{Channel: "stable", Version: "1.0.0"}); err != nil {
		t.Fatal(err)
	}
	want("1.0.0")
	if err := os.WriteFile(filepath.Join(d.Dir, "metadata/timestamp.json"), old, 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := referenceClient(t, tools, url, anchor, folder); err == nil || !strings.Contains(got, "BadVersionNumber") {
		t.Errorf("an older timestamp: got %q, %v", got, err)
	}
	now = now.Add(-48 * time.Hour)
	if _, err := d.Refresh(); err != nil {
		t.Fatal(err)
	}
	if got, err := referenceClient(t, tools, url, anchor, t.TempDir()); err == nil || !strings.Contains(got, "Expired") {
		t.Errorf("an expired timestamp: got %q, %v", got, err)
	}
}
