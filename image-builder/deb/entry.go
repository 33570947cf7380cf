package deb

import (
	"archive/tar"
	"fmt"
	"path"
	"path/filepath"
	"strings"
)

// maxFiles caps the uncompressed files of a package in bytes. The largest of Debian 13's have about 3 GB; an image's have 0.2.
const maxFiles = 8 << 30

// CheckEntry says whether an entry of data.tar is one that a package may have. It refuses names and links that are absolute or lead
// out of the tree, control characters, devices and FIFOs, sparse files, extended attributes (dpkg ignores them, so nobody would miss
// or review them), and owners that Debian has not fixed for all machines (Debian Policy 9.2.2), such as those of the user who built
// it. Where symbolic links lead is for whoever follows them to check.
func CheckEntry(h *tar.Header) error {
	if err := checkPath(h.Name); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeDir:
	case tar.TypeLink:
		if err := checkPath(h.Linkname); err != nil {
			return fmt.Errorf("hard link: %w", err)
		}
	case tar.TypeSymlink:
		if h.Linkname == "" || strings.ContainsFunc(h.Linkname, isControl) {
			return fmt.Errorf("symbolic link to %q", h.Linkname)
		}
	default:
		return fmt.Errorf("an entry of type %q has no place in a package", h.Typeflag)
	}
	if h.Mode&^0o7777 != 0 {
		return fmt.Errorf("mode %#o has more than permission bits", h.Mode)
	}
	if !fixedID(h.Uid) || !fixedID(h.Gid) {
		return fmt.Errorf("owner %d:%d is not one that every Debian has", h.Uid, h.Gid)
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return fmt.Errorf("a sparse file has no place in a package")
		}
		if strings.HasPrefix(key, "SCHILY.xattr.") || strings.HasPrefix(key, "LIBARCHIVE.xattr.") {
			return fmt.Errorf("extended attribute %s has no place in a package", key[strings.Index(key, "xattr.")+len("xattr."):])
		}
	}
	return nil
}

func checkPath(s string) error {
	if s == "" || path.IsAbs(s) || !filepath.IsLocal(path.Clean(s)) {
		return fmt.Errorf("path %q leads out of the tree", s)
	}
	if strings.ContainsFunc(s, isControl) {
		return fmt.Errorf("path %q has control characters", s)
	}
	return nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// fixedID reports whether a user or group id is allocated for all Debian machines.
func fixedID(id int) bool { return 0 <= id && id <= 99 || 60000 <= id && id <= 64999 || id == 65534 }
