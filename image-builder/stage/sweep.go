package stage

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// LockDir holds a directory until the file is closed: Sweep and Prune leave it. The lock goes with the directory to a new name.
func LockDir(dir string) (*os.File, error) { return lockDir(dir, unix.LOCK_SH) }

// Sweep removes what killed builds have left in dir: directories called prefix and a number (os.MkdirTemp) that nobody holds and that have
// not changed for an hour. Nothing depends on it, so errors do not matter.
func Sweep(dir, prefix string) {
	for _, d := range subdirectories(dir) {
		number, ok := strings.CutPrefix(d.name, prefix)
		if ok && number != "" && strings.Trim(number, "0123456789") == "" && time.Since(d.used) > abandoned {
			removeUnheld(filepath.Join(dir, d.name))
		}
	}
}

// Use says that a directory is in use now, for Prune. It does not matter where that cannot be written down: there nothing is pruned either.
func Use(dir string) {
	now := time.Now()
	_ = os.Chtimes(dir, now, now)
}

// Prune removes the directories in dir that nobody holds and nobody has used for age, but for the newest ones, those named in keep, and
// those whose name begins with a dot. A directory loses its name first: half of one is never seen. Nothing depends on it, so errors do
// not matter.
func Prune(dir string, newest int, age time.Duration, keep ...string) {
	Sweep(dir, working)
	all := slices.DeleteFunc(subdirectories(dir), func(d subdirectory) bool { return strings.HasPrefix(d.name, ".") })
	slices.SortFunc(all, func(a, b subdirectory) int { return b.used.Compare(a.used) })
	for _, d := range all[min(newest, len(all)):] {
		if time.Since(d.used) > age && !slices.Contains(keep, d.name) {
			removeUnheld(filepath.Join(dir, d.name))
		}
	}
}

type subdirectory struct {
	name string
	used time.Time
}

func subdirectories(dir string) (all []subdirectory) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if fi, err := e.Info(); err == nil && fi.IsDir() {
			all = append(all, subdirectory{e.Name(), fi.ModTime()})
		}
	}
	return all
}

// removeUnheld moves a directory that nobody holds to a name that Sweep knows, and removes it there.
func removeUnheld(dir string) {
	lock, err := lockDir(dir, unix.LOCK_EX|unix.LOCK_NB)
	if err != nil {
		return
	}
	defer lock.Close()
	trash, err := os.MkdirTemp(filepath.Dir(dir), working)
	if err != nil {
		return
	}
	if os.Rename(dir, filepath.Join(trash, "removed")) == nil {
		os.RemoveAll(trash)
		return
	}
	os.Remove(trash)
}
