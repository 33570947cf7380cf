// Package debian makes the machine that Proa's boot is measured against: plain Debian, as Debian makes it.
//
//	manifests/debian.lock.json ─▶ .debs in the cache ─▶ unpacked tree ─mke2fs -d─▶ root file system ┐
//	                                                    guest + configure.sh ─────▶ boot program ───┴▶ disk ─QEMU─▶ configured
//	                                          systemd-boot + Debian's kernel and initramfs ─▶ ESP ─▶ debian-<key>/disk.img
//
// The packages are those debootstrap installs, with a server's kernel, ssh and network (manifests/debian.toml). Their maintainer
// scripts really run, once, as root of a machine in QEMU; nobody is root on the build host, and no loop device is used. The
// initramfs is the one initramfs-tools makes by default, the units are those the packages enable, and systemd-networkd. Nothing is
// tuned and nothing slowed down. What is not Debian's own is the partition table, the loader entry, the ssh key, and
// no_timer_check and tsc=nowatchdog on the command line, which all machines of the lab have.
//
// The result is kept in the cache under a key of all that goes into it, and takes six to ten minutes to make under TCG.
package debian

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/proa-os/proa/image-builder/archive"
	"github.com/proa-os/proa/image-builder/lock"
	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/tooltree"
	"github.com/proa-os/proa/qemu-tests/vm"
)

//go:embed configure.sh
var configureScript string

// recipe is a number that changes when this package makes another disk of the same packages and configure.sh.
const recipe = "debian 2"

// Options say what Make works with.
type Options struct {
	Repository string // the checkout
	APT        string // the host's apt configuration, normally /etc/apt
	Progress   io.Writer
}

// Image is the Debian machine's disk.
type Image struct {
	Dir string // disk.img, key, and configure.log: what the packages' scripts said
	// Packages is how many Debian packages are installed.
	Packages int
}

// Disk is the raw disk image.
func (i Image) Disk() string { return filepath.Join(i.Dir, "disk.img") }

// Key logs in as root.
func (i Image) Key() (*vm.Key, error) {
	b, err := os.ReadFile(filepath.Join(i.Dir, "key"))
	if err != nil {
		return nil, fmt.Errorf("read ssh key of the Debian machine: %w", err)
	}
	return vm.ParseKey(b)
}

// Make returns the image out of the cache, or makes it there.
func Make(ctx context.Context, o Options) (Image, error) {
	image, err := makeImage(ctx, o)
	if err != nil {
		return Image{}, fmt.Errorf("make plain Debian: %w", err)
	}
	return image, nil
}

func makeImage(ctx context.Context, o Options) (Image, error) {
	manifest := filepath.Join(o.Repository, "manifests", "debian.toml")
	m, err := lock.ReadManifest(manifest)
	if err != nil {
		return Image{}, err
	}
	l, err := lock.Read(filepath.Join(o.Repository, "manifests", "debian.lock.json"))
	if err != nil {
		return Image{}, err
	}
	if err := l.Check(m.Packages); err != nil {
		return Image{}, fmt.Errorf("%s: %w %s", manifest, err, manifest)
	}
	cache, err := tooltree.CacheDir()
	if err != nil {
		return Image{}, err
	}
	key, err := cacheKey(l)
	if err != nil {
		return Image{}, err
	}
	image := Image{Dir: filepath.Join(cache, "bench", "debian-"+key), Packages: len(l.Packages)}
	if _, err := os.Stat(image.Disk()); err == nil {
		return image, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return Image{}, err
	}
	mirrors, err := lock.FindMirrors(l, cache, archive.Mirrors{}, m.Mirror, o.APT)
	if err != nil {
		return Image{}, err
	}
	if err := lock.Fetch(ctx, l, mirrors, cache, o.Progress); err != nil {
		return Image{}, err
	}
	return image, build(ctx, o, l, cache, image.Dir)
}

// cacheKey names a disk by what it is made of.
func cacheKey(l *lock.Lock) (string, error) {
	sum, err := l.Sum()
	if err != nil {
		return "", err
	}
	return digest.Of([]byte(recipe + "\n" + sum.String() + "\n" + configureScript)).String()[:16], nil
}

// A maker makes one disk in a folder of its own.
type maker struct {
	Options
	lock  *lock.Lock
	cache string
	work  string
	tools *tooltree.Tree
	key   *vm.Key
	start time.Time
}

// build makes the disk beside dir and renames at the end: an interrupted build leaves nothing that looks whole.
func build(ctx context.Context, o Options, l *lock.Lock, cache, dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), ".work-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	tools, err := tooltree.Open()
	if err != nil {
		return err
	}
	m := &maker{Options: o, lock: l, cache: cache, work: work, tools: tools, start: time.Now()}
	if m.key, err = vm.NewKey(); err != nil {
		return err
	}
	for _, step := range []struct {
		say string
		do  func(context.Context) error
	}{
		{fmt.Sprintf("unpack %d packages", len(l.Packages)), m.unpack},
		{"make the root file system", m.makeRoot},
		{"write the disk that configures itself", m.writeDisk},
		{"configure Debian in QEMU: once, six to ten minutes under TCG", m.configure},
		{"put its kernel and initramfs behind systemd-boot", m.makeBootable},
	} {
		m.say("%s", step.say)
		if err := step.do(ctx); err != nil {
			if saved := m.keepLogs(dir); saved != "" {
				err = fmt.Errorf("%w\n  the machine's logs are in %s", err, saved)
			}
			return err
		}
	}
	return m.finish(dir)
}

// say prints a line with the seconds since the start.
func (m *maker) say(format string, args ...any) {
	fmt.Fprintf(m.Progress, "debian: %5.1f s  %s\n", time.Since(m.start).Seconds(), fmt.Sprintf(format, args...))
}

// finish gives the disk its name in the cache.
func (m *maker) finish(dir string) error {
	done := filepath.Join(m.work, "done")
	if err := os.Mkdir(done, 0o755); err != nil {
		return err
	}
	pem, err := m.key.PrivatePEM()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(done, "key"), pem, 0o600); err != nil {
		return err
	}
	for from, to := range map[string]string{m.machineDisk(): "disk.img", filepath.Join(m.work, "machine", "console.log"): "configure.log"} {
		if err := os.Rename(from, filepath.Join(done, to)); err != nil {
			return err
		}
	}
	if err := os.Rename(done, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	m.say("done: %s", dir)
	return nil
}

// keepLogs saves console and QEMU's words of a machine that failed, and returns where; "" if there are none.
func (m *maker) keepLogs(dir string) string {
	logs := filepath.Join(m.work, "machine")
	if _, err := os.Stat(filepath.Join(logs, "console.log")); err != nil {
		return ""
	}
	saved := dir + ".failed"
	if err := os.MkdirAll(saved, 0o755); err != nil {
		return ""
	}
	for _, name := range []string{"console.log", "qemu.log"} {
		os.Rename(filepath.Join(logs, name), filepath.Join(saved, name)) // Nothing depends on it.
	}
	return saved
}

// machineDisk is the disk of the machine that configures itself.
func (m *maker) machineDisk() string { return filepath.Join(m.work, "machine", "disk.raw") }

func (m *maker) tool(ctx context.Context, name string, args ...string) (string, error) {
	out, err := m.tools.Command(ctx, name, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}
