// Package layer unpacks one image layer, a tar archive, into a directory that overlayfs can use as a lower directory.
//
// It stands between the store, which hands it the verified blob, and the store's tree of layers. The bytes come from
// strangers: Apply assumes the worst archive.
//
//   - No entry leads out of the directory. Parents are opened with openat2(RESOLVE_IN_ROOT), which resolves "..", absolute
//     and malicious symbolic links inside the directory, as a container would see them; the last component is never
//     followed. A name with a ".." element is refused.
//   - An archive that would fill the disk or the memory is refused at Limits: bytes written (holes of sparse files count), entries,
//     and the length of paths, one and all together, and of one entry's attributes.
//   - Whiteouts become overlayfs's: ".wh.name" a character device 0:0 and ".wh..wh..opq" the attribute
//     trusted.overlay.opaque. The archive itself may not hold such a device nor any trusted attribute, with which it could
//     reach into the layers below it.
//   - Owner, mode with set-uid bits, extended attributes and modification time are exact, of directories too.
//
// Subset: regular files, directories, symbolic and hard links, devices, fifos, as GNU, PAX and ustar archives hold them
// (archive/tar). Refused: other kinds, hard links to what is not in the same layer. Left out: security.* but for file
// capabilities: labels and signatures of the machine that built the image. Without root owners, devices and whiteouts cannot be
// made: Options.Unprivileged
// then leaves out owners and devices, keeps directories open to their owner and writes whiteouts as empty files, for tests
// and for looking into an image.
//
// Format: opencontainers/image-spec layer.md; Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories".
package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Limits bound what layers may take.
type Limits struct {
	Bytes   int64  // content of files, attributes, each rounded up to blocks, and directories
	Entries int64  // archive entries and implied directories
	Taken   *Taken // the limits are for all layers that share this; nil: for one
}

// Taken is how much layers that are unpacked at the same time have taken so far.
type Taken struct{ bytes, entries atomic.Int64 }

// Options for Apply.
type Options struct {
	Limits       Limits
	Unprivileged bool
}

const (
	maxName    = 4096      // PATH_MAX
	maxXattr   = 128 << 10 // all of one entry
	maxPadding = 16 << 20  // behind the archive; tar pads to 10 KiB
	meanName   = 128       // bytes: all names together may have as many for each entry of Limits
	maxSwapped = 1000      // each costs a look at all names
	block      = 4096      // what the smallest file takes
	fastLink   = 60        // shorter targets lie in ext4's inode
)

// ErrLimit says that a layer is larger than allowed.
var ErrLimit = errors.New("the layer is too large")

type unpacker struct {
	root    int
	o       Options
	taken   *Taken
	names   int64           // bytes kept in own
	swapped int             // directories removed for something else of their name
	own     map[string]bool // what this layer made; whiteouts concern only the layers below
	dirs    []dirTime       // set at the end, because making entries changes them
	parent  string          // of pfd: the last parent directory stays open
	pfd     int
	stale   bool // something was replaced, perhaps a part of parent
	buf     []byte
}

type dirTime struct {
	name    string
	modTime time.Time
}

// Apply unpacks the archive r into dir, an open directory that should be empty. On error the directory holds a part of
// the layer and is to be thrown away. The caller compares the diffID: tar has no checksum of content, and an archive that
// is cut between two entries is a shorter archive.
func Apply(dir int, r io.Reader, o Options) error {
	u := &unpacker{root: dir, o: o, own: make(map[string]bool), pfd: -1, taken: o.Limits.Taken, buf: make([]byte, 256<<10)}
	if u.taken == nil {
		u.taken = new(Taken)
	}
	defer u.closeParent()
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("read layer: %w", err)
		}
		if err := u.entry(h, tr); err != nil {
			return fmt.Errorf("unpack %q: %w", clip(h.Name), err)
		}
	}
	// The padding behind the archive belongs to the diffID.
	n, err := io.Copy(io.Discard, io.LimitReader(r, maxPadding+1))
	if err != nil {
		return fmt.Errorf("read layer: %w", err)
	}
	if n > maxPadding {
		return fmt.Errorf("%w: more than %d bytes behind the archive", ErrLimit, maxPadding)
	}
	return u.finishDirs()
}

