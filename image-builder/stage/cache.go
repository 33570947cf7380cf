package stage

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/digest"
)

const (
	sealName = "entry.json"
	working  = ".work-"
	// abandoned is how old an unlocked work directory is before it counts as left by a build that was killed.
	abandoned = time.Hour
)

// A Cache is a directory of entries.
type Cache struct {
	dir   string
	limit int64
}

// Open returns the cache in dir, which is made if it is missing. Eviction keeps the entries below limit bytes.
func Open(dir string, limit int64) (*Cache, error) {
	dir, err := filepath.Abs(dir) // so that links to entries lead there from anywhere
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err != nil {
		return nil, fmt.Errorf("open stage cache: %w", err)
	}
	return &Cache{dir: dir, limit: limit}, nil
}

// An Entry is the result of a stage. It stays until it is closed.
type Entry struct {
	dir  string
	seal *Seal
	lock *os.File
}

// Path returns the absolute path of a file of the entry. The file must not be written to.
func (e *Entry) Path(name string) string { return filepath.Join(e.dir, name) }

// Sum returns the sum of a file of the entry, zero if there is no such file.
func (e *Entry) Sum(name string) digest.SHA256 { return e.seal.Sum(name) }

// Close allows the entry to be evicted.
func (e *Entry) Close() error { return e.lock.Close() }

// Fill makes the files of an entry in dir, plain files without directories. It may return sums of files that it knows, to save
// reading them again.
type Fill func(dir string) (sums map[string]digest.SHA256, err error)

// Make returns the entry under key, and whether it was there; if not, fill makes it.
func (c *Cache) Make(key digest.SHA256, fill Fill) (e *Entry, hit bool, err error) {
	for { // ends: whoever does not find the entry makes it, and holds it from then on
		if e, err = c.Get(key); e != nil || err != nil {
			return e, e != nil, err
		}
		if e, err = c.add(key, fill); err != nil {
			return nil, false, err
		}
		if e != nil {
			return e, false, c.evict()
		}
	}
}

// Get returns the entry under key, or nil if there is none. A damaged one is removed, and is none.
func (c *Cache) Get(key digest.SHA256) (*Entry, error) {
	dir := filepath.Join(c.dir, key.String())
	lock, err := lockDir(dir, unix.LOCK_SH)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open stage: %w", err)
	}
	seal, err := readSeal(dir)
	renewed := false
	if err == nil {
		renewed, err = seal.Check(dir)
	}
	if err == nil && renewed {
		err = writeSeal(dir, seal)
	}
	if err != nil {
		lock.Close()
		if err := c.remove(dir); err != nil {
			return nil, fmt.Errorf("remove damaged stage: %w", err)
		}
		return nil, nil
	}
	now := time.Now()
	_ = os.Chtimes(dir, now, now) // for eviction only; a cache that cannot be written to is not evicted either
	return &Entry{dir, seal, lock}, nil
}

// add makes an entry beside its place and renames it there. It returns nil if another build was faster.
func (c *Cache) add(key digest.SHA256, fill Fill) (e *Entry, err error) {
	work, err := os.MkdirTemp(c.dir, working)
	if err != nil {
		return nil, fmt.Errorf("make stage: %w", err)
	}
	defer os.RemoveAll(work)
	lock, err := lockDir(work, unix.LOCK_SH) // goes with the directory to its new name
	if err != nil {
		return nil, fmt.Errorf("make stage: %w", err)
	}
	defer func() {
		if e == nil {
			lock.Close()
		}
	}()
	sums, err := fill(work)
	if err != nil {
		return nil, err
	}
	seal, err := NewSeal(work, sums)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(writeSeal(work, seal), os.Chmod(work, 0o755)); err != nil {
		return nil, fmt.Errorf("make stage: %w", err)
	}
	dir := filepath.Join(c.dir, key.String())
	err = os.Rename(work, dir)
	if errors.Is(err, fs.ErrExist) || errors.Is(err, unix.ENOTEMPTY) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("make stage: %w", err)
	}
	return &Entry{dir, seal, lock}, nil
}

// evict removes the entries that were unused for the longest time until the rest fits, and what killed builds have left.
func (c *Cache) evict() error {
	list, err := os.ReadDir(c.dir)
	if err != nil {
		return fmt.Errorf("evict stages: %w", err)
	}
	type candidate struct {
		dir  string
		used time.Time
		size int64
	}
	var all []candidate
	var total int64
	for _, d := range list {
		dir := filepath.Join(c.dir, d.Name())
		fi, err := d.Info()
		if err != nil {
			continue // another build has removed it
		}
		if strings.HasPrefix(d.Name(), working) {
			if time.Since(fi.ModTime()) > abandoned {
				if err := c.remove(dir); err != nil {
					return fmt.Errorf("remove abandoned stage: %w", err)
				}
			}
			continue
		}
		size := sizeOf(dir)
		all, total = append(all, candidate{dir, fi.ModTime(), size}), total+size
	}
	slices.SortFunc(all, func(a, b candidate) int { return a.used.Compare(b.used) })
	for _, old := range all {
		if total <= c.limit {
			break
		}
		if err := c.remove(old.dir); err != nil {
			return fmt.Errorf("evict stage: %w", err)
		}
		if _, err := os.Stat(old.dir); err != nil {
			total -= old.size
		}
	}
	return nil
}

// remove removes an entry, or leaves one that is in use. It is renamed first: half an entry is never seen.
func (c *Cache) remove(dir string) error {
	lock, err := lockDir(dir, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EWOULDBLOCK) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	trash, err := os.MkdirTemp(c.dir, working)
	if err != nil {
		return err
	}
	if err := os.Rename(dir, filepath.Join(trash, "removed")); err != nil {
		os.Remove(trash)
		return err
	}
	return os.RemoveAll(trash)
}

// lockDir opens and locks a directory; it is the one under that name at that moment.
func lockDir(dir string, how int) (*os.File, error) {
	for {
		f, err := os.Open(dir)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), how); err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", dir, err)
		}
		a, errA := f.Stat()
		b, errB := os.Stat(dir)
		if errA == nil && errB == nil && os.SameFile(a, b) {
			return f, nil
		}
		f.Close()
	}
}

func sizeOf(dir string) (n int64) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	for _, d := range list {
		if fi, err := d.Info(); err == nil {
			n += fi.Size()
		}
	}
	return n
}

func readSeal(dir string) (*Seal, error) {
	b, err := os.ReadFile(filepath.Join(dir, sealName))
	if err != nil {
		return nil, err
	}
	var s Seal
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("%s: %w", sealName, err)
	}
	return &s, nil
}

// writeSeal replaces the seal in one step.
func writeSeal(dir string, s *Seal) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return ReplaceFile(filepath.Join(dir, sealName), b)
}

// ReplaceFile writes a file in one step: readers see the old content or the new.
func ReplaceFile(name string, b []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(name), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(append(b, '\n'))
	if err := errors.Join(err, tmp.Chmod(0o644), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), name)
}
