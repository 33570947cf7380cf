// Package pair makes pairs of releases that differ as real ones do, to measure payloads with: Debian's own packages before and after a fix,
// our own programs before and after a change.
//
//	manifests/image.lock.json + packages.json ─▶ lock of a variant ┐
//	this checkout + a few changed lines ─────▶ sources of a variant ┴▶ image-builder ─▶ root.img, boot.efi, release.json in the cache
//
// A variant is today's checkout in which some packages are replaced by those of packages.json, which are pinned as in a lock: older
// ones, and where a class of updates is to stay what it is, the newer ones too. Everything is built by image-builder as a release is; the old
// image of a pair is version 1.0.0, the new one 1.0.1. Images are kept in the cache under a key of all that goes into them, and take a minute each to make.
package pair

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/proa-os/proa/image-builder/lock"
	"github.com/proa-os/proa/image-builder/stage"
	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/release"
	"github.com/proa-os/proa/internal/tooltree"
)

// A Pair is an update from one release to the next.
type Pair struct {
	Name, Title string
	Old, New    Image
}

// Image is one release.
type Image struct {
	Dir     string // root.img, boot.efi
	Release *release.Release
}

// Root is the root image with its verity tree.
func (i Image) Root() string { return filepath.Join(i.Dir, "root.img") }

// Boot is the boot program.
func (i Image) Boot() string { return filepath.Join(i.Dir, "boot.efi") }

// A variant is a checkout with other packages and, perhaps, a change in our own programs.
type variant struct {
	packages []string // "name version" of packages.json
	changes  []change
}

// A class is an update that happens in the life of a machine.
type class struct {
	name, title string
	old, new    variant
}

func classes() []class {
	const (
		openssl2 = "libssl3t64 3.5.7-1~deb13u2"
		zlib     = "zlib1g 1:1.3.dfsg+really1.3.1-1+b1"
	)
	return []class{
		{"openssl", "OpenSSL 3.5.7-1~deb13u2 to u3", variant{packages: []string{openssl2}}, variant{packages: []string{"libssl3t64 3.5.7-1~deb13u3"}}},
		{"zlib", "zlib 1.3.1-1+b1 to +deb13u1", variant{packages: []string{zlib}}, variant{}},
		{"go", "a few lines in each of our programs", variant{}, variant{changes: own()}},
		{"go-shared", "a few lines in what most of our programs are made of", variant{}, variant{changes: shared()}},
		{"kernel", "Linux 6.12.117 to 6.12.118", variant{packages: []string{"linux-image-6.12.117+deb13-amd64 6.12.117-1"}},
			variant{packages: []string{"linux-image-6.12.118+deb13-amd64 6.12.118-1"}}},
		{"month", "Linux 6.12.107 to today's, libc, OpenSSL, OpenSSH, krb5, zlib, our programs", variant{packages: []string{
			openssl2, zlib, "linux-image-6.12.107+deb13-amd64 6.12.107-1", "libc6 2.41-12+deb13u4", "base-files 13.8+deb13u7",
			"libgssapi-krb5-2 1.21.3-5+deb13u1", "libk5crypto3 1.21.3-5+deb13u1", "libkrb5-3 1.21.3-5+deb13u1", "libkrb5support0 1.21.3-5+deb13u1",
			"openssh-client 1:10.0p1-7+deb13u2", "openssh-server 1:10.0p1-7+deb13u2", "openssh-sftp-server 1:10.0p1-7+deb13u2",
		}}, variant{changes: slices.Concat(own(), shared())}},
	}
}

// Names are the pairs that Make knows.
func Names() []string {
	var names []string
	for _, c := range classes() {
		names = append(names, c.name)
	}
	return names
}

// Options say what Make works with.
type Options struct {
	Repository string    // the checkout
	Builder    string    // the program image-builder
	Progress   io.Writer // what takes its time
}

