package lock_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/image-builder/archivetest"
	"github.com/proa-os/proa/image-builder/lock"
)

// world is a directory with keys, apt sources and locks, and the archive they are about.
type world struct {
	t   *testing.T
	dir string
	a   *archivetest.Archive
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), a: newArchive(t)}
	w.write("key.gpg", archivetest.PublicKeys(t, w.a.Key))
	w.write("sources.list", []byte("deb "+w.a.Serve().Main+" bookworm main\n"))
	return w
}

func (w *world) write(name string, b []byte) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, name), b, 0o644); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) read(name string) string {
	w.t.Helper()
	b, err := os.ReadFile(filepath.Join(w.dir, name))
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

// options pins hello.toml.
func (w *world) options() lock.Options {
	return lock.Options{
		Targets: []lock.Target{{Manifest: "hello.toml", Spec: spec, LockFile: filepath.Join(w.dir, "hello.lock.json")}},
		Keys:    w.dir, APT: w.dir, Progress: new(bytes.Buffer),
	}
}

func (w *world) run(o lock.Options) []lock.Changes {
	w.t.Helper()
	changes, err := lock.Run(w.t.Context(), o)
	if err != nil {
		w.t.Fatal(err)
	}
	return changes
}

// TestRun is the command as a whole: from the host's apt sources to the lock files, and failures that leave the old ones.
func TestRun(t *testing.T) {
	w := newWorld(t)
	o := w.options()
	libc := spec
	libc.Include = []string{"libc6"}
	o.Targets = append(o.Targets, lock.Target{Manifest: "libc.toml", Spec: libc, LockFile: filepath.Join(w.dir, "libc.lock.json")})
	changes := w.run(o)
	if len(changes) != 2 || len(changes[0].Added) != 2 || len(changes[1].Added) != 1 || !changes[0].Changed {
		t.Errorf("first lock: got %+v", changes)
	}
	// Both locks come from one reading of the indexes.
	n := 0
	for _, r := range w.a.Requests() {
		if strings.Contains(r, "InRelease") {
			n++
		}
	}
	if n != 2 {
		t.Errorf("got %d requests of InRelease, want one for each suite: %q", n, w.a.Requests())
	}
	before := w.read("hello.lock.json") + w.read("libc.lock.json")

	w.a.Add("trixie", archivetest.Deb{Name: "hello", Version: "1:3.0-1"})
	w.a.Publish()
	o.Targets[1].Spec.Include = []string{"absent"}
	if _, err := lock.Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "libc.toml: resolve packages: include absent") {
		t.Errorf("absent package: got %v", err)
	}
	if after := w.read("hello.lock.json") + w.read("libc.lock.json"); after != before {
		t.Error("a failure about the second manifest has changed a lock")
	}
	if files, err := filepath.Glob(filepath.Join(w.dir, ".*")); err != nil || len(files) > 0 {
		t.Errorf("left behind: %v, %v", files, err)
	}
}

// TestRunWritesWhole: a directory that cannot be written to leaves the old lock.
func TestRunWritesWhole(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("SKIPPED, NOT CHECKED: root may write everywhere")
	}
	w := newWorld(t)
	o := w.options()
	w.run(o)
	before := w.read("hello.lock.json")
	w.a.Add("trixie", archivetest.Deb{Name: "hello", Version: "1:3.0-1"})
	w.a.Publish()
	if err := os.Chmod(w.dir, 0o500); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(w.dir, 0o700)
	if _, err := lock.Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "write lock") {
		t.Errorf("got %v", err)
	}
	if w.read("hello.lock.json") != before {
		t.Error("the old lock was changed")
	}
}

// TestRunCheck is what a bot that waits for security updates does.
func TestRunCheck(t *testing.T) {
	w := newWorld(t)
	o := w.options()
	w.run(o)
	before := w.read("hello.lock.json")
	o.DryRun = true
	if c := w.run(o)[0]; c.Changed || len(c.Updated)+len(c.Added)+len(c.Removed)+len(c.Moved) != 0 {
		t.Errorf("nothing new: got %+v", c)
	}
	w.a.Now = w.a.Now.Add(time.Hour)
	w.a.Publish()
	if c := w.run(o)[0]; c.Changed || !c.Suites[0].New.After(*c.Suites[0].Old) {
		t.Errorf("a newer state without newer packages: got %+v", c)
	}
	w.a.Add("trixie-security", archivetest.Deb{Name: "libc6", Version: "2.41-12+deb13u2", Fields: map[string]string{"Depends": "libgcc-s1"}})
	w.a.Add("trixie", archivetest.Deb{Name: "libgcc-s1", Version: "14"})
	w.a.Publish()
	c := w.run(o)[0]
	var text bytes.Buffer
	if err := c.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	want := "  libc6 2.41-12+deb13u1 -> 2.41-12+deb13u2 (trixie-security)\n+ libgcc-s1 14 (trixie)\n" +
		o.Targets[0].LockFile + ": 1 updated, 1 added, 0 removed, 0 moved\n"
	if text.String() != want || !c.Changed || !c.Updated[0].Security || c.Added[0].Security {
		t.Errorf("got %s%+v, want %s", text.String(), c, want)
	}
	if w.read("hello.lock.json") != before {
		t.Error("a dry run has written the lock")
	}
}

