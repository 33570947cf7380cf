package tools

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/proa-os/proa/image-builder/lock"
)

// unneeded lists what no program reads.
var unneeded = []string{"usr/share/doc/", "usr/share/man/", "usr/share/info/", "usr/share/locale/", "usr/share/lintian/", "usr/share/bug/"}

// unpack writes the files of a package below root, which no name in the package can leave.
func unpack(root *os.Root, file string, p lock.Package) error {
	return lock.Unpack(file, p, func(h *tar.Header, content io.Reader) error { return unpackEntry(root, h, content) })
}

func unpackEntry(root *os.Root, h *tar.Header, content io.Reader) error {
	name, err := localName(h.Name)
	if err != nil {
		return err
	}
	for _, prefix := range unneeded {
		if strings.HasPrefix(name+"/", prefix) {
			return nil
		}
	}
	if h.Typeflag == tar.TypeDir {
		return makeDir(root, name, h.FileInfo().Mode())
	}
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeReg:
		return writeFile(root, name, h.FileInfo().Mode(), content)
	case tar.TypeSymlink:
		return root.Symlink(h.Linkname, name)
	case tar.TypeLink:
		target, err := localName(h.Linkname)
		if err != nil {
			return err
		}
		return root.Link(target, name)
	default:
		return fmt.Errorf("an entry of type %q has no place in the tools tree", h.Typeflag)
	}
}

// localName turns "./usr/bin/x" into "usr/bin/x"; "." is the root itself.
func localName(s string) (string, error) {
	name := path.Clean(s)
	if !filepath.IsLocal(name) {
		return "", fmt.Errorf("path %q leads out of the tree", s)
	}
	return name, nil
}

// makeDir accepts a directory, or a link to one, that another package has made.
func makeDir(root *os.Root, name string, mode fs.FileMode) error {
	if fi, err := root.Stat(name); err == nil && fi.IsDir() {
		return nil
	}
	if err := root.MkdirAll(name, 0o755); err != nil {
		return err
	}
	return root.Chmod(name, mode.Perm()|0o700)
}

// writeFile fails if the file is there: two packages of one lock do not share files.
func writeFile(root *os.Root, name string, mode fs.FileMode, content io.Reader) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	if err == nil {
		err = f.Chmod(mode.Perm() | 0o600)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
