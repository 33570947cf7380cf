package volume

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

func now() time.Time { return time.Now().UTC().Truncate(time.Second) }

// maxDepth bounds how deep directories may lie: each is a descriptor and a frame.
const maxDepth = 256

// copyTree copies what is in directory from to the empty directory to, with owners, modes, times and extended attributes, and makes to
// itself look like from. Nothing is followed; devices, sockets and pipes are nobody's data and stay out.
func copyTree(from, to *os.File) error { return copyDir(from, to, 0) }

func copyDir(from, to *os.File, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("more than %d directories deep", maxDepth)
	}
	entries, err := from.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range entries {
		if err := copyEntry(from, to, name, depth); err != nil {
			return fmt.Errorf("%.200q: %w", name, err)
		}
	}
	return dress(from, to)
}

func copyEntry(from, to *os.File, name string, depth int) error {
	var st unix.Stat_t
	src, dst := int(from.Fd()), int(to.Fd())
	if err := unix.Fstatat(src, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(src, name, buf)
		if err != nil {
			return err
		}
		if err := unix.Symlinkat(string(buf[:n]), dst, name); err != nil {
			return err
		}
		return unix.Fchownat(dst, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW)
	case unix.S_IFDIR:
		if err := unix.Mkdirat(dst, name, 0o700); err != nil {
			return err
		}
	case unix.S_IFREG:
	default:
		return nil
	}
	in, err := openAt(src, name, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer in.Close()
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		out, err := openAt(dst, name, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		defer out.Close()
		return copyDir(in, out, depth+1)
	}
	out, err := openAt(dst, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return err
	}
	defer out.Close()
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return dress(in, out)
}

func openAt(dir int, name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(dir, name, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// dress gives a copy the owner, mode, attributes and times of the original, in this order: a change of owner takes setuid bits and
// capabilities away.
func dress(from, to *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(from.Fd()), &st); err != nil {
		return err
	}
	if err := to.Chown(int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(int(to.Fd()), st.Mode&0o7777); err != nil {
		return err
	}
	list := make([]byte, 64<<10)
	n, err := unix.Flistxattr(int(from.Fd()), list)
	if err != nil && err != unix.ENOTSUP {
		return err
	}
	for n > 0 {
		end := 0
		for list[end] != 0 {
			end++
		}
		name := string(list[:end])
		n -= end + 1
		list = list[end+1:]
		value := make([]byte, 64<<10)
		size, err := unix.Fgetxattr(int(from.Fd()), name, value)
		if err == nil {
			err = unix.Fsetxattr(int(to.Fd()), name, value[:size], 0)
		}
		if err != nil && err != unix.ENOTSUP && err != unix.ENODATA && err != unix.EPERM {
			return fmt.Errorf("attribute %s: %w", name, err)
		}
	}
	return os.Chtimes(fmt.Sprintf("/proc/self/fd/%d", to.Fd()), time.Unix(st.Atim.Unix()), time.Unix(st.Mtim.Unix()))
}

// Chown gives all that is in a directory, and the directory, to an owner: the option U of a mount. No link is followed.
func Chown(dir string, uid, gid int) error {
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("change owner of %s: %w", dir, err)
	}
	defer f.Close()
	if err := chown(f, uid, gid, 0); err != nil {
		return fmt.Errorf("change owner of %s: %w", dir, err)
	}
	return nil
}

func chown(f *os.File, uid, gid, depth int) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	if depth > maxDepth {
		return fmt.Errorf("more than %d directories deep", maxDepth)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		entries, err := f.ReadDir(-1)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if e.Type()&fs.ModeType != fs.ModeDir {
				if err := unix.Fchownat(int(f.Fd()), e.Name(), uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil && err != unix.ENOENT {
					return fmt.Errorf("%.200q: %w", e.Name(), err)
				}
				continue
			}
			sub, err := openAt(int(f.Fd()), e.Name(), unix.O_RDONLY|unix.O_DIRECTORY)
			if err != nil {
				return fmt.Errorf("%.200q: %w", e.Name(), err)
			}
			err = chown(sub, uid, gid, depth+1)
			sub.Close()
			if err != nil {
				return fmt.Errorf("%.200q: %w", e.Name(), err)
			}
		}
	}
	if int(st.Uid) == uid && int(st.Gid) == gid {
		return nil
	}
	return f.Chown(uid, gid)
}
