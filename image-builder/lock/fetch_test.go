package lock_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/proa-os/proa/image-builder/archive"
	"github.com/proa-os/proa/image-builder/archivetest"
	"github.com/proa-os/proa/image-builder/deb"
	"github.com/proa-os/proa/image-builder/lock"
	"github.com/proa-os/proa/internal/testenv"
)

// cacheFiles lists the cache below dir/debs.
func cacheFiles(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "debs"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func find(t *testing.T, l *lock.Lock, name string) lock.Package {
	t.Helper()
	p, ok := l.Find(name)
	if !ok {
		t.Fatalf("the lock lacks %s", name)
	}
	return p
}

func TestFetch(t *testing.T) {
	a := newArchive(t)
	l := update(t, a)
	cache := t.TempDir()
	var progress bytes.Buffer
	if err := lock.Fetch(t.Context(), l, a.Serve(), cache, &progress); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(lock.Path(cache, find(t, l, "hello")))
	if err != nil || !bytes.Equal(got, a.Get(helloURL)) {
		t.Errorf("hello: %v, or other bytes", err)
	}
	if files := cacheFiles(t, cache); len(files) != 2 {
		t.Errorf("got %q, want two files", files)
	}
	if !strings.Contains(progress.String(), "fetch 2 packages, 0.1 MiB\n") || !strings.Contains(progress.String(), "fetched 2 of 2 packages") {
		t.Errorf("progress: got %q", progress.String())
	}
	// A full cache needs no server.
	if err := lock.Fetch(t.Context(), l, archive.Mirrors{Main: "http://127.0.0.1:1/debian"}, cache, &progress); err != nil {
		t.Errorf("from the cache: %v", err)
	}
}

// TestARM64 goes from an arm64 manifest to the cache, at an archive that has both architectures.
func TestARM64(t *testing.T) {
	a := archivetest.New(t)
	a.Arches = []string{"amd64", "arm64"}
	for _, arch := range a.Arches {
		a.Add("trixie", archivetest.Deb{Name: "hello", Arch: arch, Fields: map[string]string{"Depends": "data, libc6, x86-only [amd64], arm-only [arm64]"}})
		a.Add("trixie", archivetest.Deb{Name: "libc6", Arch: arch, Version: map[string]string{"amd64": "2", "arm64": "1"}[arch]})
	}
	a.Add("trixie", archivetest.Deb{Name: "data", Arch: "all"})
	a.Add("trixie", archivetest.Deb{Name: "arm-only", Arch: "arm64"})
	a.Publish()
	l, err := lock.Update(t.Context(), lock.Spec{Arch: "arm64", Suites: []string{"trixie"}, Include: []string{"hello"}}, a.Client(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range l.Packages {
		got = append(got, p.String()+" "+p.Arch)
	}
	if want := "arm-only 1.0 arm64,data 1.0 all,hello 1.0 arm64,libc6 1 arm64"; strings.Join(got, ",") != want {
		t.Errorf("got %q, want %s", got, want)
	}
	cache := t.TempDir()
	if err := lock.Fetch(t.Context(), l, a.Serve(), cache, io.Discard); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(lock.Path(cache, find(t, l, "hello")))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d, err := deb.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if got := d.Control.Get("Architecture"); got != "arm64" {
		t.Errorf("fetched hello for %s, want arm64", got)
	}
}

// TestFetchRefused: each fault gives an error that names the package, and no file under its final name.
func TestFetchRefused(t *testing.T) {
	for _, tc := range []struct {
		name string
		body func([]byte) []byte // nil result: the file is gone
		want []string
	}{
		{"wrong bytes", func(b []byte) []byte { b[len(b)/2] ^= 1; return b }, []string{"expected sha256", "found", "is not the locked one", "--mirror"}},
		{"cut", func(b []byte) []byte { return b[:1000] }, []string{"has only 1000 of", "--mirror"}},
		{"longer", func(b []byte) []byte { return append(b, 'x') }, []string{"bytes, found"}},
		{"another's page", func([]byte) []byte { return []byte("<html>pay here</html>") }, []string{"has only 21 of", "--mirror"}},
		{"gone", func([]byte) []byte { return nil }, []string{"no longer has this version", "404", "run image-builder lock"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := newArchive(t)
			l := update(t, a)
			a.Put(helloURL, tc.body(bytes.Clone(a.Get(helloURL))))
			cache := t.TempDir()
			err := lock.FetchWithoutPause(t.Context(), l, a.Serve(), cache, io.Discard)
			for _, want := range append(tc.want, "fetch hello 1:2.0-1: ") {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want an error with %q", err, want)
				}
			}
			hello := find(t, l, "hello")
			for _, name := range cacheFiles(t, cache) {
				if name == hello.SHA256.String()+".deb" {
					t.Error("the cache has the bad package")
				}
			}
		})
	}
}

// TestFetchResumes cuts the connection in the middle: the second attempt asks for the rest only.
func TestFetchResumes(t *testing.T) {
	a := newArchive(t)
	l := update(t, a)
	a.Cut(helloURL, 40000)
	cache := t.TempDir()
	if err := lock.FetchWithoutPause(t.Context(), l, a.Serve(), cache, io.Discard); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(a.Requests(), helloURL+" bytes=40000-") {
		t.Errorf("requests: got %q, want one for the rest", a.Requests())
	}
	if files := cacheFiles(t, cache); len(files) != 2 {
		t.Errorf("got %q, want two packages", files)
	}
}

// TestFetchAfterInterruption starts from what a killed run can leave: a good beginning, a bad one, too much, or all of it.
func TestFetchAfterInterruption(t *testing.T) {
	for name, part := range map[string]func([]byte) []byte{
		"good beginning": func(b []byte) []byte { return b[:5000] },
		"bad beginning":  func(b []byte) []byte { return bytes.Repeat([]byte{0}, 5000) },
		"zeroes, full":   func(b []byte) []byte { return make([]byte, len(b)) },
		"too long":       func(b []byte) []byte { return append(b, 1) },
		"complete":       func(b []byte) []byte { return b },
		"empty":          func(b []byte) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			a := newArchive(t)
			l := update(t, a)
			cache := t.TempDir()
			file := lock.Path(cache, find(t, l, "hello"))
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file+".part", part(bytes.Clone(a.Get(helloURL))), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := lock.FetchWithoutPause(t.Context(), l, a.Serve(), cache, io.Discard); err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, a.Get(helloURL)) {
				t.Errorf("%v, or other bytes", err)
			}
			if files := cacheFiles(t, cache); len(files) != 2 {
				t.Errorf("got %q, want two packages and nothing else", files)
			}
		})
	}
}

