package transfer

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Unpack puts the files of a tar archive below the directory dir, which must exist. With owners they keep theirs and all bits of their
// modes; otherwise they are root's.
func (t *Tree) Unpack(r io.Reader, dir string, owners bool) error {
	top, err := t.at(dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer top.Close()
	u := &unpacker{t: t, top: top, owners: owners}
	defer u.leave()
	for in := tar.NewReader(r); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read archive: %w", err)
		}
		if err := u.put(h, in); err != nil {
			return fmt.Errorf("write %q: %w", h.Name, err)
		}
	}
	return u.finish()
}

type unpacker struct {
	t      *Tree
	top    *os.File
	owners bool
	name   string   // of the directory that is open
	dir    *os.File // nil for none
	times  []dirTime
}

// dirTime is set last: every file put into a directory changes it.
type dirTime struct {
	name string
	mod  time.Time
}

func (u *unpacker) leave() {
	if u.dir != nil {
		u.dir.Close()
		u.dir = nil
	}
}

// enter opens the directory of a name, and makes those that are missing.
func (u *unpacker) enter(name string) (*os.File, error) {
	if u.dir != nil && u.name == name {
		return u.dir, nil
	}
	u.leave()
	f, err := below(u.top, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOENT) {
		parent, perr := u.enter(path.Dir(name))
		if perr != nil {
			return nil, perr
		}
		if merr := unix.Mkdirat(int(parent.Fd()), path.Base(name), 0o755); merr != nil {
			return nil, merr
		}
		if f, err = below(u.top, name, unix.O_RDONLY|unix.O_DIRECTORY); err == nil {
			err = u.own(f, &tar.Header{Mode: 0o755})
		}
		u.leave()
	}
	if err != nil {
		return nil, err
	}
	u.name, u.dir = name, f
	return f, nil
}

// clean refuses names that lead out.
func clean(name string) (string, error) {
	if slices.Contains(strings.Split(name, "/"), "..") || strings.ContainsRune(name, 0) {
		return "", errors.New("the name leads out")
	}
	return path.Clean(strings.TrimLeft(name, "/") + "/."), nil
}

func (u *unpacker) put(h *tar.Header, body io.Reader) error {
	name, err := clean(h.Name)
	if err != nil {
		return err
	}
	if name == "." {
		if h.Typeflag != tar.TypeDir {
			return errors.New("the name is empty")
		}
		return nil // it is there
	}
	dir, err := u.enter(path.Dir(name))
	if err != nil {
		return err
	}
	fd, base := int(dir.Fd()), path.Base(name)
	switch h.Typeflag {
	case tar.TypeDir:
		return u.directory(dir, base, name, h)
	case tar.TypeReg:
		return u.regular(dir, base, h, body)
	case tar.TypeSymlink:
		return errors.Join(replace(fd, base, func() error { return unix.Symlinkat(h.Linkname, fd, base) }), u.ownLink(fd, base, h))
	case tar.TypeLink:
		return u.link(fd, base, h)
	case tar.TypeFifo:
		return errors.Join(replace(fd, base, func() error { return unix.Mknodat(fd, base, unix.S_IFIFO|uint32(h.Mode&0o777), 0) }), u.ownLink(fd, base, h))
	case tar.TypeChar, tar.TypeBlock:
		return errors.New("it is a device: devices are not copied")
	}
	return nil // global headers and the like
}

// replace makes something in the place of what is there, unless that is a directory.
func replace(dir int, base string, make func() error) error {
	err := make()
	if err == unix.EEXIST {
		if isMount(dir, base) {
			return unix.EBUSY
		}
		if err := unix.Unlinkat(dir, base, 0); err != nil && err != unix.ENOENT {
			return err
		}
		err = make()
	}
	return err
}

// isMount reports whether a name is a mount of its own. unlink refuses only those of the caller's mount namespace, and detaches others.
func isMount(dir int, base string) bool {
	f, err := openat2(dir, base, unix.O_PATH|unix.O_NOFOLLOW, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_XDEV)
	if err == nil {
		f.Close()
	}
	return errors.Is(err, unix.EXDEV)
}

func (u *unpacker) directory(dir *os.File, base, name string, h *tar.Header) error {
	err := unix.Mkdirat(int(dir.Fd()), base, 0o700)
	there := err == unix.EEXIST
	if err != nil && !there {
		return err
	}
	f, err := below(dir, base, unix.O_RDONLY|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return errors.New("what is there is no directory")
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if there && !u.owners {
		return nil
	}
	u.times = append(u.times, dirTime{name, h.ModTime})
	return u.own(f, h)
}

func (u *unpacker) regular(dir *os.File, base string, h *tar.Header, body io.Reader) error {
	fd, f := int(dir.Fd()), (*os.File)(nil)
	open := func(flags uint64) (err error) {
		n, err := unix.Openat(fd, base, int(flags)|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o600)
		if err == nil {
			f = os.NewFile(uintptr(n), base)
		}
		return err
	}
	err := replace(fd, base, func() error { return open(unix.O_CREAT | unix.O_EXCL) })
	if err == unix.EBUSY { // a mount of its own
		err = open(unix.O_TRUNC)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return errors.Join(errors.New("what is there is no regular file"), err)
	}
	if _, err := io.Copy(f, body); err != nil {
		return err
	}
	if err := u.own(f, h); err != nil {
		return err
	}
	return setTime(f, h.ModTime)
}

func (u *unpacker) link(fd int, base string, h *tar.Header) error {
	from, err := clean(h.Linkname)
	if err != nil {
		return err
	}
	source, err := below(u.top, path.Dir(from), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer source.Close()
	return replace(fd, base, func() error { return unix.Linkat(int(source.Fd()), path.Base(from), fd, base, 0) })
}

// own gives a file its owner and then its mode, which a change of owner would clear.
func (u *unpacker) own(f *os.File, h *tar.Header) error {
	uid, gid, mode, err := u.owner(h)
	if err != nil {
		return err
	}
	if err := f.Chown(uid, gid); err != nil {
		return err
	}
	return unix.Fchmod(int(f.Fd()), mode)
}

func (u *unpacker) ownLink(dir int, base string, h *tar.Header) error {
	uid, gid, _, err := u.owner(h)
	if err != nil {
		return err
	}
	return unix.Fchownat(dir, base, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
}

func (u *unpacker) owner(h *tar.Header) (uid, gid int, mode uint32, err error) {
	mode = uint32(h.Mode) & 0o7777
	inUID, inGID := h.Uid, h.Gid
	if !u.owners {
		inUID, inGID, mode = 0, 0, mode&^0o6000
	}
	if uid, err = u.t.outside(inUID); err == nil {
		gid, err = u.t.outside(inGID)
	}
	return uid, gid, mode, err
}

func setTime(f *os.File, t time.Time) error {
	ts := unix.NsecToTimespec(t.UnixNano())
	return unix.UtimesNanoAt(int(f.Fd()), "", []unix.Timespec{ts, ts}, unix.AT_EMPTY_PATH)
}

func (u *unpacker) finish() error {
	for _, d := range slices.Backward(u.times) {
		f, err := below(u.top, d.name, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		err = setTime(f, d.mod)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}
