package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/proa-os/proa/image-builder/erofs"
	"github.com/proa-os/proa/image-builder/inventory"
	"github.com/proa-os/proa/image-builder/lock"
	"github.com/proa-os/proa/image-builder/manifest"
	"github.com/proa-os/proa/image-builder/rootfs"
	"github.com/proa-os/proa/image-builder/stage"
	"github.com/proa-os/proa/image-builder/tree"
	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/gpt"
	"github.com/proa-os/proa/internal/release"
	"github.com/proa-os/proa/internal/verity"
)

// derive returns an identifier that depends on its words only.
func derive(words ...string) [sha256.Size]byte {
	h := sha256.New()
	for _, w := range words {
		fmt.Fprintf(h, "%d:%s", len(w), w)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

func guid(words ...string) gpt.GUID {
	d := derive(words...)
	return gpt.NewGUID([16]byte(d[:16]))
}

// The files of the root image's stage.
const (
	rootFile   = "root.img"
	treeFile   = "tree.txt"
	rootRecord = "root.json" // release.RootImage
)

// rootKey is the key of the root image's stage.
func (in *inputs) rootKey() (digest.SHA256, error) {
	packages, err := in.lock.Sum()
	if err != nil {
		return digest.SHA256{}, err
	}
	m := *in.manifest // what only other steps read must not count
	m.Mirror, m.Initramfs, m.Boot, m.Budget, m.Sum = "", manifest.Initramfs{}, manifest.Boot{}, manifest.Budget{}, digest.SHA256{}
	parts, err := json.Marshal(m)
	if err != nil {
		return digest.SHA256{}, err
	}
	k := stage.NewKey("root image").Add("builder", in.self.String()).Add("version", in.Version).Add("packages", packages.String()).
		Add("manifest", string(parts)).Add("tools", filepath.Base(in.tools.Dir())).Add("kernel", filepath.Base(in.kernel.Dir))
	for _, p := range in.ownPrograms() {
		k.Add("program "+p, in.sources.Inputs[p])
	}
	for i, dir := range in.overlays() {
		k.Add("overlay "+filepath.Base(dir), in.files[i])
	}
	return k.Sum(), nil
}

func (in *inputs) overlays() []string { return append([]string{in.path("files")}, in.Overlays...) }

// readFiles takes note of what the overlays hold. All keys are made of these notes: a file that is saved during the build is not in what
// the build keeps, nor in what it says of itself.
func readFiles(_ context.Context, in *inputs, _ *release.Release) error {
	in.files = nil
	for _, dir := range in.overlays() {
		dump, err := dumpDir(dir)
		if err != nil {
			return fmt.Errorf("read overlay: %w", err)
		}
		in.files = append(in.files, dump)
	}
	return nil
}

// changedOverlay names an overlay that is not as it was noted, or returns "".
func (in *inputs) changedOverlay() (string, error) {
	for i, dir := range in.overlays() {
		dump, err := dumpDir(dir)
		if err != nil {
			return "", fmt.Errorf("read overlay: %w", err)
		}
		if dump != in.files[i] {
			return dir, nil
		}
	}
	return "", nil
}

// dumpDir says what the tree takes from a directory, to the byte and the mode.
func dumpDir(dir string) (string, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	t, err := tree.FromDir(root, dir)
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	if err := t.Dump(&b); err != nil {
		return "", err
	}
	return b.String(), nil
}

// rootImage makes root.img: EROFS, then the verity superblock and tree.
func rootImage(ctx context.Context, in *inputs, r *release.Release) error {
	in.say("make the root image")
	var err error
	in.root, err = in.makeRoot(ctx, func(dir string) (map[string]digest.SHA256, error) { return fillRoot(ctx, in, r.Arch, dir) })
	if err != nil {
		return err
	}
	in.sums[rootFile], in.sums[treeFile] = in.root.Sum(rootFile), in.root.Sum(treeFile)
	b, err := os.ReadFile(in.root.Path(rootRecord))
	if err == nil {
		err = json.Unmarshal(b, &r.Root)
	}
	if err != nil {
		return fmt.Errorf("read the root image's record: %w", err)
	}
	return nil
}

// errSaved is why a root image is not kept: an overlay changed while it was made, so nobody knows which state is in it.
var errSaved = errors.New("changed meanwhile")

// makeRoot returns the stage of the root image, filled from one state of the overlays.
func (in *inputs) makeRoot(ctx context.Context, fill stage.Fill) (*stage.Entry, error) {
	var changed string
	const attempts = 3
	for range attempts {
		key, err := in.rootKey()
		if err != nil {
			return nil, fmt.Errorf("make the root image: %w", err)
		}
		e, err := in.make(key, func(dir string) (map[string]digest.SHA256, error) {
			sums, err := fill(dir)
			if err != nil {
				return nil, err
			}
			if changed, err = in.changedOverlay(); err == nil && changed != "" {
				err = errSaved
			}
			return sums, err
		})
		if !errors.Is(err, errSaved) {
			return e, err
		}
		if err := readFiles(ctx, in, nil); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("make the root image: %s changes all the time: build again when it is saved", changed)
}

// assemble makes disk.img while the root image is copied out of the cache: both wait for the kernel's copying, on different CPUs.
func assemble(ctx context.Context, in *inputs, r *release.Release) error {
	copied := make(chan error, 1)
	go func() { copied <- in.takeRoot() }()
	err := diskImage(ctx, in, r)
	return errors.Join(err, <-copied)
}

// takeRoot copies the root image and the report about it into the work directory.
func (in *inputs) takeRoot() error {
	for _, name := range []string{rootFile, treeFile} {
		if err := copyFile(filepath.Join(in.work, name), in.root.Path(name)); err != nil {
			return fmt.Errorf("copy the root image: %w", err)
		}
	}
	return nil
}

// fillRoot makes the files of the root image's stage in dir.
func fillRoot(ctx context.Context, in *inputs, arch, dir string) (map[string]digest.SHA256, error) {
	var archives tree.Archives
	defer archives.Close()
	t, err := rootfs.Build(ctx, rootfs.Input{
		Manifest: in.manifest, Lock: in.lock, CacheDir: in.CacheDir, Archives: &archives, Kernel: in.kernel,
		Programs: in.programs, Overlays: in.overlays(), Version: in.Version,
	})
	if err != nil {
		return nil, fmt.Errorf("make the tree: %w", err)
	}
	if err := addInventory(t, in.lock); err != nil {
		return nil, fmt.Errorf("make the tree: %w", err)
	}
	in.say("write the root image: %d entries", t.Len())
	reported := make(chan error, 1)
	go func() { reported <- writeReport(filepath.Join(dir, treeFile), t) }()
	name := filepath.Join(dir, rootFile)
	// Files of /etc that a machine has changed remember which inode of which file system they were copied from. An update brings another
	// file system: with the same UUID, the kernel would look for that inode in it, and find another one or none.
	size, err := erofs.Make(ctx, in.tools, t, name, guid("root image", arch, in.Version), Epoch)
	if err := errors.Join(err, <-reported); err != nil {
		return nil, err
	}
	root, err := appendTree(name, size)
	if err != nil {
		return nil, fmt.Errorf("append verity tree: %w", err)
	}
	b, err := json.Marshal(root)
	if err != nil {
		return nil, err
	}
	return map[string]digest.SHA256{rootFile: root.SHA256}, os.WriteFile(filepath.Join(dir, rootRecord), b, 0o644)
}

// packages are the lock's, as release.json and the inventory name them.
func packages(l *lock.Lock) (list []release.Package) {
	for _, p := range l.Packages {
		list = append(list, release.Package{Name: p.Name, Version: p.Version})
	}
	return list
}

func addInventory(t *tree.Tree, l *lock.Lock) error {
	b, err := inventory.Marshal(packages(l))
	if err != nil {
		return err
	}
	return t.Add(tree.Entry{Path: inventory.Path, Type: tree.File, Mode: 0o644, Size: int64(len(b)), Content: tree.Bytes(b), Package: rootfs.Own})
}

func writeReport(name string, t *tree.Tree) error {
	sums, err := t.Sums()
	if err != nil {
		return fmt.Errorf("write tree report: %w", err)
	}
	f, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("write tree report: %w", err)
	}
	return errors.Join(t.Report(f, sums), f.Close())
}

// appendTree derives the salt from the file system, so that the same content always has the same root hash.
func appendTree(name string, size int64) (r release.RootImage, err error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return r, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return r, err
	}
	salt := derive("verity salt", digest.SHA256(h.Sum(nil)).String())
	// The UUID is the start of the salt, as where a machine rebuilds the tree: then its slot is root.img to the byte.
	root, written, err := verity.Build(f, size, salt, [16]byte(salt[:16]), io.NewOffsetWriter(f, size))
	if err != nil {
		return r, err
	}
	r = release.RootImage{Size: size + written, RootHash: root, Salt: fmt.Sprintf("%x", salt), HashOffset: size}
	if r.Size > slotSize {
		return r, fmt.Errorf("root image has %d bytes, a slot holds %d", r.Size, int64(slotSize))
	}
	// The sum of the whole goes on where that of the file system ended.
	if _, err := io.Copy(h, io.NewSectionReader(f, size, written)); err != nil {
		return r, err
	}
	r.SHA256 = digest.SHA256(h.Sum(nil))
	return r, f.Close()
}
