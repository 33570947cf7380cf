package stick

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/guesttest"
	"github.com/proa-os/proa/internal/testenv"
)

func TestMain(m *testing.M) { guesttest.Main(m) }

// A port is where a stick may be plugged in.
type port struct {
	mu               sync.Mutex // the timer of Files runs beside the test
	plugged, mounted bool
	mounts           int
	unmountErr       error
}

func (p *port) Mount(label, dir string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.plugged || p.mounted || label != Label || dir != "/stick" {
		return errors.New("cannot mount")
	}
	p.mounted = true
	p.mounts++
	return nil
}

func (p *port) Unmount(string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.unmountErr != nil {
		return p.unmountErr
	}
	p.mounted = false
	return nil
}

func (p *port) isMounted() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mounted
}

// reader gives the URL as content, if what it needs is mounted.
type reader struct{ p *port }

func (r reader) Open(_ context.Context, url string, _ int64) (io.ReadCloser, error) {
	if strings.HasPrefix(url, "file:///stick/") && !r.p.isMounted() {
		return nil, errors.New("not mounted")
	}
	if strings.HasSuffix(url, "/missing") {
		return nil, os.ErrNotExist
	}
	return io.NopCloser(strings.NewReader(url)), nil
}

func (r reader) Poll(ctx context.Context, url, _ string) (io.ReadCloser, string, error) {
	body, err := r.Open(ctx, url, 0)
	return body, "tag", err
}

// The stick is mounted for the first file, stays for those that follow, and goes when none does.
func TestMountedForAJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &port{plugged: true}
		f := NewWith(reader{p}, p, "/stick", 10*time.Second)
		for _, url := range []string{"https://example.org/stick/x", "file:///stickier/x", "file:///"} {
			if r, err := f.Open(t.Context(), url, 0); err != nil || p.mounts != 0 {
				t.Errorf("%s: %v, mounted %d times", url, err, p.mounts)
			} else {
				r.Close()
			}
		}
		a, err := f.Open(t.Context(), "file:///stick/a", 0)
		if err != nil {
			t.Fatal(err)
		}
		b, tag, err := f.Poll(t.Context(), "file:///stick/b", "")
		if err != nil || tag != "tag" {
			t.Fatal(tag, err)
		}
		a.Close()
		a.Close()
		time.Sleep(time.Minute)
		if !p.isMounted() {
			t.Error("unmounted under an open file")
		}
		b.Close()
		time.Sleep(5 * time.Second)
		if _, err := f.Open(t.Context(), "file:///stick/missing", 0); !errors.Is(err, os.ErrNotExist) || p.mounts != 1 {
			t.Errorf("a missing file: %v, mounted %d times", err, p.mounts)
		}
		time.Sleep(9 * time.Second)
		if !p.isMounted() {
			t.Error("unmounted too early")
		}
		time.Sleep(2 * time.Second)
		if p.isMounted() {
			t.Error("still mounted")
		}
		c, err := f.Open(t.Context(), "file:///stick/c", 0)
		if err != nil || p.mounts != 2 {
			t.Fatalf("the next job: %v, mounted %d times", err, p.mounts)
		}
		c.Close()
		if err := f.Close(); err != nil || p.isMounted() {
			t.Errorf("closed: %v, mounted %v", err, p.isMounted())
		}
	})
}

func TestNoStick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &port{}
		f := NewWith(reader{p}, p, "/stick", time.Second)
		if _, err := f.Open(t.Context(), "file:///stick/a", 0); err == nil {
			t.Error("opened a file on nothing")
		}
		p.plugged = true
		r, err := f.Open(t.Context(), "file:///stick/a", 0)
		if err != nil {
			t.Fatalf("plugged in: %v", err)
		}
		p.unmountErr = errors.New("busy")
		r.Close()
		time.Sleep(2 * time.Second)
		if err := f.Close(); err == nil || err.Error() != "busy" {
			t.Errorf("a stick that stays: %v", err)
		}
	})
	k := Kernel{Links: []string{t.TempDir(), t.TempDir()}}
	if err := k.Mount(Label, t.TempDir()); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "labelled PROA-REPO: is the stick plugged in?") {
		t.Errorf("no stick: %v", err)
	}
}