func clip(s string) string {
	if len(s) > 200 {
		return s[:200] + "..."
	}
	return s
}

// cleanName turns a name of the archive into a relative one, "" for the top directory.
func cleanName(name string) (string, error) {
	if len(name) > maxName {
		return "", fmt.Errorf("name of %d bytes, at most %d", len(name), maxName)
	}
	for e := range strings.SplitSeq(name, "/") {
		if e == ".." {
			return "", errors.New("a name with .. in it")
		}
		if len(e) > unix.NAME_MAX {
			return "", fmt.Errorf("an element of %d bytes, at most %d", len(e), unix.NAME_MAX)
		}
	}
	if strings.ContainsRune(name, 0) {
		return "", errors.New("a NUL byte in the name")
	}
	return strings.TrimPrefix(path.Clean("/"+name), "/"), nil
}

// validID leaves out -1, which chown takes for "as it is".
func validID(id int) bool { return id >= 0 && id < 1<<32-1 }

func (u *unpacker) count(n int64) error {
	if u.taken.entries.Add(n) > u.o.Limits.Entries {
		return fmt.Errorf("%w: more than %d entries", ErrLimit, u.o.Limits.Entries)
	}
	return nil
}

// take counts bytes of the disk before they are written.
func (u *unpacker) take(size int64) error {
	if size < 0 || size > u.o.Limits.Bytes || u.taken.bytes.Add((size+block-1)/block*block) > u.o.Limits.Bytes {
		return fmt.Errorf("%w: more than %d bytes", ErrLimit, u.o.Limits.Bytes)
	}
	return nil
}

func (u *unpacker) entry(h *tar.Header, content io.Reader) error {
	if err := u.count(1); err != nil {
		return err
	}
	name, err := cleanName(h.Name)
	if err != nil {
		return err
	}
	if !validID(h.Uid) || !validID(h.Gid) {
		return fmt.Errorf("owner %d:%d", h.Uid, h.Gid)
	}
	switch h.Typeflag {
	case tar.TypeXGlobalHeader:
		return nil
	case tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeLink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo, tar.TypeGNUSparse:
	default:
		return fmt.Errorf("kind %q of entry is not supported", h.Typeflag)
	}
	if name == "" {
		if h.Typeflag != tar.TypeDir {
			return errors.New("the top directory is something else")
		}
		return u.metadata(u.root, "", name, h)
	}
	dir, base := path.Split(name)
	if rest, ok := strings.CutPrefix(base, ".wh."); ok {
		return u.whiteout(path.Clean("/" + dir)[1:], rest)
	}
	parent, err := u.openParent(path.Clean("/" + dir)[1:])
	if err != nil {
		return err
	}
	if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeGNUSparse { // a file finds out by itself: nearly always there is nothing
		if err := u.makeRoom(parent, name, base, h.Typeflag == tar.TypeDir); err != nil {
			return err
		}
	}
	if err := u.remember(name); err != nil {
		return err
	}
	return u.make(parent, base, name, h, content)
}

// makeRoom removes what an earlier entry left at the name, but keeps a directory for a directory. A directory in place of
// a whiteout hides what is below it.
func (u *unpacker) makeRoom(parent int, name, base string, dir bool) error {
	var st unix.Stat_t
	err := unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if isDir && dir {
		return nil
	}
	u.stale = true
	wasWhiteout := !u.own[name]
	if !isDir {
		if err := unix.Unlinkat(parent, base, 0); err != nil {
			return err
		}
	} else {
		if err := removeTree(parent, base); err != nil {
			return err
		}
		if u.swapped++; u.swapped > maxSwapped {
			return fmt.Errorf("%w: more than %d directories replaced by files", ErrLimit, maxSwapped)
		}
		u.forget(name)
	}
	if dir && wasWhiteout {
		if err := unix.Mkdirat(parent, base, 0o700); err != nil {
			return err
		}
		return u.opaque(name)
	}
	return nil
}

