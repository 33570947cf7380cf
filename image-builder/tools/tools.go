// Package tools makes the tools tree: the programs that a build and its tests need and that we do not write, as pinned Debian packages
// unpacked in the cache.
//
// It comes before everything else in a checkout (`image-builder tools`); internal/tooltree runs the programs. A tree is
// named by the sum of its lock, is never changed once it is there, and needs no root: owners and set-id bits are
// dropped. It is believed only if it has a marker, which is written when all else is on the disk: a power cut leaves files
// with a name and a size and nothing in them. Documentation and translations are left out. Maintainer scripts do not run, so only packages that
// work as unpacked belong in manifests/tools.toml.
//
// There is a second tree of the same kind, made from manifests/judges.toml: programs that only tests of the runtime and its benchmarks want. It
// is as large as the first, so whoever only builds and runs never fetches it.
package tools

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/proa-os/proa/image-builder/archive"
	"github.com/proa-os/proa/image-builder/lock"
	"github.com/proa-os/proa/image-builder/stage"
	"github.com/proa-os/proa/internal/arch"
	"github.com/proa-os/proa/internal/tooltree"
)

// Dir is where the tools tree of this lock is, or will be.
func Dir(l *lock.Lock, cacheDir string) (string, error) {
	return dirOf(l, filepath.Dir(tooltree.Current(cacheDir)))
}

func dirOf(l *lock.Lock, trees string) (string, error) {
	sum, err := l.PackagesSum()
	if err != nil {
		return "", err
	}
	return filepath.Join(trees, sum.String()), nil
}

// Install makes sure that the tools tree of this lock is there and is the current one, and returns its directory. An
// interrupted Install leaves nothing under the tree's name.
func Install(ctx context.Context, l *lock.Lock, mirrors archive.Mirrors, cacheDir string, progress io.Writer) (string, error) {
	return install(ctx, l, mirrors, cacheDir, tooltree.Current(cacheDir), progress)
}

// install makes the tree beside the link current.
func install(ctx context.Context, l *lock.Lock, mirrors archive.Mirrors, cacheDir, current string, progress io.Writer) (string, error) {
	dir, err := dirOf(l, filepath.Dir(current))
	if err != nil {
		return "", fmt.Errorf("install tools: %w", err)
	}
	if !complete(dir) {
		if err := lock.Fetch(ctx, l, mirrors, cacheDir, progress); err != nil {
			return "", fmt.Errorf("install tools: %w", err)
		}
		fmt.Fprintf(progress, "unpack %d packages into %s\n", len(l.Packages), dir)
		if err := unpackAll(ctx, l, cacheDir, dir); err != nil {
			return "", fmt.Errorf("install tools: %w", err)
		}
	}
	stage.Use(dir)
	if err := setCurrent(dir, current); err != nil {
		return "", fmt.Errorf("install tools: %w", err)
	}
	stage.Prune(filepath.Dir(dir), newest, unused, filepath.Base(dir))
	return dir, nil
}

// Of the trees of other locks, those that no checkout has asked for in a month are removed, but for the newest.
const (
	newest = 3
	unused = 30 * 24 * time.Hour
)

func unpackAll(ctx context.Context, l *lock.Lock, cacheDir, dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	lock.Sweep(filepath.Dir(dir), ".unpack-")
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".unpack-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(tmp)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, p := range l.Packages {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if err := unpack(root, lock.Path(cacheDir, p), p); err != nil {
			return fmt.Errorf("unpack %s: %w", p, lock.DropDamaged(cacheDir, p, err))
		}
	}
	if err := markComplete(tmp); err != nil {
		return err
	}
	return publish(tmp, dir)
}

// setCurrent points the link to dir in one step.
func setCurrent(dir, link string) error {
	target := filepath.Base(dir)
	if old, err := os.Readlink(link); err == nil && old == target {
		return nil
	}
	dir, err := os.MkdirTemp(filepath.Dir(link), ".link-*") // a name that nobody else uses
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	tmp := filepath.Join(dir, "current")
	if err := os.Symlink(target, tmp); err != nil {
		return err
	}
	return os.Rename(tmp, link)
}

// Options say what Run works on.
type Options struct {
	Manifest string // manifests/tools.toml
	LockFile string
	CacheDir string
	Current  string          // the link to the tree in use; if empty, that of the tools tree: tooltree.Current(CacheDir)
	Flag     archive.Mirrors // wins over manifest and host if set
	APT      string          // the host's apt configuration, normally /etc/apt
	Progress io.Writer
}

// Run is the command `image-builder tools`: it installs the locked tools tree and returns its directory.
func Run(ctx context.Context, o Options) (string, error) {
	m, err := lock.ReadManifest(o.Manifest)
	if err != nil {
		return "", err
	}
	l, err := lock.Read(o.LockFile)
	if err != nil {
		return "", err
	}
	if err := l.Check(m.Packages); err != nil {
		return "", fmt.Errorf("%s: %w", o.LockFile, err)
	}
	if err := checkHost(l); err != nil {
		return "", fmt.Errorf("%s: %w", o.LockFile, err)
	}
	mirrors, err := lock.FindMirrors(l, o.CacheDir, o.Flag, m.Mirror, o.APT)
	if err != nil {
		return "", err
	}
	if o.Current == "" {
		o.Current = tooltree.Current(o.CacheDir)
	}
	return install(ctx, l, mirrors, o.CacheDir, o.Current, o.Progress)
}

// checkHost fails if the tools are for another kind of machine than this one. The image's architecture does not matter here.
func checkHost(l *lock.Lock) error {
	host, err := arch.Host()
	if err != nil {
		return fmt.Errorf("install tools: %w", err)
	}
	if l.Arch != host.Debian {
		return fmt.Errorf("install tools: they are for %s, and this build host is %s: set arch in the tools manifest and run image-builder lock on it", l.Arch, host.Debian)
	}
	return nil
}