// The kernel reads sticks of the kinds that people have, and nothing on them but files.
func TestKernel(t *testing.T) {
	if guesttest.Inside() {
		for name, device := range map[string]string{"ext4": "/dev/vda", "vfat": "/dev/vdb"} {
			t.Run(name, func(t *testing.T) { mountReal(t, device, name) })
		}
		t.Run("noise", func(t *testing.T) {
			links := linkTo(t, "/dev/vdc")
			if err := (Kernel{Links: []string{links}}).Mount(Label, filepath.Join(t.TempDir(), "at")); err == nil || !strings.Contains(err.Error(), "is it formatted as") {
				t.Errorf("got %v", err)
			}
		})
		return
	}
	tools := testenv.Machines(t)
	dir := t.TempDir()
	tree := filepath.Join(dir, "tree")
	for _, err := range []error{
		os.Mkdir(tree, 0o755), os.WriteFile(filepath.Join(tree, "timestamp.json"), []byte("hello"), 0o644),
		os.WriteFile(filepath.Join(tree, "program"), []byte("#!/bin/sh\n"), 0o755), os.Symlink("/proc/self/environ", filepath.Join(tree, "link")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var disks []guesttest.Disk
	for _, cmd := range [][]string{{"mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, "-L", Label}, {"mkfs.fat", "-F32", "-n", Label}, nil} {
		disk := filepath.Join(dir, "disk"+string(rune('a'+len(disks))))
		if err := errors.Join(os.WriteFile(disk, nil, 0o600), os.Truncate(disk, 64<<20)); err != nil {
			t.Fatal(err)
		}
		if cmd != nil {
			if out, err := tools.Command(t.Context(), cmd[0], append(cmd[1:], disk)...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %v\n%s", cmd, err, out)
			}
		}
		disks = append(disks, guesttest.Disk{File: disk, Options: ",readonly=on"})
	}
	guesttest.Run(t, guesttest.Machine{Modules: []string{"virtio_blk", "crc32c_generic", "ext4", "vfat", "nls_ascii", "nls_cp437", "nls_utf8"}, Disks: disks})
}

// linkTo is a folder as udev makes them, with the label's device.
func linkTo(t *testing.T, device string) string {
	t.Helper()
	links := t.TempDir()
	if err := os.Symlink(device, filepath.Join(links, Label)); err != nil {
		t.Fatal(err)
	}
	return links
}

func mountReal(t *testing.T, device, kind string) {
	at := filepath.Join(t.TempDir(), "at")
	k := Kernel{Links: []string{filepath.Join(at, "none"), linkTo(t, device)}}
	if err := k.Mount(Label, at); err != nil {
		t.Fatal(err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(at, &st); err != nil {
		t.Fatal(err)
	}
	const want = unix.ST_RDONLY | unix.ST_NOSUID | unix.ST_NODEV | unix.ST_NOEXEC
	if st.Flags&want != want {
		t.Errorf("mounted with flags %#x, want %#x among them", st.Flags, want)
	}
	if err := os.WriteFile(filepath.Join(at, "new"), nil, 0o644); !errors.Is(err, unix.EROFS) {
		t.Errorf("wrote to it: %v", err)
	}
	if kind == "ext4" {
		if b, err := os.ReadFile(filepath.Join(at, "timestamp.json")); err != nil || string(b) != "hello" {
			t.Errorf("got %q, %v", b, err)
		}
		if _, err := os.ReadFile(filepath.Join(at, "link")); !errors.Is(err, unix.ELOOP) {
			t.Errorf("followed a link: %v", err)
		}
		if err := unix.Exec(filepath.Join(at, "program"), []string{"program"}, nil); !errors.Is(err, unix.EACCES) {
			t.Errorf("ran a program: %v", err)
		}
	}
	if err := k.Unmount(at); err != nil {
		t.Error(err)
	}
	if err := unix.Statfs(at, &st); err != nil || st.Flags&unix.ST_RDONLY != 0 {
		t.Errorf("still there: flags %#x, %v", st.Flags, err)
	}
}
