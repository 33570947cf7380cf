package durable_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/durable"
	"github.com/proa-os/proa/internal/durable/durabletest"
)

const name, leftover = "a/state", "a/.state.new"

// disk has the old content, and what an earlier cut left.
func disk() *durabletest.Disk {
	return durabletest.New(map[string]string{name: "old", leftover: "what an earlier cut left"})
}

func TestOrderOfCalls(t *testing.T) {
	d := disk()
	if err := durable.Replace(d, name, []byte("new"), 0o640); err != nil {
		t.Fatal(err)
	}
	want := []string{"open a/.state.new", "chmod 640", "write", "sync", "close", "rename a/.state.new a/state", "sync a"}
	if !slices.Equal(d.Calls, want) {
		t.Errorf("calls: got %q, want %q", d.Calls, want)
	}
}

// cuts goes through every power cut after every call of change, with none of the calls failing and with each.
func cuts(t *testing.T, before map[string]string, change func(durable.Directory) error, check func(t *testing.T, files map[string]string, err error, over bool)) {
	t.Helper()
	for failAt, calls := 0, 1; failAt <= calls; failAt++ {
		d := durabletest.New(before)
		d.FailAt = failAt
		n := 0
		look := func(err error, over bool) {
			for _, files := range d.Cuts() {
				n++
				if check(t, files, err, over); t.Failed() {
					t.Fatalf("cut after %q, call %d failed, is over %v: left %q", d.Calls, failAt, over, files)
				}
			}
		}
		d.After = func() { look(nil, false) }
		look(nil, false)
		err := change(d)
		d.After = nil
		if (err != nil) != (failAt > 0) || err != nil && !errors.Is(err, durabletest.ErrInjected) {
			t.Fatalf("call %d failed: got error %v", failAt, err)
		}
		look(err, true)
		if failAt == 0 {
			if calls = len(d.Calls); n <= calls {
				t.Errorf("%d cuts in %d calls: nothing is ever lost", n, calls)
			}
		}
	}
}

// A power cut after any call leaves the old content or the new, and the new if there was no error. What else it leaves is overwritten by the
// next replacement, which may be cut as well.
func TestReplaceAndPowerCuts(t *testing.T) {
	replace := func(content string) func(durable.Directory) error {
		return func(d durable.Directory) error { return durable.Replace(d, name, []byte(content), 0o640) }
	}
	again := map[string]bool{}
	for _, before := range []map[string]string{{}, {name: "old"}, {name: "old", leftover: "left"}} {
		cuts(t, before, replace("new"), func(t *testing.T, files map[string]string, err error, over bool) {
			got, ok := files[name]
			_, had := before[name]
			if got != "new" && (ok != had || got != before[name]) || over && err == nil && got != "new" {
				t.Errorf("got %q, %v", got, ok)
			}
			if key := fmt.Sprint(files); !again[key] {
				again[key] = true
				cuts(t, files, replace("newer"), func(t *testing.T, files map[string]string, err error, over bool) {
					if now, exists := files[name]; now != "newer" && (exists != ok || now != got) || over && err == nil && now != "newer" {
						t.Errorf("the next time: got %q, %v", now, exists)
					}
				})
			}
		})
	}
}

// What is seen while the power is on is one of the two at any moment, too; an error before the last call means the old one, and then no
// temporary file stays.
func TestEveryCallFails(t *testing.T) {
	const calls = 7
	for n := 1; n <= calls; n++ {
		d := disk()
		d.FailAt = n
		d.After = func() {
			if got := d.Seen()[name]; got != "old" && got != "new" {
				t.Errorf("after %q: seen %q", d.Calls, got)
			}
		}
		if err := durable.Replace(d, name, []byte("new"), 0o640); !errors.Is(err, durabletest.ErrInjected) {
			t.Errorf("call %d (%s) failed: got error %v, want the injected one", n, d.Calls[n-1], err)
		}
		want := "old"
		if n == calls {
			want = "new"
		}
		if got := d.Seen()[name]; got != want {
			t.Errorf("call %d (%s) failed: seen %q, want %q", n, d.Calls[n-1], got, want)
		}
		if _, ok := d.Seen()[leftover]; ok {
			t.Errorf("call %d (%s) failed: the temporary file stays", n, d.Calls[n-1])
		}
	}
}

// What was there before stays whole, whatever a power cut leaves of what is appended.
func TestAppendAndPowerCuts(t *testing.T) {
	for _, before := range []map[string]string{{}, {name: "one\n"}} {
		cuts(t, before, func(d durable.Directory) error { return durable.Append(d, name, []byte("two\n"), 0o640) },
			func(t *testing.T, files map[string]string, err error, over bool) {
				got, ok := strings.CutPrefix(files[name], before[name])
				if !ok || len(got) > len("two\n") || over && err == nil && got != "two\n" {
					t.Errorf("got %q", files[name])
				}
			})
	}
	// Not one that was made, and then appended to in peace.
	d := durabletest.New(nil)
	for range 2 {
		if err := durable.Append(d, name, []byte("line\n"), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	for _, files := range d.Cuts() {
		if files[name] != "line\nline\n" {
			t.Errorf("got %q", files)
		}
	}
}

func TestMoveAndDeleteAndPowerCuts(t *testing.T) {
	const other = "a/other"
	before := map[string]string{name: "old", other: "replaced"}
	cuts(t, before, func(d durable.Directory) error { return durable.Move(d, name, other) },
		func(t *testing.T, files map[string]string, err error, over bool) {
			_, old := files[name]
			done := files[other] == "old" && !old
			if !done && (files[name] != "old" || files[other] != "replaced") || over && err == nil && !done {
				t.Error("neither before nor behind the rename")
			}
		})
	cuts(t, before, func(d durable.Directory) error { return durable.Delete(d, name) },
		func(t *testing.T, files map[string]string, err error, over bool) {
			if got, ok := files[name]; ok && (got != "old" || over && err == nil) || files[other] != "replaced" {
				t.Error("neither before nor behind the removal")
			}
		})
}

func TestRealFiles(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "state")
	for _, want := range []string{"first", "2"} {
		if err := durable.WritePath(name, []byte(want), 0o640); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(name)
		if err != nil || string(got) != want {
			t.Errorf("read back: got %q, %v, want %q", got, err, want)
		}
	}
	if fi, err := os.Stat(name); err != nil || fi.Mode().Perm() != 0o640 {
		t.Errorf("mode: got %v, %v, want 0640", fi.Mode(), err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for range 2 {
		if err := durable.Append(durable.In(root), "lines", []byte("line\n"), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(filepath.Join(dir, "lines")); err != nil || string(got) != "line\nline\n" {
		t.Errorf("appended: got %q, %v", got, err)
	}
	if err := durable.Rename(root, "state", "moved"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"moved", "moved", "lines"} { // twice is no error
		if err := durable.Remove(root, name); err != nil {
			t.Errorf("remove: %v", err)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
}

func TestSymlinkLeadsNowhere(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	dir := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dir, ".state.new")); err != nil {
		t.Fatal(err)
	}
	if err := durable.WritePath(filepath.Join(dir, "state"), []byte("x"), 0o600); err == nil {
		t.Error("wrote through a symbolic link that leaves the directory")
	}
	if _, err := os.Stat(outside); err == nil {
		t.Error("the file outside was made")
	}
}
