package apply

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"github.com/proa-os/proa/ignition/plan"
)

// Defaults of the spec for what is new; leading directories are root's.
const (
	newFileMode = 0o644
	newDirMode  = 0o755
)

// parents makes the directories above name that do not exist. A user's home directory is made that user's, so that
// a file in a home that nobody has logged in to yet does not lock the user out.
func (r *run) parents(name string) error {
	dir := path.Dir(name)
	if dir == "." {
		return nil
	}
	if info, err := r.root.Lstat(dir); err == nil {
		if !info.IsDir() {
			return notDirectory(dir, info)
		}
		return nil
	}
	if err := r.parents(dir); err != nil {
		return err
	}
	homes, err := r.homeDirs()
	if err != nil {
		return err
	}
	if u, ok := homes[dir]; ok {
		return r.makeDirectory(dir, attributes{uid: u.uid, gid: u.gid, mode: homeMode})
	}
	return r.makeDirectory(dir, attributes{mode: newDirMode})
}

// owner returns the ids that o asks for, those of a where it does not.
func (r *run) owner(o plan.Owner, a attributes) (attributes, error) {
	if o.UID != nil {
		a.uid = *o.UID
	}
	if o.GID != nil {
		a.gid = *o.GID
	}
	if o.User == "" && o.Group == "" {
		return a, nil
	}
	acc, err := r.accounts()
	if err != nil {
		return a, err
	}
	if o.User != "" {
		u, ok := acc.lookupUser(o.User)
		if !ok {
			return a, unknown("user", "passwd", o.User)
		}
		a.uid = u.uid
	}
	if o.Group != "" {
		gid, ok := acc.lookupGroup(o.Group)
		if !ok {
			return a, unknown("group", "group", o.Group)
		}
		a.gid = gid
	}
	return a, nil
}

// unknown is the problem with a name that is not in a file of /etc.
func unknown(kind, file, name string) error {
	list := "passwd." + kind + "s"
	return NewProblem("unknown "+kind, fmt.Sprintf("a %s of /etc/%s or of %s", kind, file, list), name, "add it to "+list+", or correct the name")
}