// remember keeps the name of what this layer has made.
func (u *unpacker) remember(name string) error {
	if u.names += int64(len(name)); u.names > u.o.Limits.Entries*meanName {
		return fmt.Errorf("%w: more than %d bytes of names", ErrLimit, u.o.Limits.Entries*meanName)
	}
	u.own[name] = true
	return nil
}

// forget drops the records of a removed directory.
func (u *unpacker) forget(name string) {
	kept := u.dirs[:0]
	for _, d := range u.dirs {
		if d.name != name && !strings.HasPrefix(d.name, name+"/") {
			kept = append(kept, d)
		}
	}
	u.dirs = kept
	for n := range u.own {
		if n == name || strings.HasPrefix(n, name+"/") {
			delete(u.own, n)
		}
	}
}

func (u *unpacker) make(parent int, base, name string, h *tar.Header, content io.Reader) error {
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		return u.file(parent, base, name, h, content)
	case tar.TypeDir:
		if err := u.take(block); err != nil {
			return err
		}
		if err := unix.Mkdirat(parent, base, 0o700); err != nil && err != unix.EEXIST {
			return fmt.Errorf("make directory: %w", err)
		}
		return u.metadata(parent, base, name, h)
	case tar.TypeSymlink:
		if len(h.Linkname) >= maxName || h.Linkname == "" || strings.ContainsRune(h.Linkname, 0) {
			return fmt.Errorf("link target of %d bytes", len(h.Linkname))
		}
		if len(h.Linkname) >= fastLink {
			if err := u.take(block); err != nil {
				return err
			}
		}
		if err := unix.Symlinkat(h.Linkname, parent, base); err != nil {
			return fmt.Errorf("make symbolic link: %w", err)
		}
		return u.metadata(parent, base, name, h)
	case tar.TypeLink:
		return u.link(parent, base, h)
	}
	return u.device(parent, base, name, h)
}

// link makes a hard link to what this layer holds. Its owner, mode and times are the target's.
func (u *unpacker) link(parent int, base string, h *tar.Header) error {
	target, err := cleanName(h.Linkname)
	if err != nil {
		return fmt.Errorf("hard link to %q: %w", clip(h.Linkname), err)
	}
	dir, tbase := path.Split(target)
	if tbase == "" || strings.HasPrefix(tbase, ".wh.") {
		return fmt.Errorf("hard link to %q: no file", clip(h.Linkname))
	}
	from, err := u.open(path.Clean("/" + dir)[1:])
	if err != nil {
		return fmt.Errorf("hard link to %q: %w", clip(h.Linkname), err)
	}
	defer unix.Close(from)
	var st unix.Stat_t
	if err := unix.Fstatat(from, tbase, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("hard link to %q, which is not in this layer: %w", clip(h.Linkname), err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 {
		return fmt.Errorf("hard link to %q, which this layer removes", clip(h.Linkname))
	}
	if err := unix.Linkat(from, tbase, parent, base, 0); err != nil {
		return fmt.Errorf("hard link to %q: %w", clip(h.Linkname), err)
	}
	return nil
}

func (u *unpacker) device(parent int, base, name string, h *tar.Header) error {
	mode := uint32(unix.S_IFIFO)
	rdev := uint64(0)
	switch h.Typeflag {
	case tar.TypeChar, tar.TypeBlock:
		mode = unix.S_IFCHR
		if h.Typeflag == tar.TypeBlock {
			mode = unix.S_IFBLK
		}
		if h.Devmajor < 0 || h.Devmajor > 0xfff || h.Devminor < 0 || h.Devminor > 0xfffff {
			return fmt.Errorf("device number %d:%d", h.Devmajor, h.Devminor)
		}
		if mode == unix.S_IFCHR && h.Devmajor == 0 && h.Devminor == 0 {
			return errors.New("a character device 0:0, which overlayfs takes for a whiteout")
		}
		rdev = unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))
		if u.o.Unprivileged {
			return nil
		}
	}
	if err := unix.Mknodat(parent, base, mode|0o600, int(rdev)); err != nil {
		return fmt.Errorf("make device: %w", err)
	}
	return u.metadata(parent, base, name, h)
}
