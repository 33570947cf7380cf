package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// disk is a directory whose n-th call fails, and which knows what a power cut would leave.
type disk struct {
	calls  []string
	failAt int // 1-based; 0 never

	visible map[string]string // what a reader sees
	lasting map[string]string // what a power cut leaves
	content map[string]bool   // names whose visible content has been synced
}

var errInjected = errors.New("injected")

func (d *disk) call(what string) error {
	d.calls = append(d.calls, what)
	if len(d.calls) == d.failAt {
		return errInjected
	}
	return nil
}

func (d *disk) create(name string) (file, error) {
	if err := d.call("create " + name); err != nil {
		return nil, err
	}
	d.visible[name] = ""
	delete(d.content, name)
	return &diskFile{d, name}, nil
}

func (d *disk) rename(oldName, newName string) error {
	if err := d.call("rename " + oldName + " " + newName); err != nil {
		return err
	}
	d.visible[newName] = d.visible[oldName]
	d.content[newName] = d.content[oldName]
	delete(d.visible, oldName)
	return nil
}

func (d *disk) remove(name string) error {
	if err := d.call("remove " + name); err != nil {
		return err
	}
	delete(d.visible, name)
	return nil
}

func (d *disk) sync(name string) error {
	if err := d.call("syncdir"); err != nil {
		return err
	}
	d.lasting = map[string]string{}
	for n, c := range d.visible {
		if !d.content[n] {
			c = "torn"
		}
		d.lasting[n] = c
	}
	return nil
}

type diskFile struct {
	d    *disk
	name string
}

func (f *diskFile) Chmod(m fs.FileMode) error { return f.d.call(fmt.Sprintf("chmod %o", m)) }
func (f *diskFile) Close() error              { return f.d.call("close") }

func (f *diskFile) Write(b []byte) (int, error) {
	if err := f.d.call("write"); err != nil {
		return 0, err
	}
	f.d.visible[f.name] += string(b)
	return len(b), nil
}

func (f *diskFile) Sync() error {
	if err := f.d.call("sync"); err != nil {
		return err
	}
	f.d.content[f.name] = true
	return nil
}

func newDisk(failAt int) *disk {
	return &disk{
		failAt:  failAt,
		visible: map[string]string{"a/state": "old"},
		lasting: map[string]string{"a/state": "old"},
		content: map[string]bool{"a/state": true},
	}
}

func TestOrderOfCalls(t *testing.T) {
	d := newDisk(0)
	if err := replace(d, "a/state", []byte("new"), 0o640); err != nil {
		t.Fatal(err)
	}
	want := []string{"create a/.state.new", "chmod 640", "write", "sync", "close", "rename a/.state.new a/state", "syncdir"}
	if !slices.Equal(d.calls, want) {
		t.Errorf("calls: got %q, want %q", d.calls, want)
	}
	if got := d.lasting["a/state"]; got != "new" {
		t.Errorf("after a power cut: got %q, want new", got)
	}
}

// Every call fails once. What is seen is then the old or the new content and never a part of one, an error
// before the last call means the old one, and no temporary file stays.
func TestEveryCallFails(t *testing.T) {
	const calls = 7
	for n := 1; n <= calls; n++ {
		d := newDisk(n)
		err := replace(d, "a/state", []byte("new"), 0o640)
		if !errors.Is(err, errInjected) {
			t.Errorf("call %d (%s) failed: got error %v, want the injected one", n, d.calls[n-1], err)
		}
		want := "old"
		if n == calls {
			want = "new"
		}
		if got := d.visible["a/state"]; got != want {
			t.Errorf("call %d (%s) failed: seen %q, want %q", n, d.calls[n-1], got, want)
		}
		if got := d.lasting["a/state"]; got != "old" {
			t.Errorf("call %d (%s) failed: lasting %q, want old", n, d.calls[n-1], got)
		}
		if _, ok := d.visible["a/.state.new"]; ok {
			t.Errorf("call %d (%s) failed: the temporary file stays", n, d.calls[n-1])
		}
	}
}

func TestRealFiles(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "state")
	for _, want := range []string{"first", "2"} {
		if err := WritePath(name, []byte(want), 0o640); err != nil {
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
	if err := Rename(root, "state", "moved"); err != nil {
		t.Fatal(err)
	}
	if err := Remove(root, "moved"); err != nil {
		t.Fatal(err)
	}
	if err := Remove(root, "moved"); err != nil {
		t.Errorf("remove twice: %v", err)
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
	if err := WritePath(filepath.Join(dir, "state"), []byte("x"), 0o600); err == nil {
		t.Error("wrote through a symbolic link that leaves the directory")
	}
	if _, err := os.Stat(outside); err == nil {
		t.Error("the file outside was made")
	}
}
