// Package rootfs makes the tree of the root image: packages, what the manifest removes, the project's own files and
// programs, the kernel's modules, and the fix-ups that maintainer scripts would have made.
//
// No maintainer script runs. What one would do that the image needs is here, in the manifest or in manifests/files. At the end
// nothing is setuid or setgid, and every program finds its libraries (package elfcheck).
package rootfs

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/proa-os/proa/image-builder/elfcheck"
	"github.com/proa-os/proa/image-builder/kernel"
	"github.com/proa-os/proa/image-builder/lock"
	"github.com/proa-os/proa/image-builder/manifest"
	"github.com/proa-os/proa/image-builder/tree"
	"github.com/proa-os/proa/internal/arch"
)

// Input is all that a root image is made of.
type Input struct {
	Manifest *manifest.Manifest
	Lock     *lock.Lock // its packages are in the cache
	CacheDir string
	Archives *tree.Archives // keeps the packages open until the tree is written
	Kernel   *kernel.Kernel
	Programs string   // directory of the compiled programs, each under its package's last element
	Overlays []string // directories laid over the packages, in order; the first is manifests/files
	Version  string   // semver of the release
}

// Own is what the tree calls the package of whatever comes from this repository.
const Own = "proa"

// IsKernel reports whether a package is the kernel's, which Build leaves to package kernel.
func IsKernel(p lock.Package) bool { return strings.HasPrefix(p.Name, "linux-image-") }

