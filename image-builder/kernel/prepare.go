// Package kernel turns Debian's kernel package into what an image wants: the kernel itself, and its modules pruned,
// uncompressed and indexed.
//
// Which modules stay is said by rules (Select); what those need stays too, by modules.dep and modules.softdep of the whole package.
// Modules are stored plain: compressed ones would ruin deltas between releases (the payload compresses instead).
// Their signatures stay. xz and depmod run from the tools tree. It also answers in which order /init must load modules, and
// for which devices.
package kernel

import (
	"archive/tar"
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

	"github.com/proa-os/proa/image-builder/stage"
	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/tooltree"
)

// Kernel is a prepared kernel in a directory.
type Kernel struct {
	Version string // as uname -r: 6.12.117+deb13-amd64
	Dir     string // holds Image() and usr/lib/modules/<version>/

	held *os.File
}

// How the names of directories begin that become a kernel, or were one.
const (
	working = ".work-"
	damaged = ".damaged-"
)

// Image returns the path of the kernel's own file, a bzImage on amd64.
func (k *Kernel) Image() string { return filepath.Join(k.Dir, "vmlinuz") }

// ModulesDir returns the directory of the modules and their indices.
func (k *Kernel) ModulesDir() string { return filepath.Join(k.Dir, "usr/lib/modules", k.Version) }

// Index reads what depmod wrote.
func (k *Kernel) Index() (*Index, error) {
	return ReadIndex(func(name string) (io.ReadCloser, error) { return os.Open(filepath.Join(k.ModulesDir(), name)) })
}

// Packed returns the path of a module as Debian ships it, compressed with xz, given its path below ModulesDir.
func (k *Kernel) Packed(module string) string {
	return filepath.Join(k.Dir, "packed", filepath.Base(module)+".xz") // names of modules are unique
}

// Close allows the directory to be removed when it has not been used for a while.
func (k *Kernel) Close() error {
	if k.held == nil {
		return nil
	}
	return k.held.Close()
}

// A Source is what a kernel is prepared from.
type Source struct {
	Builder digest.SHA256 // of the program that prepares it (stage.Self): another one may do it differently
	Package digest.SHA256
	Open    func() (io.ReadCloser, error) // the package's data, a tar
	Rules   Rules
}

func (s Source) key(tools string) digest.SHA256 {
	return stage.NewKey("kernel").Add("builder", s.Builder.String()).Add("package", s.Package.String()).Add("rules", s.Rules.String()).
		Add("tools", filepath.Base(tools)).Sum()
}

// What is kept of prepared kernels: those of the last few keys, and what is used at the moment.
const (
	keep    = 3
	keepFor = time.Hour
)

