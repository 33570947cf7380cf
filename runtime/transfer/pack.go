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

// Pack writes the file or directory at name as a tar archive in which it is called as. With follow a link at its end is followed.
func (t *Tree) Pack(w io.Writer, name, as string, follow bool) error {
	dir, base := path.Split(path.Join("/", name))
	if follow || base == "" {
		f, err := t.at(name, unix.O_PATH)
		if err != nil {
			return err
		}
		defer f.Close()
		p := &packer{t: t, w: tar.NewWriter(w), seen: map[[2]uint64]string{}}
		return errors.Join(p.opened(f, as), p.w.Close())
	}
	parent, err := t.at(dir, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer parent.Close()
	p := &packer{t: t, w: tar.NewWriter(w), seen: map[[2]uint64]string{}}
	if err := p.add(parent, base, as); err != nil {
		return err
	}
	return p.w.Close()
}

type packer struct {
	t    *Tree
	w    *tar.Writer
	seen map[[2]uint64]string // files with several names, by device and inode
}

func (p *packer) add(dir *os.File, base, as string) error {
	f, err := below(dir, base, unix.O_PATH)
	if err != nil {
		return err
	}
	defer f.Close()
	return p.opened(f, as)
}

// opened packs what an O_PATH descriptor stands for. From here on no name is looked up twice.
func (p *packer) opened(f *os.File, as string) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	h := &tar.Header{Name: as, Mode: int64(st.Mode & 0o7777), Uid: p.t.inside(st.Uid), Gid: p.t.inside(st.Gid), ModTime: time.Unix(st.Mtim.Unix()), Format: tar.FormatPAX}
	inode := [2]uint64{st.Dev, st.Ino}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return p.directory(f, h)
	case unix.S_IFLNK:
		b := make([]byte, 4096)
		n, err := unix.Readlinkat(int(f.Fd()), "", b)
		if err != nil {
			return err
		}
		h.Typeflag, h.Linkname = tar.TypeSymlink, string(b[:n])
		return p.w.WriteHeader(h)
	case unix.S_IFREG:
		if first, ok := p.seen[inode]; ok && st.Nlink > 1 {
			h.Typeflag, h.Linkname = tar.TypeLink, first
			return p.w.WriteHeader(h)
		}
		p.seen[inode] = as
		h.Typeflag, h.Size = tar.TypeReg, st.Size
		return p.regular(f, h)
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
		return p.w.WriteHeader(h)
	case unix.S_IFCHR, unix.S_IFBLK:
		return fmt.Errorf("%s is a device: devices are not copied", as)
	}
	return nil // a socket
}

// reopen makes a readable descriptor of an O_PATH one.
func reopen(f *os.File, flags int) (*os.File, error) {
	return os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), flags|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
}

func (p *packer) regular(path *os.File, h *tar.Header) error {
	f, err := reopen(path, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := p.w.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.CopyN(p.w, f, h.Size)
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%s has become shorter: %d of %d bytes", h.Name, n, h.Size)
	}
	return err
}

func (p *packer) directory(path *os.File, h *tar.Header) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(path.Fd()), &fs); err != nil {
		return err
	}
	if slices.Contains([]int64{unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP2_SUPER_MAGIC}, fs.Type) {
		return nil
	}
	h.Typeflag, h.Name = tar.TypeDir, strings.TrimSuffix(h.Name, "/")+"/"
	if err := p.w.WriteHeader(h); err != nil {
		return err
	}
	f, err := reopen(path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, n := range names {
		err := p.add(f, n, h.Name+n)
		if errors.Is(err, unix.ENOENT) {
			continue // removed meanwhile
		}
		if err != nil {
			return err
		}
	}
	return nil
}
