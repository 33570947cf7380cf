// Package image is the pipeline that turns a manifest and its lock into a release's files:
//
//	out/<version>/root.img      EROFS and its verity tree, what a slot holds
//	out/<version>/boot.efi      the boot program
//	out/<version>/disk.img      the whole disk, sparse: ESP, BIOS partition, slot A filled, slot B empty
//	out/<version>/release.json  what the release desk signs (package release)
//
// It needs no root and no loop devices, takes nothing from the build host, and makes the same bytes everywhere: entries are
// sorted, times are fixed, identifiers are derived from content. Build is the list of steps; each lives in its package.
package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-semver/semver"

	"github.com/proa-os/proa/image-builder/archive"
	"github.com/proa-os/proa/image-builder/kernel"
	"github.com/proa-os/proa/image-builder/lock"
	"github.com/proa-os/proa/image-builder/manifest"
	"github.com/proa-os/proa/image-builder/program"
	"github.com/proa-os/proa/image-builder/rootfs"
	"github.com/proa-os/proa/image-builder/tools"
	"github.com/proa-os/proa/image-builder/tree"
	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/release"
	"github.com/proa-os/proa/internal/tooltree"
)

// Epoch is the modification time of every file in every image: constant, so that it never makes a delta.
var Epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Options say what Build works on.
type Options struct {
	Version string // semver of the release
	Out     string // directory, replaced when the build has succeeded
	Module  string // the checkout, where manifests/ and the programs are

	Overlays    []string // further directories laid over the image
	CommandLine string   // put behind the manifest's kernel command line

	CacheDir string
	Mirror   archive.Mirrors // wins over manifest and host if set
	APT      string          // the host's apt configuration, normally /etc/apt
	Progress io.Writer
}

func (o *Options) path(name string) string { return filepath.Join(o.Module, "manifests", name) }

// inputs are what the steps share.
type inputs struct {
	*Options
	manifest *manifest.Manifest
	lock     *lock.Lock
	tools    *tooltree.Tree
	programs string // directory of compiled programs
	kernel   *kernel.Kernel
	spool    *tree.Spool
	work     string // becomes Out
}

func (in *inputs) say(format string, a ...any) { fmt.Fprintf(in.Progress, "==> "+format+"\n", a...) }

// initProgram is /init of the initramfs.
const initProgram = "./init/cmd/init"

// Build makes the release's files and returns what it writes to release.json.
func Build(ctx context.Context, o Options) (*release.Release, error) {
	if err := checkVersion(o.Version); err != nil {
		return nil, err
	}
	if err := checkOut(o.Out); err != nil {
		return nil, err
	}
	in := &inputs{Options: &o}
	if err := in.open(ctx); err != nil {
		return nil, err
	}
	defer in.spool.Close()
	defer os.RemoveAll(in.work)

	r := &release.Release{Version: o.Version, Arch: in.manifest.Packages.Arch}
	for _, step := range []func(context.Context, *inputs, *release.Release) error{
		compile, prepareKernel, rootImage, bootProgram, diskImage, describe,
	} {
		if err := step(ctx, in, r); err != nil {
			return nil, err
		}
	}
	if err := os.RemoveAll(o.Out); err != nil {
		return nil, fmt.Errorf("replace %s: %w", o.Out, err)
	}
	if err := os.Rename(in.work, o.Out); err != nil {
		return nil, fmt.Errorf("replace %s: %w", o.Out, err)
	}
	return r, nil
}

// checkVersion refuses what could not become the name of a boot program.
func checkVersion(v string) error {
	s, err := semver.NewVersion(v)
	if err != nil || s.String() != v || s.Metadata != "" {
		return fmt.Errorf("version %q: expected semver such as 1.2.3 or 1.3.0-rc.1, without build metadata", v)
	}
	return nil
}

// checkOut refuses to replace what is not an earlier build: --out may name somebody's home by mistake.
func checkOut(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("output directory: %w", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "release.json")); err != nil {
		return fmt.Errorf("output directory %s holds something else than an earlier build (no release.json): it would be replaced; name another with --out", dir)
	}
	return nil
}

