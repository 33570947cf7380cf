// Package image is the pipeline that turns a manifest and its lock into a release's files:
//
//	out/<version>/root.img        EROFS and its verity tree, what a slot holds
//	out/<version>/boot.efi        the boot program
//	out/<version>/disk.img        the whole disk, sparse: ESP, BIOS partition, slot A filled, slot B empty
//	out/<version>/disk.qcow2      the same disk, compressed (package qcow2)
//	out/<version>/tree.txt        every file of the root image (tree.Report)
//	out/<version>/sbom.spdx.json  what all this is made of (package sbom)
//	out/<version>/release.json    what the release desk signs (package release)
//
// Programs and the root image are stages: they are made once for the same inputs (package stage). If nothing at all has changed since the last
// build into a directory, that is noticed and nothing is done.
//
// It needs no root and no loop devices, takes nothing from the build host but Go, and makes the same bytes everywhere with the same Go
// release: entries are sorted, times are fixed, identifiers are derived from content. Build is the list of steps; each lives in its package.
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
	"github.com/proa-os/proa/image-builder/stage"
	"github.com/proa-os/proa/image-builder/tools"
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
	NoCache  bool            // make every stage anew, and keep none
	Zstd     bool            // measure the root image as zstd -19 leaves it even where a lower level will do, which takes minutes
	NoQcow2  bool            // leave out disk.qcow2, which takes longer than the rest
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
	kernel   *kernel.Kernel
	stages   *stage.Cache
	entries  []*stage.Entry // in use until the end
	self     digest.SHA256  // of the builder
	sources  *program.Listing
	files    []string // what each of the overlays holds (dumpDir)
	programs string   // directory of compiled programs
	root     *stage.Entry
	work     string     // becomes Out
	locks    []*os.File // held until the end
	sums     map[string]digest.SHA256
	clock    *clock
}

// workPrefix is how the names of directories begin that become a build's, or were one.
const workPrefix = ".build-"

// initProgram is /init of the initramfs.
const initProgram = "./init/cmd/init"

// A Result is what Build has made.
type Result struct {
	*release.Release
	Fresh bool // false if Out held just this already
}

// Build makes the release's files.
func Build(ctx context.Context, o Options) (*Result, error) {
	self, err := stage.Self() // first: a builder that is being replaced is still the one that runs
	if err != nil {
		return nil, err
	}
	if err := checkVersion(o.Version); err != nil {
		return nil, err
	}
	if err := checkOut(o.Out); err != nil {
		return nil, err
	}
	if err := checkOverlays(o.Overlays); err != nil {
		return nil, err
	}
	in := &inputs{Options: &o, self: self, sums: map[string]digest.SHA256{}, clock: newClock(o.Progress)}
	defer in.close()
	r := &release.Release{Version: o.Version}
	if err := in.run(ctx, r, lockOut, open, prepareKernel, listPrograms, readFiles); err != nil {
		return nil, err
	}
	if old := in.finished(); old != nil {
		return &Result{Release: old}, in.judge(ctx, old, in.Out)
	}
	if err := in.run(ctx, r, makeRoom, compile, rootImage, bootProgram, assemble, qcow2Image, billOfMaterials, describe, checkBudget, publish); err != nil {
		return nil, err
	}
	return &Result{Release: r, Fresh: true}, nil
}

type step func(context.Context, *inputs, *release.Release) error

func (in *inputs) run(ctx context.Context, r *release.Release, steps ...step) error {
	for _, do := range steps {
		err := do(ctx, in, r)
		if err == nil {
			err = ctx.Err() // else it is in err already, or something worse is
		}
		if err != nil {
			return err
		}
	}
	in.clock.stop()
	return nil
}

// say names what is being done now.
func (in *inputs) say(format string, a ...any) { in.clock.start(fmt.Sprintf(format, a...)) }

func (in *inputs) close() {
	in.clock.stop()
	for _, e := range in.entries {
		e.Close()
	}
	if in.work != "" {
		os.RemoveAll(in.work)
	}
	if in.kernel != nil {
		in.kernel.Close()
	}
	for _, f := range in.locks {
		f.Close()
	}
}

// make runs a stage, unless its result is in the cache.
func (in *inputs) make(key digest.SHA256, fill stage.Fill) (*stage.Entry, error) {
	e, _, err := in.stages.Make(key, fill)
	if err == nil {
		in.entries = append(in.entries, e)
	}
	return e, err
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

// checkOverlays says at once, not after downloads, that there is a typing mistake.
func checkOverlays(dirs []string) error {
	for _, dir := range dirs {
		fi, err := os.Stat(dir)
		if err == nil && !fi.IsDir() {
			err = errors.New("it is no directory")
		}
		if err != nil {
			return fmt.Errorf("overlay %s: %w; name a directory with --overlay", dir, err)
		}
	}
	return nil
}

// open reads the manifest and the locks, and fetches what they name.
func open(ctx context.Context, in *inputs, r *release.Release) (err error) {
	if in.manifest, err = manifest.Read(in.path("image.toml")); err != nil {
		return err
	}
	r.Arch = in.manifest.Packages.Arch
	if in.lock, err = lock.Read(in.path("image.lock.json")); err != nil {
		return err
	}
	if err := in.lock.Check(in.manifest.Packages); err != nil {
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
	return lock.Fetch(ctx, in.lock, mirrors, in.CacheDir, in.Progress)
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
	rules := in.manifest.Kernel.For(in.manifest.Packages.Arch)
	var err error
	cache := in.CacheDir
	if in.NoCache {
		if err := makeRoom(ctx, in, nil); err != nil {
			return err
		}
		cache = in.work
	}
	in.kernel, err = kernel.Prepare(ctx, in.tools, kernel.Source{Builder: in.self, Package: p.SHA256, Rules: kernel.Rules{Keep: rules.Keep, Drop: rules.Drop},
		Open: func() (io.ReadCloser, error) { return lock.OpenTar(in.CacheDir, p) }}, cache)
	return err
}

// describe writes release.json.
func describe(_ context.Context, in *inputs, r *release.Release) error {
	r.Packages = packages(in.lock)
	sum, err := in.lock.Sum()
	if err != nil {
		return err
	}
	r.Build.Manifest, r.Build.Lock = in.manifest.Sum, sum
	tools, err := lock.Read(in.path("tools.lock.json"))
	if err != nil {
		return err
	}
	if r.Build.Tools, err = tools.Sum(); err != nil {
		return err
	}
	if r.Build.SBOM, _, err = sumFile(filepath.Join(in.work, "sbom.spdx.json")); err != nil {
		return err
	}
	if err := r.Validate(); err != nil {
		return fmt.Errorf("describe release: %w", err)
	}
	b, err := r.Marshal()
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(in.work, "release.json"), b, 0o644)
}