// Prepare unpacks a kernel package's data, with the modules that rules select, into cacheDir, once for each combination of
// builder, package, rules and tools. What is there is compared with its seal, and made anew if it has been changed. The kernel stays
// until it is closed.
func Prepare(ctx context.Context, tools *tooltree.Tree, s Source, cacheDir string) (*Kernel, error) {
	parent := filepath.Join(cacheDir, "kernel")
	dir := filepath.Join(parent, s.key(tools.Dir()).String())
	stage.Sweep(parent, working)
	stage.Sweep(parent, damaged)
	held, err := hold(dir)
	if err == nil && held == nil {
		if err = discard(dir); err == nil {
			err = prepare(ctx, tools, s.Open, s.Rules, dir)
		}
		if err == nil {
			held, err = stage.LockDir(dir)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("prepare kernel: %w", err)
	}
	stage.Use(dir)
	stage.Prune(parent, keep, keepFor)
	v, err := version(dir)
	if err != nil {
		held.Close()
		return nil, fmt.Errorf("prepare kernel: %w", err)
	}
	return &Kernel{Version: v, Dir: dir, held: held}, nil
}

// hold holds a prepared kernel's directory, or returns nil if there is none that is intact.
func hold(dir string) (*os.File, error) {
	held, err := stage.LockDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && !intact(dir) {
		return nil, held.Close()
	}
	return held, err
}

func version(dir string) (string, error) {
	e, err := os.ReadDir(filepath.Join(dir, "usr/lib/modules"))
	if err != nil {
		return "", err
	}
	if len(e) != 1 {
		return "", fmt.Errorf("%d kernel versions in one package, expected 1", len(e))
	}
	return e[0].Name(), nil
}

// prepare works beside dir and renames at the end: a cut leaves nothing that looks whole.
func prepare(ctx context.Context, tools *tooltree.Tree, open func() (io.ReadCloser, error), rules Rules, dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), working)
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	held, err := stage.LockDir(work)
	if err != nil {
		return err
	}
	defer held.Close()
	r, err := open()
	if err != nil {
		return err
	}
	defer r.Close()
	if err := unpack(tar.NewReader(r), work); err != nil {
		return err
	}
	v, err := version(work)
	if err != nil {
		return err
	}
	k := &Kernel{Version: v, Dir: work}
	if err := k.depmod(ctx, tools); err != nil {
		return err
	}
	modules, err := k.prune(rules)
	if err != nil {
		return err
	}
	if err := k.decompress(ctx, tools, modules); err != nil {
		return err
	}
	if err := k.depmod(ctx, tools); err != nil {
		return err
	}
	if err := errors.Join(os.Chmod(work, 0o755), writeSeal(work)); err != nil {
		return err
	}
	if err := os.Rename(work, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

func (k *Kernel) depmod(ctx context.Context, tools *tooltree.Tree) error {
	cmd := tools.Command(ctx, "depmod", "-b", k.Dir, "-m", "/usr/lib/modules", k.Version)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("depmod: %w: %s", err, out)
	}
	return nil
}

// unpack writes the kernel and all modules below dir.
func unpack(t *tar.Reader, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(h.Name, "./")
		switch {
		case h.Typeflag != tar.TypeReg:
			continue
		case strings.HasPrefix(name, "boot/vmlinuz-"):
			name = "vmlinuz"
		case !strings.HasPrefix(name, "usr/lib/modules/"):
			continue
		}
		if err := write(root, name, t); err != nil {
			return err
		}
	}
}

func write(root *os.Root, name string, r io.Reader) error {
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// prune removes the modules that rules do not select and returns the others' paths below ModulesDir.
func (k *Kernel) prune(rules Rules) ([]string, error) {
	index, err := k.Index()
	if err != nil {
		return nil, err
	}
	keep, err := index.Select(rules)
	if err != nil {
		return nil, err
	}
	for p := range index.deps {
		if _, found := slices.BinarySearch(keep, p); !found {
			if err := os.Remove(filepath.Join(k.ModulesDir(), p)); err != nil {
				return nil, err
			}
		}
	}
	return keep, nil
}

// decompress replaces every x.ko.xz by x.ko, a few hundred to a process, and keeps the first where Packed finds it.
func (k *Kernel) decompress(ctx context.Context, tools *tooltree.Tree, modules []string) error {
	var compressed []string
	for _, m := range modules {
		if strings.HasSuffix(m, ".xz") {
			compressed = append(compressed, m)
		}
	}
	for batch := range slices.Chunk(compressed, 300) {
		cmd := tools.Command(ctx, "xz", append([]string{"-d", "-k", "--"}, batch...)...)
		cmd.Dir = k.ModulesDir()
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("xz: %w: %s", err, out)
		}
	}
	if err := os.Mkdir(filepath.Join(k.Dir, "packed"), 0o755); err != nil {
		return err
	}
	for _, m := range compressed {
		if err := os.Rename(filepath.Join(k.ModulesDir(), m), k.Packed(strings.TrimSuffix(m, ".xz"))); err != nil {
			return err
		}
	}
	return nil
}