// open reads the manifest and the locks, and fetches what they name.
func (in *inputs) open(ctx context.Context) (err error) {
	if in.manifest, err = manifest.Read(in.path("image.toml")); err != nil {
		return err
	}
	if in.lock, err = lock.Read(in.path("image.lock.json")); err != nil {
		return err
	}
	if err := in.lock.Check(in.manifest.Packages); err != nil {
		return err
	}
	if err := checkSpace(filepath.Dir(filepath.Clean(in.Out)), buildSpace); err != nil {
		return err
	}
	dir, err := tools.Run(ctx, tools.Options{Manifest: in.path("tools.toml"), LockFile: in.path("tools.lock.json"), CacheDir: in.CacheDir,
		Flag: in.Mirror, APT: in.APT, Progress: in.Progress})
	if err != nil {
		return err
	}
	if in.tools, err = tooltree.OpenDir(dir); err != nil {
		return err
	}
	mirrors, err := lock.FindMirrors(in.lock, in.CacheDir, in.Mirror, in.manifest.Mirror, in.APT)
	if err != nil {
		return err
	}
	if err := lock.Fetch(ctx, in.lock, mirrors, in.CacheDir, in.Progress); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(filepath.Clean(in.Out)), 0o755); err != nil {
		return fmt.Errorf("make output directory: %w", err)
	}
	if in.work, err = os.MkdirTemp(filepath.Dir(filepath.Clean(in.Out)), ".build-"); err != nil {
		return fmt.Errorf("make output directory: %w", err)
	}
	if err := os.Chmod(in.work, 0o755); err != nil {
		return err
	}
	in.spool, err = tree.NewSpool(in.work)
	return err
}

func compile(ctx context.Context, in *inputs, r *release.Release) (err error) {
	in.say("compile programs")
	in.programs = filepath.Join(in.work, "programs")
	packages := []string{initProgram}
	for _, p := range in.manifest.Programs {
		packages = append(packages, p)
	}
	slices.Sort(packages)
	if r.Build.GoVersion, err = program.Version(ctx, in.Module); err != nil {
		return err
	}
	return program.Build(ctx, in.Module, in.manifest.Packages.Arch, in.programs, packages)
}

func prepareKernel(ctx context.Context, in *inputs, _ *release.Release) error {
	i := slices.IndexFunc(in.lock.Packages, func(p lock.Package) bool {
		return rootfs.IsKernel(p) && strings.Contains(p.Name, p.Version[:strings.IndexByte(p.Version+"-", '-')])
	})
	if i < 0 {
		return errors.New("prepare kernel: the lock has no linux-image-<version> package")
	}
	p := in.lock.Packages[i]
	in.say("prepare %s", p.Name)
	var err error
	in.kernel, err = kernel.Prepare(ctx, in.tools, p.SHA256, func() (io.ReadCloser, error) { return lock.OpenTar(in.CacheDir, p) },
		in.manifest.Kernel.Drop, in.CacheDir)
	return err
}

// describe writes release.json and takes away what was only needed on the way.
func describe(_ context.Context, in *inputs, r *release.Release) error {
	for _, p := range in.lock.Packages {
		r.Packages = append(r.Packages, release.Package{Name: p.Name, Version: p.Version})
	}
	sum, err := in.lock.Sum()
	if err != nil {
		return err
	}
	r.Build.Manifest, r.Build.Lock = in.manifest.Sum, sum
	if err := r.Validate(); err != nil {
		return fmt.Errorf("describe release: %w", err)
	}
	b, err := r.Marshal()
	if err != nil {
		return err
	}
	if err := os.RemoveAll(in.programs); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(in.work, "release.json"), b, 0o644)
}

func sumFile(name string) (digest.SHA256, int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return digest.SHA256{}, 0, err
	}
	defer f.Close()
	return digest.OfReader(f)
}
