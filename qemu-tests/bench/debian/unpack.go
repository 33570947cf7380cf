package debian

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/proa-os/proa/image-builder/lock"
)

// unpack fills the tree for the first boot: every package's files, so that dpkg can run and preinst scripts find what they call, and
// every package file, which dpkg then installs in order. The kernel's modules wait for dpkg: nobody needs them before.
func (m *maker) unpack(ctx context.Context) error {
	dir := filepath.Join(m.work, "root")
	archives := filepath.Join(dir, "var/cache/apt/archives")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	write := func(h *tar.Header, content io.Reader) error { return unpackEntry(root, h, content) }
	for _, p := range m.order() {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !strings.HasPrefix(p.Name, "linux-image-") {
			if err := lock.Unpack(lock.Path(m.cache, p), p, write); err != nil {
				return fmt.Errorf("unpack %s: %w", p, err)
			}
		}
	}
	if err := os.MkdirAll(archives, 0o755); err != nil {
		return err
	}
	for _, p := range m.lock.Packages {
		if err := copyPackage(filepath.Join(archives, path.Base(p.Filename)), lock.Path(m.cache, p)); err != nil {
			return err
		}
	}
	for _, d := range []string{"proc", "sys", "dev", "run", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(filepath.Join(dir, "tmp"), 0o777|fs.ModeSticky); err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "configure.sh"), []byte(configureScript), 0o755),
		os.WriteFile(filepath.Join(dir, "authorized_key"), []byte(m.key.AuthorizedKey()+"\n"), 0o644),
	)
}

// order is base-files first: it has the links /bin, /lib and /sbin that others' files go through.
func (m *maker) order() []lock.Package {
	var first, rest []lock.Package
	for _, p := range m.lock.Packages {
		if p.Name == "base-files" {
			first = append(first, p)
		} else {
			rest = append(rest, p)
		}
	}
	return append(first, rest...)
}

// copyPackage links or copies a package file out of the cache.
func copyPackage(to, from string) error {
	if os.Link(from, to) == nil {
		return nil
	}
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o644)
}

// unpackEntry writes a file of a package below root, which no name can leave. Owners are left to the machine.
func unpackEntry(root *os.Root, h *tar.Header, content io.Reader) error {
	name := path.Clean(h.Name)
	if !filepath.IsLocal(name) {
		return fmt.Errorf("path leads out of the tree")
	}
	mode := h.FileInfo().Mode()
	if h.Typeflag == tar.TypeDir {
		if err := root.MkdirAll(name, 0o755); err != nil {
			if fi, serr := root.Stat(name); serr != nil || !fi.IsDir() {
				return err
			}
		}
		return root.Chmod(name, mode&(fs.ModePerm|fs.ModeSticky)|0o700)
	}
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeReg:
		f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, content)
		return errors.Join(err, f.Chmod(mode.Perm()|0o600), f.Close())
	case tar.TypeSymlink:
		return root.Symlink(h.Linkname, name)
	case tar.TypeLink:
		return root.Link(path.Clean(h.Linkname), name)
	}
	return fmt.Errorf("an entry of type %q is not expected in a package", h.Typeflag)
}
