package layer

import (
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// whiteout carries out ".wh."+rest in a directory. It concerns the layers below: what this layer itself holds stays,
// whichever comes first in the archive.
func (u *unpacker) whiteout(dir, rest string) error {
	if rest == ".wh..opq" {
		if _, err := u.openParent(dir); err != nil {
			return err
		}
		return u.opaque(dir)
	}
	if strings.HasPrefix(rest, ".wh.") {
		return nil // bookkeeping of aufs, which old engines left in images
	}
	if rest == "" || rest == "." || rest == ".." {
		return fmt.Errorf("a whiteout of %q", rest)
	}
	parent, err := u.openParent(dir)
	if err != nil {
		return err
	}
	name := path.Join(dir, rest)
	if u.own[name] {
		var st unix.Stat_t
		if err := unix.Fstatat(parent, rest, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			return u.opaque(name)
		}
		return nil // a file hides what is below it anyway
	}
	if u.o.Unprivileged {
		err = unix.Mknodat(parent, ".wh."+rest, unix.S_IFREG|0o600, 0)
	} else {
		err = unix.Mknodat(parent, rest, unix.S_IFCHR|0o600, 0)
	}
	if err != nil && err != unix.EEXIST { // named twice
		return fmt.Errorf("make whiteout: %w", err)
	}
	return nil
}

// opaque hides the content of a directory in the layers below.
func (u *unpacker) opaque(dir string) error {
	if u.o.Unprivileged {
		return nil
	}
	fd, err := u.open(dir)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Setxattr(fmt.Sprintf("/proc/self/fd/%d", fd), "trusted.overlay.opaque", []byte("y"), 0); err != nil {
		return fmt.Errorf("make directory opaque: %w", err)
	}
	return nil
}

// removeTree removes a directory below parent; links in it are not followed.
func removeTree(parent int, base string) error {
	root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", parent))
	if err != nil {
		return err
	}
	defer root.Close()
	return root.RemoveAll(base)
}
