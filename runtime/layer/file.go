package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// file writes a regular file through one descriptor that nothing can replace meanwhile.
func (u *unpacker) file(parent int, base, name string, h *tar.Header, content io.Reader) error {
	if err := u.take(h.Size); err != nil {
		return err
	}
	fd, err := create(parent, base)
	if err == unix.EEXIST {
		if err = u.makeRoom(parent, name, base, false); err == nil {
			u.own[name] = true // makeRoom forgets it with a directory of the name
			fd, err = create(parent, base)
		}
	}
	if err != nil {
		return fmt.Errorf("make file: %w", err)
	}
	defer unix.Close(fd)
	if err := u.write(fd, content, h.Size); err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	if !u.o.Unprivileged {
		if err := unix.Fchown(fd, h.Uid, h.Gid); err != nil {
			return fmt.Errorf("set owner: %w", err)
		}
	}
	// Behind the owner, because chown clears the set-uid bits and the file capabilities.
	if err := unix.Fchmod(fd, mode(h)); err != nil {
		return fmt.Errorf("set mode: %w", err)
	}
	err = u.xattrs(h, func(name string, value []byte) error { return unix.Fsetxattr(fd, name, value, 0) })
	if err != nil {
		return err
	}
	// utimensat on /proc/self/fd would follow the magic link; AT_EMPTY_PATH needs Linux 5.8.
	return setTime(fd, "", h.ModTime)
}

func create(parent int, base string) (int, error) {
	return unix.Openat(parent, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
}

// write writes size bytes, in pieces as large as the buffer; it is an error if there are fewer or more.
func (u *unpacker) write(fd int, content io.Reader, size int64) error {
	for n := int64(0); n < size; {
		piece := u.buf[:min(int64(len(u.buf)), size-n)]
		k, err := io.ReadFull(content, piece)
		n += int64(k)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return fmt.Errorf("expected %d bytes, found %d", size, n)
		}
		if err != nil {
			return err
		}
		if err := writeAll(fd, piece); err != nil {
			return err
		}
	}
	switch k, err := content.Read(u.buf[:1]); {
	case k > 0:
		return fmt.Errorf("expected %d bytes, found more", size)
	case err != nil && err != io.EOF:
		return err
	}
	return nil
}

func writeAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		if err != nil && err != unix.EINTR {
			return err
		}
		b = b[max(n, 0):]
	}
	return nil
}

func mode(h *tar.Header) uint32 { return uint32(h.Mode) & 0o7777 }

func setTime(dir int, base string, t time.Time) error {
	ts, err := unix.TimeToTimespec(t)
	if err != nil {
		return fmt.Errorf("set time: %w", err)
	}
	flags := unix.AT_SYMLINK_NOFOLLOW
	if base == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	if err := unix.UtimesNanoAt(dir, base, []unix.Timespec{ts, ts}, flags); err != nil {
		return fmt.Errorf("set time: %w", err)
	}
	return nil
}