// TestFetchTwiceAtOnce is two builds on one cache.
func TestFetchTwiceAtOnce(t *testing.T) {
	a := newArchive(t)
	l := update(t, a)
	mirrors, cache := a.Serve(), t.TempDir()
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if err := lock.Fetch(t.Context(), l, mirrors, cache, io.Discard); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if files := cacheFiles(t, cache); len(files) != 2 {
		t.Errorf("got %q, want two packages and nothing else", files)
	}
}

func TestFetchCancelled(t *testing.T) {
	a := newArchive(t)
	l := update(t, a)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := lock.Fetch(ctx, l, a.Serve(), t.TempDir(), io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

// TestFetchDamagedCache: a file that cannot be the locked one is fetched anew, and said so.
func TestFetchDamagedCache(t *testing.T) {
	a := newArchive(t)
	l := update(t, a)
	cache := t.TempDir()
	if err := lock.Fetch(t.Context(), l, a.Serve(), cache, io.Discard); err != nil {
		t.Fatal(err)
	}
	file := lock.Path(cache, find(t, l, "libc6"))
	if err := os.Truncate(file, 10); err != nil {
		t.Fatal(err)
	}
	var progress bytes.Buffer
	if err := lock.Fetch(t.Context(), l, a.Serve(), cache, &progress); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(progress.String(), "fetch libc6 2.41-12+deb13u1 anew: ") || !strings.Contains(progress.String(), "has 10 bytes, expected") {
		t.Errorf("progress: got %q", progress.String())
	}
	if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, a.Get(libcURL)) {
		t.Errorf("%v, or other bytes", err)
	}
	if files := cacheFiles(t, cache); len(files) != 2 {
		t.Errorf("got %q, want two packages and nothing else", files)
	}
}

// TestFetchInterrupted stops a run in the middle of a file, as Ctrl-C does; the next one asks for the rest only.
func TestFetchInterrupted(t *testing.T) {
	a := newArchive(t)
	l := update(t, a)
	cache := t.TempDir()
	a.Hold(helloURL, 30000)
	ctx, interrupt := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- lock.Fetch(ctx, l, a.Serve(), cache, io.Discard) }()
	part := lock.Path(cache, find(t, l, "hello")) + ".part"
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		if fi, err := os.Stat(part); err == nil && fi.Size() == 30000 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the first 30000 bytes did not come")
		}
	}
	interrupt()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: got %v, want context.Canceled", err)
	}
	for _, name := range cacheFiles(t, cache) {
		if name == find(t, l, "hello").SHA256.String()+".deb" {
			t.Error("half a package is in the cache under its final name")
		}
	}
	before := len(a.Requests())
	if err := lock.Fetch(t.Context(), l, a.Serve(), cache, io.Discard); err != nil {
		t.Fatal(err)
	}
	if got := a.Requests()[before:]; !slices.Contains(got, helloURL+" bytes=30000-") || slices.Contains(got, helloURL+" ") {
		t.Errorf("second run: got %q, want the rest of hello only", got)
	}
	if got, err := os.ReadFile(lock.Path(cache, find(t, l, "hello"))); err != nil || !bytes.Equal(got, a.Get(helloURL)) {
		t.Errorf("%v, or other bytes", err)
	}
}

