package apply

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// disk makes every change of the tree, one method for each kind. Names are relative to root and resolved.
type disk struct {
	root    *os.Root
	owners  Owners
	fault   func(step string) error
	touched map[string]bool // directories to sync
}

func (d *disk) step(what, name string) error {
	if dir := path.Dir(name); dir != "" {
		d.touched[dir] = true
	}
	if d.fault == nil {
		return nil
	}
	return d.fault(what + " " + name)
}

// resolve follows the symbolic links in name inside the tree, as a process would after chroot(2), except a link
// that is the last name unless last is true. What does not exist stays as it is. "." is the root of the tree.
func (d *disk) resolve(name string, last bool) (string, error) {
	var done []string
	rest := strings.Split(name, "/")
	for links := 0; len(rest) > 0; {
		word := rest[0]
		rest = rest[1:]
		switch word {
		case "", ".":
			continue
		case "..":
			done = done[:max(0, len(done)-1)]
			continue
		}
		next := append(done[:len(done):len(done)], word)
		if len(rest) == 0 && !last {
			done = next
			break
		}
		info, err := d.root.Lstat(path.Join(next...))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			done = next
		case err != nil:
			return "", err
		case info.Mode()&fs.ModeSymlink != 0:
			if links++; links > 40 {
				return "", NewProblem("too many symbolic links", "a path that ends", "/"+path.Join(next...), "look for links that point to each other")
			}
			target, err := d.root.Readlink(path.Join(next...))
			if err != nil {
				return "", err
			}
			if path.IsAbs(target) {
				done = nil
			}
			rest = append(strings.Split(target, "/"), rest...)
		case !info.IsDir() && len(rest) > 0:
			return "", notDirectory(path.Join(next...), info)
		default:
			done = next
		}
	}
	if len(done) == 0 {
		return ".", nil
	}
	return path.Join(done...), nil
}

func kind(info fs.FileInfo) string {
	switch {
	case info.IsDir():
		return "a directory"
	case info.Mode()&fs.ModeSymlink != 0:
		return "a symbolic link"
	case info.Mode().IsRegular():
		return "a file"
	}
	return "a special file"
}

// attributes are what a new name gets before it is visible.
type attributes struct {
	uid, gid int
	mode     int // permission bits with setuid (04000), setgid (02000), sticky (01000)
}

func fileMode(m int) fs.FileMode {
	mode := fs.FileMode(m & 0o777)
	for bit, flag := range map[int]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if m&bit != 0 {
			mode |= flag
		}
	}
	return mode
}

func (d *disk) attributesOf(info fs.FileInfo) attributes {
	uid, gid := d.owners.Owner(info)
	return attributes{uid: uid, gid: gid, mode: int(info.Sys().(*syscall.Stat_t).Mode & 0o7777)}
}

// dress sets the owner first: chown(2) clears setuid and setgid.
func (d *disk) dress(name string, a attributes) error {
	if err := d.chown(name, a.uid, a.gid); err != nil {
		return err
	}
	return d.chmod(name, a.mode)
}

func (d *disk) chown(name string, uid, gid int) error {
	if err := d.step("chown", name); err != nil {
		return err
	}
	return d.owners.Lchown(d.root, name, uid, gid)
}

func (d *disk) chmod(name string, mode int) error {
	if err := d.step("chmod", name); err != nil {
		return err
	}
	return d.root.Chmod(name, fileMode(mode))
}

// temporary is the name beside name that something has until it is complete. It depends on name alone, so that
// the next run after a power cut cleans it up.
func temporary(name string) string {
	sum := sha256.Sum256([]byte(path.Base(name)))
	return path.Join(path.Dir(name), ".ignition-"+hex.EncodeToString(sum[:8]))
}

// prepare frees the temporary name of name and returns it.
func (d *disk) prepare(name string) (string, error) {
	tmp := temporary(name)
	return tmp, d.remove(tmp)
}

// remove deletes name and what is below it, if it exists.
func (d *disk) remove(name string) error {
	if _, err := d.root.Lstat(name); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := d.step("remove", name); err != nil {
		return err
	}
	return d.root.RemoveAll(name)
}