// TestRunRollback: once locked, an older signed state is refused, though its signature is as good as ever.
func TestRunRollback(t *testing.T) {
	w := newWorld(t)
	o := w.options()
	w.run(o)
	old := map[string][]byte{}
	for _, suite := range []string{"/debian/dists/trixie", "/debian-security/dists/trixie-security"} {
		for _, file := range []string{suite + "/InRelease", suite + "/main/binary-amd64/Packages.xz"} {
			old[file] = w.a.Get(file)
		}
	}
	w.a.Now = w.a.Now.Add(48 * time.Hour)
	w.a.Add("trixie-security", archivetest.Deb{Name: "libc6", Version: "2.41-12+deb13u2"})
	w.a.Publish()
	w.run(o)
	fixed := w.read("hello.lock.json")
	if !strings.Contains(fixed, "2.41-12+deb13u2") {
		t.Fatalf("the fix is not locked: %s", fixed)
	}
	for file, b := range old {
		w.a.Put(file, b)
	}
	_, err := lock.Run(t.Context(), o)
	for _, want := range []string{"index of trixie", "2025-08-09", "2025-08-11", "replays an old state", "--allow-older"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
	if w.read("hello.lock.json") != fixed {
		t.Error("the refused state has changed the lock")
	}
	// A manifest without that suite in its lock has no floor for it, and the flag lifts it.
	o.AllowOlder = true
	if c := w.run(o)[0]; len(c.Updated) != 1 || !c.Updated[0].Downgrade || c.Updated[0].Old != "2.41-12+deb13u2" || c.Updated[0].New != "2.41-12+deb13u1" {
		t.Errorf("with --allow-older: got %+v", c)
	}
}

// TestRunOldLock: a lock of before suites were recorded is taken; a damaged one is not overwritten.
func TestRunOldLock(t *testing.T) {
	w := newWorld(t)
	o := w.options()
	w.run(o)
	l, err := lock.Read(o.Targets[0].LockFile)
	if err != nil {
		t.Fatal(err)
	}
	withSuites, err1 := l.PackagesSum()
	l.Suites = nil
	without, err2 := l.PackagesSum()
	if err := errors.Join(err1, err2, l.Write(o.Targets[0].LockFile)); err != nil || withSuites != without {
		t.Fatalf("sum of the packages: got %s with suites and %s without, %v", withSuites, without, err)
	}
	if strings.Contains(w.read("hello.lock.json"), "suites") {
		t.Error("a lock without suites gets an empty list")
	}
	if c := w.run(o)[0]; c.Changed || c.Suites[0].Old != nil {
		t.Errorf("old lock: got %+v", c)
	}
	w.write("hello.lock.json", []byte("<<<<<<< HEAD\n"))
	if _, err := lock.Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "remove it to begin anew") {
		t.Errorf("damaged lock: got %v", err)
	}
}

func TestDiff(t *testing.T) {
	l := update(t, newArchive(t))
	other := *l
	other.Packages = append([]lock.Package{{Name: "gone", Version: "1"}}, l.Packages...)
	other.Packages[1].SHA256[0] ^= 1
	other.Packages[2].Suite = "trixie-updates"
	b, err := json.Marshal(lock.Diff(&other, l))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"manifest":"","lock":"","changed":true,` +
		`"updated":[{"name":"hello","old":"1:2.0-1","new":"1:2.0-1","suite":"trixie","security":false,"replaced":true}],"added":[],` +
		`"removed":[{"name":"gone","old":"1","suite":"","security":false}],` +
		`"moved":[{"name":"libc6","old":"2.41-12+deb13u1","new":"2.41-12+deb13u1","suite":"trixie-security","security":true}],` +
		`"suites":[{"name":"trixie","old":"2025-08-09T12:00:00Z","new":"2025-08-09T12:00:00Z"},{"name":"trixie-security","old":"2025-08-09T12:00:00Z","new":"2025-08-09T12:00:00Z"}]}`
	if string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
	var text bytes.Buffer
	if err := lock.Diff(&other, l).WriteText(&text); err != nil || !strings.Contains(text.String(), "OTHER CONTENT UNDER THE SAME VERSION") {
		t.Errorf("got %s, %v", text.String(), err)
	}
}