func (r *run) directory(op plan.Directory) error {
	name, err := r.resolve(op.Path, false)
	if err != nil {
		return err
	}
	a, err := r.owner(op.Owner, attributes{mode: newDirMode})
	if err != nil {
		return err
	}
	if op.Mode != nil {
		a.mode = *op.Mode
	}
	info, err := r.root.Lstat(name)
	switch {
	case err == nil && info.IsDir() && !op.Overwrite:
		return r.existingDirectory(name, op, r.attributesOf(info))
	case err == nil && !op.Overwrite:
		return exists(name, "a directory", kind(info))
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := r.parents(name); err != nil {
		return err
	}
	return r.makeDirectory(name, a) // the rename removes what is there
}

// existingDirectory changes what the config asks for and leaves the rest.
func (r *run) existingDirectory(name string, op plan.Directory, a attributes) error {
	want, err := r.owner(op.Owner, a)
	if err != nil {
		return err
	}
	if op.Owner != (plan.Owner{}) {
		if err := r.chown(name, want.uid, want.gid); err != nil {
			return err
		}
	}
	if op.Mode != nil {
		return r.chmod(name, *op.Mode)
	}
	return nil
}

func exists(name, expected, found string) error {
	return NewProblem("something exists at /"+name, "nothing, or "+expected, found, `choose another path or set "overwrite": true`)
}

func notDirectory(name string, info fs.FileInfo) error {
	return NewProblem("not a directory", "a directory at /"+name, kind(info), "remove what is there, or choose another path")
}

func (r *run) file(op plan.File) error {
	name, err := r.resolve(op.Path, false)
	if err != nil {
		return err
	}
	now, err := r.identity(name)
	if err != nil {
		return err
	}
	before := r.journal.before(name, now)
	old := before
	if op.Overwrite {
		old = absent
	}
	hasContents := op.Contents != nil || op.Text != nil
	if old != absent && !strings.HasPrefix(old, "sha256:") {
		return exists(name, "a file", show(old))
	}
	a, err := r.fileAttributes(name, op, now != absent && !hasContents)
	if err != nil {
		return err
	}
	if err := r.parents(name); err != nil {
		return err
	}
	fill := func(s *sink) error { return r.fill(s, op, name, now, old) }
	return r.writeFile(name, a, fill, func(id string) error {
		if hasContents && old != absent && old != id {
			return NewProblem("a file with other contents exists", "no file at /"+name+", or the same contents", "a file", `choose another path or set "overwrite": true`)
		}
		return r.journal.announce(name, now, before, id)
	})
}

// fileAttributes: a file that only gets something appended, or an owner, keeps what the config does not mention.
func (r *run) fileAttributes(name string, op plan.File, keep bool) (attributes, error) {
	a := attributes{mode: newFileMode}
	if keep {
		info, err := r.root.Lstat(name)
		if err != nil {
			return a, err
		}
		if info.Mode().IsRegular() {
			a = r.attributesOf(info)
		}
	}
	if op.Mode != nil {
		a.mode = *op.Mode
	}
	return r.owner(op.Owner, a)
}

// fill writes the new content: what the config gives or what was there, and then what is appended.
func (r *run) fill(s *sink, op plan.File, name, now, old string) error {
	switch {
	case op.Text != nil:
		if _, err := io.WriteString(s, *op.Text); err != nil {
			return err
		}
	case op.Contents != nil:
		if err := r.fetch(r.ctx, *op.Contents, s); err != nil {
			return err
		}
	case old != absent:
		from, err := r.journal.open(name, now, old)
		if err != nil {
			return err
		}
		_, err = io.Copy(s, from)
		if err := errors.Join(err, from.Close()); err != nil {
			return err
		}
	}
	for _, res := range op.Append {
		if err := s.begin(); err != nil {
			return err
		}
		if err := r.fetch(r.ctx, res, s); err != nil {
			return err
		}
	}
	return nil
}

// sink is the end of a file, to which one resource at a time is written. When the file system is full it takes the rest and only counts it:
// a person wants to know how much room is missing.
type sink struct {
	f       *os.File
	start   int64
	missing int64 // bytes that there was no room for
}

func (s *sink) begin() (err error) {
	s.start, err = s.f.Seek(0, io.SeekEnd)
	return err
}

func (s *sink) Write(p []byte) (n int, err error) {
	if s.missing == 0 {
		n, err = s.f.Write(p)
	}
	if err != nil && !errors.Is(err, syscall.ENOSPC) {
		return n, err
	}
	s.missing += int64(len(p) - n)
	return len(p), nil
}

// full is the problem with a file that there was no room for.
func (s *sink) full() error {
	if s.missing == 0 {
		return nil
	}
	size, err := s.f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	return NewProblem("the file system is full", fmt.Sprintf("room for %d bytes", size+s.missing),
		fmt.Sprintf("%d bytes missing", s.missing), moreRoom)
}

// Reset forgets the resource that was begun.
func (s *sink) Reset() error {
	s.missing = 0
	if err := s.f.Truncate(s.start); err != nil {
		return err
	}
	_, err := s.f.Seek(s.start, io.SeekStart)
	return err
}

func (r *run) symlink(op plan.Link) error {
	name, err := r.resolve(op.Path, false)
	if err != nil {
		return err
	}
	now, err := r.identity(name)
	if err != nil {
		return err
	}
	before, after := r.journal.before(name, now), "link:"+op.Target
	if before != absent && before != after && !op.Overwrite {
		return exists(name, "a link to "+op.Target, show(before))
	}
	a, err := r.owner(op.Owner, attributes{})
	if err != nil {
		return err
	}
	if now == after {
		return r.chown(name, a.uid, a.gid)
	}
	if err := r.parents(name); err != nil {
		return err
	}
	if err := r.journal.announce(name, now, before, after); err != nil {
		return err
	}
	return r.makeSymlink(name, op.Target, a)
}

// show tells an identity to a person.
func show(id string) string {
	switch {
	case strings.HasPrefix(id, "sha256:"):
		return "a file"
	case strings.HasPrefix(id, "link:"):
		return "a link to " + id[len("link:"):]
	case id == aDir:
		return "a directory"
	}
	return id
}

func (r *run) hardLink(op plan.Link) error {
	name, err := r.resolve(op.Path, false)
	if err != nil {
		return err
	}
	target := op.Target
	if !path.IsAbs(target) {
		target = path.Join(path.Dir(op.Path), target)
	}
	target, err = r.resolve(target, false)
	if err != nil {
		return err
	}
	want, err := r.root.Lstat(target)
	if err != nil || want.IsDir() {
		return NewProblem("no file to link to", "a file at /"+target, foundAt(want), "correct target, or describe that file in the config")
	}
	if info, err := r.root.Lstat(name); err == nil && os.SameFile(info, want) {
		return nil
	}
	now, err := r.identity(name)
	if err != nil {
		return err
	}
	before := r.journal.before(name, now)
	if before != absent && !op.Overwrite {
		return exists(name, "the same file as /"+target, show(before))
	}
	after, err := r.identity(target)
	if err != nil {
		return err
	}
	if err := r.parents(name); err != nil {
		return err
	}
	if err := r.journal.announce(name, now, before, after); err != nil {
		return err
	}
	return r.makeHardLink(name, target)
}

func foundAt(info fs.FileInfo) string {
	if info == nil {
		return "nothing"
	}
	return kind(info)
}