// metadata sets owner, mode, attributes and time of what is not a regular file; base "" is the directory parent itself.
func (u *unpacker) metadata(parent int, base, name string, h *tar.Header) error {
	link := h.Typeflag == tar.TypeSymlink
	if !u.o.Unprivileged {
		flags := unix.AT_SYMLINK_NOFOLLOW
		if base == "" {
			flags |= unix.AT_EMPTY_PATH
		}
		if err := unix.Fchownat(parent, base, h.Uid, h.Gid, flags); err != nil {
			return fmt.Errorf("set owner: %w", err)
		}
	}
	// By /proc/self/fd, because neither chmod nor setxattr takes an O_PATH descriptor, and because a link or a device must
	// not be opened for real.
	fd, err := unix.Openat(parent, pathOf(base), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	magic := fmt.Sprintf("/proc/self/fd/%d", fd)
	if !link {
		m := mode(h)
		if u.o.Unprivileged && h.Typeflag == tar.TypeDir {
			m |= 0o700 // or nothing could be put in, and nobody but root could remove it
		}
		if err := unix.Chmod(magic, m); err != nil {
			return fmt.Errorf("set mode: %w", err)
		}
	}
	err = u.xattrs(h, func(name string, value []byte) error {
		if link {
			return unix.Lsetxattr(fmt.Sprintf("/proc/self/fd/%d/%s", parent, base), name, value, 0)
		}
		return unix.Setxattr(magic, name, value, 0)
	})
	if err != nil {
		return err
	}
	if h.Typeflag == tar.TypeDir {
		u.dirs = append(u.dirs, dirTime{name, h.ModTime})
		return nil
	}
	return setTime(parent, base, h.ModTime)
}

func pathOf(base string) string {
	if base == "" {
		return "."
	}
	return base
}

// xattrs passes on the extended attributes of an entry (PAX records SCHILY.xattr.*).
func (u *unpacker) xattrs(h *tar.Header, set func(string, []byte) error) error {
	total := 0
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, "SCHILY.xattr.")
		if !ok || strings.HasPrefix(name, "security.") && name != "security.capability" {
			continue
		}
		if strings.HasPrefix(name, "trusted.") {
			return fmt.Errorf("attribute %s: trusted attributes steer overlayfs and are not an image's to set", clip(name))
		}
		if total += len(name) + len(value); total > maxXattr {
			return fmt.Errorf("%w: more than %d bytes of attributes", ErrLimit, maxXattr)
		}
		// The kernel may find room in the inode, or not.
		if err := u.take(int64(len(name) + len(value))); err != nil {
			return err
		}
		err := set(name, []byte(value))
		if u.o.Unprivileged && (err == unix.EPERM || err == unix.ENOTSUP) {
			continue
		}
		if err != nil {
			return fmt.Errorf("set attribute %s: %w", clip(name), err)
		}
	}
	return nil
}

// open opens a directory below the root as the container would resolve it, without making anything.
func (u *unpacker) open(name string) (int, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV}
	for {
		fd, err := unix.Openat2(u.root, "./"+name, &how)
		if err == unix.EAGAIN || err == unix.EINTR {
			continue
		}
		return fd, err
	}
}

func (u *unpacker) closeParent() {
	if u.pfd >= 0 {
		unix.Close(u.pfd)
	}
	u.pfd, u.parent = -1, ""
}

// openParent opens the directory an entry goes to, and makes it, root's and 0755, where the archive has not named it.
// The descriptor is kept for the next entry.
func (u *unpacker) openParent(name string) (int, error) {
	if name == "" {
		return u.root, nil
	}
	if u.stale {
		u.closeParent()
		u.stale = false
	}
	if u.pfd >= 0 && u.parent == name {
		return u.pfd, nil
	}
	fd, err := u.open(name)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		dir, base := path.Split(name)
		up, uerr := u.openParent(path.Clean("/" + dir)[1:])
		if uerr != nil {
			return -1, uerr
		}
		if err := errors.Join(u.count(1), u.take(block)); err != nil {
			return -1, err
		}
		// A whiteout or a file in the way: a later entry of the same layer wins.
		if err := u.makeRoom(up, name, base, true); err != nil {
			return -1, fmt.Errorf("make directory %s: %w", clip(name), err)
		}
		if err := unix.Mkdirat(up, base, 0o755); err != nil && err != unix.EEXIST {
			return -1, fmt.Errorf("make directory %s: %w", clip(name), err)
		}
		if err := unix.Fchmodat(up, base, 0o755, 0); err != nil {
			return -1, fmt.Errorf("make directory %s: %w", clip(name), err)
		}
		if err := u.remember(name); err != nil {
			return -1, err
		}
		fd, err = u.open(name)
	}
	if err != nil {
		return -1, fmt.Errorf("open directory %s: %w", clip(name), err)
	}
	u.closeParent()
	u.pfd, u.parent = fd, name
	return fd, nil
}

// finishDirs sets the times of directories, the last word of the archive on each.
func (u *unpacker) finishDirs() error {
	for _, d := range u.dirs {
		if d.name == "" {
			if err := setTime(u.root, ".", d.modTime); err != nil {
				return err
			}
			continue
		}
		dir, base := path.Split(d.name)
		fd, err := u.open(path.Clean("/" + dir)[1:])
		if err != nil {
			return fmt.Errorf("set time of %s: %w", clip(d.name), err)
		}
		err = setTime(fd, base, d.modTime)
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("%s: %w", clip(d.name), err)
		}
	}
	return nil
}