// Make returns the pair of that name out of the cache, or makes what is missing there.
func Make(ctx context.Context, o Options, name string) (Pair, error) {
	i := slices.IndexFunc(classes(), func(c class) bool { return c.name == name })
	if i < 0 {
		return Pair{}, fmt.Errorf("make release pair: no %q, expected one of %s", name, strings.Join(Names(), ", "))
	}
	c := classes()[i]
	p := Pair{Name: c.name, Title: c.title}
	var err error
	if p.Old, err = build(ctx, o, c.old, "1.0.0"); err == nil {
		p.New, err = build(ctx, o, c.new, "1.0.1")
	}
	if err != nil {
		return Pair{}, fmt.Errorf("make release pair %s: %w", c.name, err)
	}
	return p, nil
}

// Changed returns today's checkout with a few lines more in our programs, and in what most of them are made of, as a release.
func Changed(ctx context.Context, o Options, version string) (Image, error) {
	i, err := build(ctx, o, variant{changes: slices.Concat(own(), shared())}, version)
	if err != nil {
		return Image{}, fmt.Errorf("make release %s with changed programs: %w", version, err)
	}
	return i, nil
}

// Images are kept for so long after their last use, but for the newest.
const (
	newest = 9
	unused = 7 * 24 * time.Hour
)

func build(ctx context.Context, o Options, v variant, version string) (Image, error) {
	cache, err := tooltree.CacheDir()
	if err != nil {
		return Image{}, err
	}
	all := filepath.Join(cache, "bench", "pairs")
	if err := os.MkdirAll(all, 0o755); err != nil {
		return Image{}, err
	}
	stage.Sweep(all, working)
	work, err := os.MkdirTemp(all, working)
	if err != nil {
		return Image{}, err
	}
	defer os.RemoveAll(work)
	held, err := stage.LockDir(work)
	if err != nil {
		return Image{}, err
	}
	defer held.Close()
	checkout, key, err := v.checkout(o.Repository, filepath.Join(work, "checkout"))
	if err != nil {
		return Image{}, err
	}
	dir := filepath.Join(all, digest.Of([]byte(version+"\n"+key.String())).String())
	if _, err := os.Stat(filepath.Join(dir, "release.json")); errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintf(o.Progress, "bench: build %s with %s\n", version, v)
		if err := run(ctx, o, checkout, version, filepath.Join(work, "out"), dir); err != nil {
			return Image{}, err
		}
	}
	stage.Use(dir)
	stage.Prune(all, newest, unused, filepath.Base(dir))
	return openImage(dir)
}

func openImage(dir string) (Image, error) {
	b, err := os.ReadFile(filepath.Join(dir, "release.json"))
	if err != nil {
		return Image{}, err
	}
	r, err := release.Parse(b)
	return Image{Dir: dir, Release: r}, err
}

const working = ".work-"

func (v variant) String() string {
	words := slices.Clone(v.packages)
	for _, c := range v.changes {
		words = append(words, "changed "+c.file)
	}
	if len(words) == 0 {
		return "today's packages"
	}
	return strings.Join(words, ", ")
}

// run builds into out and keeps of it in dir what a payload is made of.
func run(ctx context.Context, o Options, checkout, version, out, dir string) error {
	if err := runBuilder(ctx, o, checkout, version, out); err != nil {
		return err
	}
	entries, err := os.ReadDir(out)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !slices.Contains([]string{"root.img", "boot.efi", "release.json"}, e.Name()) {
			if err := os.RemoveAll(filepath.Join(out, e.Name())); err != nil {
				return err
			}
		}
	}
	return os.Rename(out, dir)
}

//go:embed packages.json
var packagesJSON []byte

// packages are those of packages.json, by "name version".
func packages() (map[string]lock.Package, error) {
	var list []lock.Package
	if err := json.Unmarshal(packagesJSON, &list); err != nil {
		return nil, fmt.Errorf("parse packages.json: %w", err)
	}
	all := make(map[string]lock.Package)
	for _, p := range list {
		all[p.String()] = p
	}
	return all, nil
}