// Build returns the finished tree.
func Build(ctx context.Context, in Input) (*tree.Tree, error) {
	t, err := packages(ctx, in)
	if err != nil {
		return nil, err
	}
	for _, step := range []struct {
		name string
		do   func(*tree.Tree, Input) error
	}{
		{"bundle CA certificates", bundleCertificates},
		{"remove files", remove},
		{"lay files over", overlay},
		{"derive accounts", accounts},
		{"make links", links},
		{"link busybox applets", busybox},
		{"add programs", programs},
		{"add kernel modules", modules},
		{"write os-release", osRelease},
		{"set modes", modes},
		{"check libraries", checkLibraries},
	} {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := step.do(t, in); err != nil {
			return nil, fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return t, nil
}

// packages unpacks everything but the kernel, two at a time, and merges in the lock's order, base-files first: it
// brings the links that make /bin and /usr/bin one.
func packages(ctx context.Context, in Input) (*tree.Tree, error) {
	var list []lock.Package
	for _, p := range in.Lock.Packages {
		switch {
		case IsKernel(p):
		case p.Name == "base-files":
			list = slices.Insert(list, 0, p)
		default:
			list = append(list, p)
		}
	}
	trees, errs := make([]*tree.Tree, len(list)), make([]error, len(list))
	const workers = 2
	var (
		wg   sync.WaitGroup
		next = make(chan int)
	)
	for range workers {
		wg.Go(func() {
			for i := range next {
				trees[i], errs[i] = unpack(list[i], in)
			}
		})
	}
	for i := range list {
		if ctx.Err() == nil {
			next <- i
		}
	}
	close(next)
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	t := tree.New()
	for i, p := range list {
		if errs[i] != nil {
			return nil, fmt.Errorf("unpack %s: %w", p, errs[i])
		}
		if err := t.Merge(trees[i]); err != nil {
			return nil, fmt.Errorf("merge %s: %w", p, err)
		}
	}
	return t, nil
}

func unpack(p lock.Package, in Input) (*tree.Tree, error) {
	f, err := lock.OpenTar(in.CacheDir, p)
	if err != nil {
		return nil, err
	}
	in.Archives.Keep(f)
	return tree.FromTar(f, p.Name)
}

// bundleCertificates does update-ca-certificates' work: one file of all authorities, in the order of their names.
func bundleCertificates(t *tree.Tree, _ Input) error {
	const dir = "usr/share/ca-certificates"
	certs, err := t.Match(dir + "/mozilla/*.crt")
	if err != nil {
		return err
	}
	if len(certs) == 0 {
		return fmt.Errorf("no certificates below %s: is ca-certificates in the manifest?", dir)
	}
	var bundle bytes.Buffer
	for _, c := range certs {
		b, err := t.ReadFile(c.Path)
		if err != nil {
			return err
		}
		bundle.Write(append(bytes.TrimRight(b, "\n"), '\n'))
	}
	if _, err := t.Remove(dir); err != nil {
		return err
	}
	return t.Add(file("etc/ssl/certs/ca-certificates.crt", bundle.Bytes(), 0o644))
}

func file(p string, content []byte, mode uint32) tree.Entry {
	return tree.Entry{Path: p, Type: tree.File, Mode: mode, Size: int64(len(content)), Content: tree.Bytes(content), Package: Own}
}

// remove fails for a pattern that matches nothing, so that the list never outlives what it was written for.
func remove(t *tree.Tree, in Input) error {
	var dead []string
	for _, pattern := range in.Manifest.Tree.Remove {
		n, err := t.Remove(pattern)
		if err != nil {
			return err
		}
		if n == 0 {
			dead = append(dead, pattern)
		}
	}
	if len(dead) > 0 {
		return fmt.Errorf("tree.remove: %q match nothing: remove them from the manifest", dead)
	}
	return nil
}

func overlay(t *tree.Tree, in Input) error {
	for i, dir := range in.Overlays {
		source := Own
		if i > 0 {
			source = "overlay:" + filepath.Base(dir)
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			return err
		}
		o, err := tree.FromDir(root, source)
		root.Close()
		if err != nil {
			return err
		}
		if err := t.Overlay(o); err != nil {
			return err
		}
	}
	return nil
}

func links(t *tree.Tree, in Input) error {
	for _, d := range in.Manifest.Tree.Dirs {
		if err := t.Add(tree.Entry{Path: d, Type: tree.Dir, Mode: 0o755, Package: Own}); err != nil {
			return err
		}
	}
	for _, p := range slices.Sorted(maps.Keys(in.Manifest.Tree.Symlinks)) {
		if err := t.Add(link(p, in.Manifest.Tree.Symlinks[p])); err != nil {
			return err
		}
	}
	return nil
}

func link(p, target string) tree.Entry {
	return tree.Entry{Path: p, Type: tree.Symlink, Mode: 0o777, Target: target, Package: Own}
}

// busybox stands in where no package brings the real program.
func busybox(t *tree.Tree, in Input) error {
	const program = "usr/bin/busybox"
	b := in.Manifest.Busybox
	if len(b.Bin)+len(b.Sbin) == 0 {
		return nil
	}
	if _, ok := t.Lookup(program); !ok {
		return fmt.Errorf("%s is not in the tree: is busybox in the manifest?", program)
	}
	for dir, applets := range map[string][]string{"usr/bin": b.Bin, "usr/sbin": b.Sbin} {
		target, err := filepath.Rel("/"+dir, "/"+program)
		if err != nil {
			return err
		}
		for _, a := range applets {
			if real(t, a) {
				continue
			}
			if err := t.Add(link(path.Join(dir, a), target)); err != nil {
				return err
			}
		}
	}
	return nil
}

// real reports whether a package brought the program, in either directory.
func real(t *tree.Tree, name string) bool {
	_, bin := t.Lookup("usr/bin/" + name)
	_, sbin := t.Lookup("usr/sbin/" + name)
	return bin || sbin
}

func programs(t *tree.Tree, in Input) error {
	for _, p := range slices.Sorted(maps.Keys(in.Manifest.Programs)) {
		if err := addHostFile(t, p, filepath.Join(in.Programs, path.Base(in.Manifest.Programs[p])), 0o755, Own); err != nil {
			return err
		}
	}
	return nil
}

func addHostFile(t *tree.Tree, p, name string, mode uint32, pkg string) error {
	fi, err := os.Stat(name)
	if err != nil {
		return err
	}
	return t.Replace(tree.Entry{Path: p, Type: tree.File, Mode: mode, Size: fi.Size(), Content: tree.HostFile(name), Package: pkg})
}

// modules leaves out the indices that only depmod reads, and those that modprobe reads in their binary form.
func modules(t *tree.Tree, in Input) error {
	unread := []string{"modules.alias", "modules.dep", "modules.order", "modules.symbols"}
	pkg := Own
	for _, p := range in.Lock.Packages {
		if IsKernel(p) && strings.HasSuffix(p.Name, in.Kernel.Version) {
			pkg = p.Name
		}
	}
	return filepath.WalkDir(in.Kernel.ModulesDir(), func(name string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || slices.Contains(unread, d.Name()) {
			return err
		}
		rel, err := filepath.Rel(in.Kernel.Dir, name)
		if err != nil {
			return err
		}
		return addHostFile(t, filepath.ToSlash(rel), name, 0o644, pkg)
	})
}

// OSRelease returns the text of os-release(5); systemd-boot sorts boot programs by IMAGE_VERSION.
func OSRelease(version string) string {
	return fmt.Sprintf(`NAME="Proa"
ID=proa
ID_LIKE=debian
DEFAULT_HOSTNAME=proa
IMAGE_ID=proa
PRETTY_NAME="Proa %[1]s"
VERSION_ID=%[1]s
IMAGE_VERSION=%[2]s
`, version, strings.Replace(version, "-", "~", 1))
}

func osRelease(t *tree.Tree, in Input) error {
	return t.Replace(file("usr/lib/os-release", []byte(OSRelease(in.Version)), 0o644))
}

// modes takes every setuid and setgid bit away, then sets what the manifest says.
func modes(t *tree.Tree, in Input) error {
	const setid = 0o6000
	for e := range t.All() {
		if e.Type != tree.Symlink && e.Mode&setid != 0 {
			if err := t.SetMode(e.Path, e.Mode&^setid, e.UID, e.GID); err != nil {
				return err
			}
		}
	}
	for _, m := range in.Manifest.Tree.Modes {
		perm, err := m.Perm()
		if err != nil {
			return err
		}
		if err := t.SetMode(m.Path, perm, m.UID, m.GID); err != nil {
			return err
		}
	}
	return nil
}

func checkLibraries(t *tree.Tree, in Input) error {
	a, err := arch.Of(in.Manifest.Packages.Arch)
	if err != nil {
		return err
	}
	var files []elfcheck.File
	for e := range t.All() {
		if e.Type == tree.File && !strings.HasPrefix(e.Path, "usr/lib/modules/") {
			files = append(files, elfcheck.File{Path: e.Path, Open: e.Content.Open})
		}
	}
	exists := func(p string) bool { _, ok := t.Resolve(p); return ok }
	// The loader's built-in path on Debian; there is no ld.so.cache.
	missing, err := elfcheck.Check(files, exists, []string{"/" + a.LibDir(), "/usr/lib"})
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		var b strings.Builder
		for _, m := range missing {
			fmt.Fprintf(&b, "\n\t%s", m)
		}
		return fmt.Errorf("libraries are missing in the tree: include their packages or remove the programs:%s", b.String())
	}
	return nil
}
