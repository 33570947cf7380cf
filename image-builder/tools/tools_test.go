package tools_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/proa-os/proa/image-builder/archive"
	"github.com/proa-os/proa/image-builder/archivetest"
	"github.com/proa-os/proa/image-builder/lock"
	"github.com/proa-os/proa/image-builder/tools"
	"github.com/proa-os/proa/internal/arch"
)

func makeLock(t *testing.T, debs ...archivetest.Deb) (*archivetest.Archive, *lock.Lock) {
	t.Helper()
	a := archivetest.New(t)
	spec := lock.Spec{Arch: "amd64", Suites: []string{"trixie"}}
	for _, d := range debs {
		a.Add("trixie", d)
		spec.Include = append(spec.Include, d.Name)
	}
	a.Publish()
	l, err := lock.Update(t.Context(), spec, a.Client(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return a, l
}

// dump lists a tree as text.
func dump(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		fmt.Fprintf(&b, "%s %v", name, fi.Mode())
		switch {
		case fi.Mode().IsRegular():
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %q", content)
		case fi.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " -> %s", target)
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

var (
	first = archivetest.Deb{Name: "first", Files: []archivetest.File{
		{Name: "./", Type: tar.TypeDir},
		{Name: "./bin", Type: tar.TypeSymlink, Link: "usr/bin"},
		{Name: "./usr/", Type: tar.TypeDir},
		{Name: "./usr/bin/", Type: tar.TypeDir},
		{Name: "./usr/bin/su", Body: "su", Mode: 0o4755},
		{Name: "./usr/bin/sudo", Type: tar.TypeLink, Link: "./usr/bin/su"},
		{Name: "./usr/share/doc/first/copyright", Body: "text"},
		{Name: "./usr/secret/", Type: tar.TypeDir, Mode: 0o500},
		{Name: "./usr/secret/key", Body: "k", Mode: 0o400},
	}}
	second = archivetest.Deb{Name: "second", Compression: ".zst", Files: []archivetest.File{
		{Name: "./usr/bin/", Type: tar.TypeDir},
		{Name: "./bin/tool", Body: "through the link", Mode: 0o755},
		{Name: "./usr/bin/alt", Type: tar.TypeSymlink, Link: "/etc/alternatives/alt"},
	}}
)

func TestInstall(t *testing.T) {
	a, l := makeLock(t, first, second)
	cache := t.TempDir()
	dir, err := tools.Install(t.Context(), l, a.Serve(), cache, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	want := `.complete -rw-r--r-- "complete\n"
bin Lrwxrwxrwx -> usr/bin
usr drwxr-xr-x
usr/bin drwxr-xr-x
usr/bin/alt Lrwxrwxrwx -> /etc/alternatives/alt
usr/bin/su -rwxr-xr-x "su"
usr/bin/sudo -rwxr-xr-x "su"
usr/bin/tool -rwxr-xr-x "through the link"
usr/secret drwx------
usr/secret/key -rw------- "k"
`
	// Set-id bits and documentation are gone; the owner can always write, so that the cache can be cleared.
	if got := dump(t, dir); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	su, err1 := os.Stat(filepath.Join(dir, "usr/bin/su"))
	sudo, err2 := os.Stat(filepath.Join(dir, "usr/bin/sudo"))
	if err := errors.Join(err1, err2); err != nil || !os.SameFile(su, sudo) {
		t.Errorf("the hard link became a copy: %v", err)
	}
	current := filepath.Join(cache, "tools", "current")
	if target, err := os.Readlink(current); err != nil || target != filepath.Base(dir) {
		t.Errorf("current: got %q, %v, want %q", target, err, filepath.Base(dir))
	}
	// The second time needs no server, and a tree that is there is not touched.
	again, err := tools.Install(t.Context(), l, archive.Mirrors{}, cache, io.Discard)
	if err != nil || again != dir {
		t.Errorf("again: got %s, %v", again, err)
	}
}

// TestInstallDistrusts: a tree without a marker, as a power cut or an older image-builder has left it, is made anew, in its place; one with a
// marker is not looked into.
func TestInstallDistrusts(t *testing.T) {
	a, l := makeLock(t, first, second)
	mirrors, cache := a.Serve(), t.TempDir()
	dir, err := tools.Install(t.Context(), l, mirrors, cache, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	want := dump(t, dir)
	tool, marker := filepath.Join(dir, "usr/bin/tool"), filepath.Join(dir, ".complete")
	for name, c := range map[string]struct {
		cut func() error
		new bool
	}{
		"no marker":     {func() error { return os.Remove(marker) }, true},
		"empty marker":  {func() error { return os.Truncate(marker, 0) }, true},
		"nothing in it": {func() error { return errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o755)) }, true},
		"whole":         {func() error { return nil }, false},
	} {
		if err := errors.Join(os.Truncate(tool, 0), c.cut()); err != nil {
			t.Fatal(err)
		}
		again, err := tools.Install(t.Context(), l, mirrors, cache, io.Discard)
		if err != nil || again != dir {
			t.Fatalf("%s: got %s, %v", name, again, err)
		}
		if got := dump(t, dir) == want; got != c.new {
			t.Errorf("%s: made anew: %v, want %v", name, got, c.new)
		}
		if left, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(left) != 2 {
			t.Errorf("%s: left: %v, %v, want the tree and the link to it", name, left, err)
		}
	}
}

// TestInstallPrunes: trees that nobody has asked for in a month go, but for the newest, the last one asked for among them.
func TestInstallPrunes(t *testing.T) {
	a, l := makeLock(t, first)
	mirrors, cache := a.Serve(), t.TempDir()
	dir, err := tools.Install(t.Context(), l, mirrors, cache, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	age := func(name string, days int) {
		t.Helper()
		d := filepath.Join(cache, "tools", name)
		then := time.Now().Add(-time.Duration(days) * 24 * time.Hour)
		if err := errors.Join(os.MkdirAll(d, 0o755), os.Chtimes(d, then, then)); err != nil {
			t.Fatal(err)
		}
	}
	for name, days := range map[string]int{"other0": 31, "other1": 32, "other2": 29, "other3": 33, "other4": 34} {
		age(name, days)
	}
	age(filepath.Base(dir), 90)
	if _, err := tools.Install(t.Context(), l, archive.Mirrors{}, cache, io.Discard); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{filepath.Base(dir): true, "other2": true, "other0": true, "other1": false, "other3": false, "other4": false} {
		if _, err := os.Stat(filepath.Join(cache, "tools", name)); (err == nil) != want {
			t.Errorf("%s: %v, want it kept: %v", name, err, want)
		}
	}
}

// TestInstallTwiceAtOnce is two builds on one empty cache.
func TestInstallTwiceAtOnce(t *testing.T) {
	a, l := makeLock(t, first, second)
	mirrors, cache := a.Serve(), t.TempDir()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := tools.Install(t.Context(), l, mirrors, cache, io.Discard); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	left, err := os.ReadDir(filepath.Join(cache, "tools"))
	if err != nil || len(left) != 2 {
		t.Errorf("got %v, %v, want one tree and the link to it", left, err)
	}
}

// TestInstallSweeps: what a killed run left long ago goes; what another run may be working on stays.
func TestInstallSweeps(t *testing.T) {
	a, l := makeLock(t, first)
	cache := t.TempDir()
	old, fresh := filepath.Join(cache, "tools", ".unpack-old"), filepath.Join(cache, "tools", ".unpack-fresh")
	long := time.Now().Add(-48 * time.Hour)
	err := errors.Join(os.MkdirAll(filepath.Join(old, "usr"), 0o755), os.MkdirAll(fresh, 0o755), os.Chtimes(old, long, long))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tools.Install(t.Context(), l, a.Serve(), cache, io.Discard); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(old); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the old one: got %v, want it removed", err)
	}
	if _, err := os.Stat(fresh); err != nil {
		t.Errorf("the fresh one: %v", err)
	}
}

func TestInstallSwitchesCurrent(t *testing.T) {
	cache := t.TempDir()
	for _, d := range []archivetest.Deb{first, second, first} {
		a, l := makeLock(t, d)
		dir, err := tools.Install(t.Context(), l, a.Serve(), cache, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := filepath.EvalSymlinks(filepath.Join(cache, "tools", "current")); err != nil || filepath.Base(got) != filepath.Base(dir) {
			t.Errorf("current leads to %s, %v, want %s", got, err, dir)
		}
	}
}

// TestInstallRefused: hostile or broken packages give an error that names package and file, and no tree, nor a file outside of it.
func TestInstallRefused(t *testing.T) {
	outside := t.TempDir()
	for _, tc := range []struct {
		name  string
		files []archivetest.File
		want  string
	}{
		{"dot dot", []archivetest.File{{Name: "./usr/../../evil", Body: "x"}}, "leads out of the tree"},
		{"absolute", []archivetest.File{{Name: outside + "/evil", Body: "x"}}, "leads out of the tree"},
		{"through an absolute link", []archivetest.File{{Name: "./out", Type: tar.TypeSymlink, Link: outside}, {Name: "./out/evil", Body: "x"}}, "escapes"},
		{"through a relative link", []archivetest.File{{Name: "./out", Type: tar.TypeSymlink, Link: "../.."}, {Name: "./out/evil", Body: "x"}}, "escapes"},
		{"directory through a link", []archivetest.File{{Name: "./out", Type: tar.TypeSymlink, Link: outside}, {Name: "./out/evil", Type: tar.TypeDir}}, "escapes"},
		{"hard link to the outside", []archivetest.File{{Name: "./evil", Type: tar.TypeLink, Link: "../../../etc/passwd"}}, "leads out of the tree"},
		{"device", []archivetest.File{{Name: "./dev/null", Type: tar.TypeChar}}, "has no place in a package"},
		{"twice", []archivetest.File{{Name: "./a", Body: "1"}, {Name: "./a", Body: "2"}}, "file exists"},
		{"over a link", []archivetest.File{{Name: "./a", Type: tar.TypeSymlink, Link: outside + "/evil"}, {Name: "./a", Body: "2"}}, "./a: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, l := makeLock(t, archivetest.Deb{Name: "hostile", Files: tc.files})
			cache := t.TempDir()
			_, err := tools.Install(t.Context(), l, a.Serve(), cache, io.Discard)
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "unpack hostile 1.0") {
				t.Errorf("got %v, want an error with the package and %q", err, tc.want)
			}
			if left, err := os.ReadDir(filepath.Join(cache, "tools")); err != nil || len(left) != 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
			if _, err := os.Stat(lock.Path(cache, l.Packages[0])); err != nil {
				t.Errorf("a bad package was taken for a damaged one: %v", err)
			}
		})
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) != 0 {
		t.Errorf("written outside of the tree: %v, %v", left, err)
	}
}

// TestInstallChecksCache: a package that was changed in the cache since it was fetched is not unpacked but dropped, and the next run
// fetches it.
func TestInstallChecksCache(t *testing.T) {
	for name, offset := range map[string]func(size int) int{
		"in the compressed files": func(size int) int { return size / 2 },
		"behind them":             func(size int) int { return size - 1 }, // only the hash can tell
	} {
		t.Run(name, func(t *testing.T) {
			a, l := makeLock(t, first)
			cache := t.TempDir()
			if err := lock.Fetch(t.Context(), l, a.Serve(), cache, io.Discard); err != nil {
				t.Fatal(err)
			}
			file := lock.Path(cache, l.Packages[0])
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			b[offset(len(b))] ^= 1
			if err := os.WriteFile(file, b, 0o644); err != nil {
				t.Fatal(err)
			}
			_, err = tools.Install(t.Context(), l, archive.Mirrors{}, cache, io.Discard)
			for _, want := range []string{"unpack first 1.0", "the cache was damaged", file, "run the command again"} {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want an error with %q", err, want)
				}
			}
			if _, err := tools.Install(t.Context(), l, a.Serve(), cache, io.Discard); err != nil {
				t.Errorf("the second run: %v", err)
			}
		})
	}
}

func TestInstallCancelled(t *testing.T) {
	a, l := makeLock(t, first)
	cache := t.TempDir()
	if err := lock.Fetch(t.Context(), l, a.Serve(), cache, io.Discard); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := tools.Install(ctx, l, archive.Mirrors{}, cache, io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if left, err := os.ReadDir(filepath.Join(cache, "tools")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestRunOtherHost: tools run on the build host, whatever the image is for.
func TestRunOtherHost(t *testing.T) {
	host, err := arch.Host()
	if err != nil {
		t.Fatal(err)
	}
	other := map[string]string{"amd64": "arm64", "arm64": "amd64"}[host.Debian]
	spec := lock.Spec{Arch: other, Suites: []string{"trixie"}, Include: []string{"first"}}
	dir := t.TempDir()
	o := tools.Options{Manifest: filepath.Join(dir, "tools.toml"), LockFile: filepath.Join(dir, "lock.json"), CacheDir: dir, APT: dir, Progress: io.Discard}
	manifest := fmt.Sprintf("[packages]\narch = %q\nsuites = [\"trixie\"]\ninclude = [\"first\"]\n", other)
	if err := errors.Join(lock.New(spec, nil, nil).Write(o.LockFile), os.WriteFile(o.Manifest, []byte(manifest), 0o644)); err != nil {
		t.Fatal(err)
	}
	_, err = tools.Run(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "they are for "+other+", and this build host is "+host.Debian) {
		t.Errorf("got %v, want both architectures named", err)
	}
}

func TestRunWantsMatchingLock(t *testing.T) {
	_, l := makeLock(t, first)
	dir := t.TempDir()
	o := tools.Options{Manifest: filepath.Join(dir, "tools.toml"), LockFile: filepath.Join(dir, "lock.json"), CacheDir: dir, APT: dir, Progress: new(bytes.Buffer)}
	manifest := "[packages]\narch = \"amd64\"\nsuites = [\"trixie\"]\ninclude = [\"first\", \"more\"]\n"
	if err := errors.Join(l.Write(o.LockFile), os.WriteFile(o.Manifest, []byte(manifest), 0o644)); err != nil {
		t.Fatal(err)
	}
	if _, err := tools.Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "run image-builder lock") {
		t.Errorf("got %v, want the command that makes a new lock", err)
	}
}
