// Package stick makes a repository on a stick readable while it is needed: for machines that no network reaches.
//
// Where the configuration's server, or a mirror, is file:///run/proa/stick or below, the partition or file system labelled PROA-REPO is
// mounted there at the first file that is asked for, and unmounted when none has been asked for a while. A stick is a repository
// like any other: it is trusted in nothing, what is on it is read by the unprivileged fetching process, and its timestamp must not have
// expired, so whoever carries it runs `release publish` within a day before (or gives timestamps a longer life).
//
// The mount is in the namespace of the service, read-only, without set-user-id files, devices, programs and symbolic links, and only of the file
// systems that sticks have (mount(2)). What remains is that the kernel parses a file system that somebody carries in: who does not want
// that names no stick.
package stick

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// Dir is where the stick is mounted.
	Dir = "/run/proa/stick"
	// Label is what its partition (GPT) or its file system is called.
	Label = "PROA-REPO"

	linger = 10 * time.Second // between two files of one job
)

// A Source opens files of a repository, as client.Source and client.Poller do.
type Source interface {
	Open(ctx context.Context, url string, offset int64) (io.ReadCloser, error)
	Poll(ctx context.Context, url, tag string) (io.ReadCloser, string, error)
}

// A Mounter finds and mounts the stick.
type Mounter interface {
	Mount(label, dir string) error
	Unmount(dir string) error
}

// Files is a Source that mounts the stick for files below Dir, and passes everything on. Close it.
type Files struct {
	source  Source
	mounter Mounter
	dir     string
	linger  time.Duration

	mu      sync.Mutex
	mounted bool
	open    int // files
	timer   *time.Timer
}

// New returns Files in front of source, on the real machine.
func New(source Source) *Files {
	return &Files{source: source, mounter: Kernel{}, dir: Dir, linger: linger}
}

// NewWith is New with another mounter and place, for tests.
func NewWith(source Source, m Mounter, dir string, linger time.Duration) *Files {
	return &Files{source: source, mounter: m, dir: dir, linger: linger}
}

// on reports whether a URL is on the stick.
func (f *Files) on(url string) bool {
	base := "file://" + f.dir
	return url == base || strings.HasPrefix(url, base+"/")
}

// Open implements client.Source.
func (f *Files) Open(ctx context.Context, url string, offset int64) (io.ReadCloser, error) {
	if !f.on(url) {
		return f.source.Open(ctx, url, offset)
	}
	r, _, err := f.hold(func() (io.ReadCloser, string, error) {
		r, err := f.source.Open(ctx, url, offset)
		return r, "", err
	})
	return r, err
}

// Poll implements client.Poller.
func (f *Files) Poll(ctx context.Context, url, tag string) (io.ReadCloser, string, error) {
	if !f.on(url) {
		return f.source.Poll(ctx, url, tag)
	}
	return f.hold(func() (io.ReadCloser, string, error) { return f.source.Poll(ctx, url, tag) })
}

func (f *Files) hold(open func() (io.ReadCloser, string, error)) (io.ReadCloser, string, error) {
	if err := f.take(); err != nil {
		return nil, "", err
	}
	r, tag, err := open()
	if err != nil {
		f.release()
		return nil, "", err
	}
	return &held{ReadCloser: r, files: f}, tag, nil
}

// held is an open file; its end lets go of the stick.
type held struct {
	io.ReadCloser
	files *Files
	once  sync.Once
}

// Close implements io.Closer.
func (h *held) Close() error {
	err := h.ReadCloser.Close()
	h.once.Do(h.files.release)
	return err
}

// take mounts the stick, unless it is.
func (f *Files) take() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.timer != nil {
		f.timer.Stop()
		f.timer = nil
	}
	if !f.mounted {
		if err := f.mounter.Mount(Label, f.dir); err != nil {
			return err
		}
		f.mounted = true
	}
	f.open++
	return nil
}

func (f *Files) release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open--; f.open == 0 {
		f.timer = time.AfterFunc(f.linger, f.expire)
	}
}

// expire unmounts when no file is open. Who pulls the stick out while it is mounted loses nothing: it is read-only.
func (f *Files) expire() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open == 0 && f.mounted {
		f.mounted = f.mounter.Unmount(f.dir) != nil // tried again by Close
	}
}

// Close unmounts the stick.
func (f *Files) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.timer != nil {
		f.timer.Stop()
	}
	if !f.mounted {
		return nil
	}
	f.mounted = false
	return f.mounter.Unmount(f.dir)
}

// Kernel is the Mounter of a real machine.
type Kernel struct {
	// Links are folders of links to devices by label; udev's if there are none.
	Links []string
}

// kinds are the file systems that are tried, with options that let every user read. ext4 must not replay its journal on a stick that
// is only read.
var kinds = []struct{ name, options string }{
	{"vfat", "umask=0222"}, {"exfat", "umask=0222"}, {"ext4", "noload"}, {"iso9660", "mode=0444,dmode=0555"},
}

// Mount implements Mounter.
func (k Kernel) Mount(label, dir string) error {
	device, err := k.device(label)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("mount the stick: %w", err)
	}
	var tried []error
	for _, kind := range kinds {
		err := unix.Mount(device, dir, kind.name, unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_NOSYMFOLLOW, kind.options)
		if err == nil {
			return nil
		}
		tried = append(tried, fmt.Errorf("as %s: %w", kind.name, err))
	}
	return fmt.Errorf("mount the stick %s at %s: is it formatted as vfat, exfat, ext4 or iso9660? %w", device, dir, errors.Join(tried...))
}

func (k Kernel) device(label string) (string, error) {
	links := k.Links
	if links == nil {
		links = []string{"/dev/disk/by-partlabel", "/dev/disk/by-label"}
	}
	for _, dir := range links {
		device, err := filepath.EvalSymlinks(filepath.Join(dir, label))
		if err == nil {
			return device, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("look for the stick: %w", err)
		}
	}
	// Not to be waited for: whoever asks gets the answer at once.
	return "", fmt.Errorf("no partition and no file system labelled %s: is the stick plugged in? %w", label, fs.ErrNotExist)
}

// Unmount implements Mounter. A file that is still open keeps the stick busy, not the machine.
func (Kernel) Unmount(dir string) error {
	if err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("unmount the stick at %s: %w", dir, err)
	}
	return nil
}
