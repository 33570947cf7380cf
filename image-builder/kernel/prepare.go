// Package kernel turns Debian's kernel package into what an image wants: the kernel itself, and its modules pruned,
// uncompressed and indexed.
//
// Modules are stored plain: compressed ones would ruin deltas between releases (the payload compresses instead).
// Their signatures stay. xz and depmod run from the tools tree. It also answers in which order /init must load modules.
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

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/tooltree"
)

// Kernel is a prepared kernel in a directory.
type Kernel struct {
	Version string // as uname -r: 6.12.117+deb13-amd64
	Dir     string // holds Image() and usr/lib/modules/<version>/
}

// Image returns the path of the kernel's own file, a bzImage on amd64.
func (k *Kernel) Image() string { return filepath.Join(k.Dir, "vmlinuz") }

// ModulesDir returns the directory of the modules and their indices.
func (k *Kernel) ModulesDir() string { return filepath.Join(k.Dir, "usr/lib/modules", k.Version) }

// Index reads what depmod wrote.
func (k *Kernel) Index() (*Index, error) {
	return ReadIndex(func(name string) (io.ReadCloser, error) { return os.Open(filepath.Join(k.ModulesDir(), name)) })
}

// Prepare unpacks a kernel package's data, without the modules below the paths of drop (relative to
// usr/lib/modules/<version>/), into cacheDir, once for each combination of package, drop and tools. A drop path that
// matches nothing is an error: it would silently mean nothing after a kernel update.
func Prepare(ctx context.Context, tools *tooltree.Tree, pkg digest.SHA256, open func() (io.ReadCloser, error), drop []string, cacheDir string) (*Kernel, error) {
	key := digest.Of([]byte("kernel 1\n" + pkg.String() + "\n" + strings.Join(drop, "\n")))
	dir := filepath.Join(cacheDir, "kernel", key.String())
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		if err := prepare(ctx, tools, open, drop, dir); err != nil {
			return nil, fmt.Errorf("prepare kernel: %w", err)
		}
	}
	v, err := version(dir)
	if err != nil {
		return nil, fmt.Errorf("prepare kernel: %w", err)
	}
	return &Kernel{Version: v, Dir: dir}, nil
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
func prepare(ctx context.Context, tools *tooltree.Tree, open func() (io.ReadCloser, error), drop []string, dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), ".work-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	r, err := open()
	if err != nil {
		return err
	}
	defer r.Close()
	modules, err := unpack(tar.NewReader(r), drop, work)
	if err != nil {
		return err
	}
	if err := decompress(ctx, tools, work, modules); err != nil {
		return err
	}
	v, err := version(work)
	if err != nil {
		return err
	}
	depmod := tools.Command(ctx, "depmod", "-b", work, "-m", "/usr/lib/modules", v)
	if out, err := depmod.CombinedOutput(); err != nil {
		return fmt.Errorf("depmod: %w: %s", err, out)
	}
	if err := os.Chmod(work, 0o755); err != nil {
		return err
	}
	if err := os.Rename(work, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// unpack writes the kernel and the wanted modules below dir and returns the modules' paths there.
func unpack(t *tar.Reader, drop []string, dir string) ([]string, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	var modules []string
	dropped := map[string]bool{}
	for {
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		name := strings.TrimPrefix(h.Name, "./")
		if h.Typeflag != tar.TypeReg {
			continue
		}
		switch {
		case strings.HasPrefix(name, "boot/vmlinuz-"):
			name = "vmlinuz"
		case strings.HasPrefix(name, "usr/lib/modules/"):
			if d := matches(drop, name); d != "" {
				dropped[d] = true
				continue
			}
			if strings.HasSuffix(name, ".ko.xz") {
				modules = append(modules, name)
			}
		default:
			continue
		}
		if err := write(root, name, t); err != nil {
			return nil, err
		}
	}
	if dead := slices.DeleteFunc(slices.Clone(drop), func(d string) bool { return dropped[d] }); len(dead) > 0 {
		return nil, fmt.Errorf("kernel.drop: %q are not in this kernel package: remove them from the manifest", dead)
	}
	return modules, nil
}

// matches returns the entry of drop that covers name, or nothing.
func matches(drop []string, name string) string {
	_, rel, _ := strings.Cut(strings.TrimPrefix(name, "usr/lib/modules/"), "/")
	for _, d := range drop {
		if rel == d || strings.HasPrefix(rel, d+"/") {
			return d
		}
	}
	return ""
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

// decompress replaces every x.ko.xz by x.ko, a few hundred to a process.
func decompress(ctx context.Context, tools *tooltree.Tree, dir string, modules []string) error {
	for batch := range slices.Chunk(modules, 300) {
		cmd := tools.Command(ctx, "xz", append([]string{"-d", "--"}, batch...)...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("xz: %w: %s", err, out)
		}
	}
	return nil
}