// rename gives tmp its name. Whatever has that name goes: rename(2) itself replaces no directory, and nothing by one.
func (d *disk) rename(tmp, name string) error {
	made, err := d.root.Lstat(tmp)
	if err != nil {
		return err
	}
	if old, err := d.root.Lstat(name); err == nil && (old.IsDir() || made.IsDir()) {
		if err := d.remove(name); err != nil {
			return err
		}
	}
	if err := d.step("rename", name); err != nil {
		return err
	}
	return d.root.Rename(tmp, name)
}

func (d *disk) makeDirectory(name string, a attributes) error {
	tmp, err := d.prepare(name)
	if err != nil {
		return err
	}
	if err := d.step("mkdir", name); err != nil {
		return err
	}
	if err := d.root.Mkdir(tmp, 0o700); err != nil {
		return err
	}
	if err := d.dress(tmp, a); err != nil {
		return err
	}
	return d.rename(tmp, name)
}

func (d *disk) makeSymlink(name, target string, a attributes) error {
	tmp, err := d.prepare(name)
	if err != nil {
		return err
	}
	if err := d.step("symlink", name); err != nil {
		return err
	}
	if err := d.root.Symlink(target, tmp); err != nil {
		return err
	}
	if err := d.chown(tmp, a.uid, a.gid); err != nil {
		return err
	}
	return d.rename(tmp, name)
}

func (d *disk) makeHardLink(name, target string) error {
	tmp, err := d.prepare(name)
	if err != nil {
		return err
	}
	if err := d.step("link", name); err != nil {
		return err
	}
	if err := d.root.Link(target, tmp); err != nil {
		return err
	}
	return d.rename(tmp, name)
}

// writeFile fills a temporary file, syncs it, tells ready the sum of what was written, and renames.
func (d *disk) writeFile(name string, a attributes, fill func(*sink) error, ready func(id string) error) error {
	tmp, err := d.prepare(name)
	if err != nil {
		return err
	}
	if err := d.writeTemporary(tmp, name, a, fill, ready); err != nil {
		d.remove(tmp) // if that fails too, the next run does it
		return err
	}
	return d.rename(tmp, name)
}

func (d *disk) writeTemporary(tmp, name string, a attributes, fill func(*sink) error, ready func(id string) error) error {
	if err := d.step("create", name); err != nil {
		return err
	}
	f, err := d.root.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	s := &sink{f: f}
	if err := fill(s); err != nil {
		return err
	}
	if err := s.full(); err != nil {
		return err
	}
	if err := d.dress(tmp, a); err != nil {
		return err
	}
	if err := d.step("sync", name); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	id, err := d.identity(tmp)
	if err != nil || ready == nil {
		return err
	}
	return ready(id)
}

func (d *disk) writeBytes(name string, a attributes, b []byte) error {
	return d.writeFile(name, a, func(s *sink) error {
		_, err := s.Write(b)
		return err
	}, nil)
}

// Identities other than "sha256:<hex>" of a file and "link:<target>".
const (
	absent    = "absent"
	aDir      = "directory"
	something = "something else"
)

// identity tells what is at name, by content.
func (d *disk) identity(name string) (string, error) {
	info, err := d.root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return absent, nil
	case err != nil:
		return "", err
	case info.IsDir():
		return aDir, nil
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := d.root.Readlink(name)
		return "link:" + target, err
	case !info.Mode().IsRegular():
		return something, nil
	}
	f, err := d.root.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}

// sync writes the file systems of all directories touched to disk; unlike sync(2), syncfs(2) reports errors.
func (d *disk) sync() error {
	seen := map[uint64]bool{}
	for dir := range d.touched {
		f, err := d.root.Open(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since
		}
		if err != nil {
			return err
		}
		err = syncOnce(f, seen)
		f.Close()
		if err != nil {
			return fmt.Errorf("sync %s: %w", dir, err)
		}
	}
	return nil
}

func syncOnce(f *os.File, seen map[uint64]bool) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	dev := uint64(info.Sys().(*syscall.Stat_t).Dev)
	if seen[dev] {
		return nil
	}
	seen[dev] = true
	return unix.Syncfs(int(f.Fd()))
}