// TestFetchDiskFull fills a real file system, in a mount namespace of its own.
func TestFetchDiskFull(t *testing.T) {
	if os.Getenv("PROA_TEST_DISK_FULL") == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestFetchDiskFull$", "-test.v")
		cmd.Env = append(os.Environ(), "PROA_TEST_DISK_FULL=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		}
		out, err := cmd.CombinedOutput()
		if len(out) == 0 || strings.Contains(string(out), "no name space") {
			testenv.Missing(t, "on a full disk: this host gives no user name space: %v %s", err, out)
		}
		if err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	cache := t.TempDir()
	if err := syscall.Mount("tmpfs", cache, "tmpfs", 0, "size=32k"); err != nil {
		t.Fatalf("no name space that may mount: %v", err)
	}
	defer syscall.Unmount(cache, 0)
	if err := os.Mkdir(filepath.Join(cache, "debs"), 0o755); err != nil {
		t.Fatal(err)
	}
	a := newArchive(t)
	l := update(t, a)
	err := lock.FetchOne(t.Context(), find(t, l, "hello"), a.Serve(), cache)
	for _, want := range []string{"no space left on device", cache + " is full", "PROA_CACHE"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
	// What came is kept, and a larger disk takes the rest.
	part := lock.Path(cache, find(t, l, "hello")) + ".part"
	fi, err := os.Stat(part)
	if err != nil || fi.Size() == 0 || fi.Size() > 32<<10 {
		t.Fatalf("part: got %v, %v", fi, err)
	}
	if err := syscall.Mount("tmpfs", cache, "tmpfs", syscall.MS_REMOUNT, "size=1m"); err != nil {
		t.Fatal(err)
	}
	if err := lock.FetchOne(t.Context(), find(t, l, "hello"), a.Serve(), cache); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("%s bytes=%d-", helloURL, fi.Size()); !slices.Contains(a.Requests(), want) {
		t.Errorf("requests: got %q, want %q", a.Requests(), want)
	}
}

func TestFetchNoSpace(t *testing.T) {
	l := update(t, newArchive(t))
	l.Packages[0].Size = 1 << 60
	err := lock.Fetch(t.Context(), l, archive.Mirrors{}, t.TempDir(), io.Discard)
	if err == nil || !strings.Contains(err.Error(), "are needed: free some, or set PROA_CACHE") {
		t.Errorf("got %v", err)
	}
}

func TestFindMirrors(t *testing.T) {
	a := newArchive(t)
	l := update(t, a)
	cache, noAPT := t.TempDir(), t.TempDir()
	if _, err := lock.FindMirrors(l, cache, archive.Mirrors{}, "", noAPT); err == nil {
		t.Error("empty cache, no mirror: no error")
	}
	if err := lock.Fetch(t.Context(), l, a.Serve(), cache, io.Discard); err != nil {
		t.Fatal(err)
	}
	if _, err := lock.FindMirrors(l, cache, archive.Mirrors{}, "", noAPT); err != nil {
		t.Errorf("full cache: %v", err)
	}
}

func TestOpenTar(t *testing.T) {
	a := newArchive(t)
	l := update(t, a)
	cache := t.TempDir()
	libc := find(t, l, "libc6")
	if _, err := lock.OpenTar(cache, libc); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("not fetched: got %v", err)
	}
	if err := lock.Fetch(t.Context(), l, a.Serve(), cache, io.Discard); err != nil {
		t.Fatal(err)
	}
	read := func() []byte {
		t.Helper()
		f, err := lock.OpenTar(cache, libc)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		b, err := io.ReadAll(f)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	want := read()
	if !bytes.Contains(want, []byte("usr/lib/libc.so.6")) {
		t.Errorf("the tar lacks the package's file")
	}
	// A cached tar makes the package file unnecessary.
	if err := os.Rename(lock.Path(cache, libc), lock.Path(cache, libc)+".away"); err != nil {
		t.Fatal(err)
	}
	if got := read(); !bytes.Equal(got, want) {
		t.Error("second time: other bytes")
	}
	// Damage is noticed: without the package an error, with it the same tar.
	file := filepath.Join(cache, "tar", libc.SHA256.String()+".tar")
	if err := os.Truncate(file, 512); err != nil {
		t.Fatal(err)
	}
	if _, err := lock.OpenTar(cache, libc); err == nil {
		t.Error("a damaged tar was returned")
	}
	if err := os.Rename(lock.Path(cache, libc)+".away", lock.Path(cache, libc)); err != nil {
		t.Fatal(err)
	}
	if got := read(); !bytes.Equal(got, want) {
		t.Error("made anew: other bytes")
	}
	// A package that was changed in the cache gives nothing.
	b, err := os.ReadFile(lock.Path(cache, libc))
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-1] ^= 1
	if err := errors.Join(os.Remove(file), os.WriteFile(lock.Path(cache, libc), b, 0o644)); err != nil {
		t.Fatal(err)
	}
	if _, err := lock.OpenTar(cache, libc); err == nil || !strings.Contains(err.Error(), "decompress libc6 2.41-12+deb13u1: the cache was damaged") {
		t.Errorf("a package with wrong bytes: got %v", err)
	}
	if err := lock.Fetch(t.Context(), l, a.Serve(), cache, io.Discard); err != nil {
		t.Errorf("fetched anew: %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(cache, "tar", "*.tar")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

// TestOpenTarRefuses hostile packages that are exactly as locked: nothing of them gets into the cache, and the error names package and
// entry. That this is no damage must be told too: fetching again would bring the same.
func TestOpenTarRefuses(t *testing.T) {
	sparse := map[string]string{"XNU.sparse.major": "1", "XNU.sparse.minor": "0", "XNU.sparse.name": "./huge", "XNU.sparse.realsize": "1099511627776"}
	for _, tc := range []struct {
		name string
		file archivetest.File
		want string
	}{
		{"path out", archivetest.File{Name: "./usr/../../evil", Body: "x"}, "./usr/../../evil: path"},
		{"absolute path", archivetest.File{Name: "/etc/passwd", Body: "x"}, "/etc/passwd: path"},
		{"hard link out", archivetest.File{Name: "./evil", Type: tar.TypeLink, Link: "/etc/shadow"}, "./evil: hard link"},
		{"device", archivetest.File{Name: "./mem", Type: tar.TypeChar}, "./mem: an entry of type"},
		{"huge sparse file", archivetest.File{Name: "./huge", PAX: sparse, Body: "1\n1099511627776\n0\n" + strings.Repeat("\x00", 512-18)}, "./huge: a sparse file"},
		{"somebody's file", archivetest.File{Name: "./x", UID: 1000, Body: "x"}, "./x: owner 1000:0"},
		{"capability", archivetest.File{Name: "./x", Body: "x", PAX: map[string]string{"SCHILY.xattr.security.capability": "x"}}, "extended attribute security.capability"},
		{"twice", archivetest.File{Name: "./usr/bin/../bin/ok", Body: "x"}, "it is there twice"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := archivetest.New(t)
			a.Add("trixie", archivetest.Deb{Name: "evil", Files: []archivetest.File{{Name: "./usr/bin/ok", Body: "ok"}, tc.file}})
			a.Publish()
			l, err := lock.Update(t.Context(), lock.Spec{Arch: "amd64", Suites: []string{"trixie"}, Include: []string{"evil"}}, a.Client(), io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			cache := t.TempDir()
			if err := lock.Fetch(t.Context(), l, a.Serve(), cache, io.Discard); err != nil {
				t.Fatal(err)
			}
			_, err = lock.OpenTar(cache, l.Packages[0])
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "decompress evil 1.0: ") {
				t.Errorf("got %v, want an error with the package and %q", err, tc.want)
			}
			if left, err := filepath.Glob(filepath.Join(cache, "tar", "*")); err != nil || len(left) != 0 {
				t.Errorf("left behind: %q, %v", left, err)
			}
			if _, err := os.Stat(lock.Path(cache, l.Packages[0])); err != nil {
				t.Errorf("the package was dropped: %v", err)
			}
		})
	}
}
