package kernel

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/proa-os/proa/image-builder/stage"
	"github.com/proa-os/proa/internal/digest"
)

// sealFile holds the seal of a prepared kernel's directory.
const sealFile = ".seal"

// seal sums up what the files below dir look like: paths, sizes, and the times of the last change of content and inode, the latter of which no
// program can set (inode(7)). Reading it takes milliseconds, and whoever has written to a file has changed it. The second result is the newest
// of these times.
func seal(dir string) (string, time.Time, error) {
	h := sha256.New()
	var newest time.Time
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || name == filepath.Join(dir, sealFile) {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		st, ok := fi.Sys().(*syscall.Stat_t)
		if !ok {
			return fmt.Errorf("%s: no inode", name)
		}
		if changed := time.Unix(0, st.Ctim.Nano()); changed.After(newest) {
			newest = changed
		}
		rel, err := filepath.Rel(dir, name)
		fmt.Fprintf(h, "%q %v %d %d %d\n", rel, fi.Mode(), fi.Size(), fi.ModTime().UnixNano(), st.Ctim.Nano())
		return err
	})
	return digest.SHA256(h.Sum(nil)).String(), newest, err
}

func writeSeal(dir string) error {
	s, newest, err := seal(dir)
	if err != nil {
		return err
	}
	stage.Settle(newest) // whoever writes from now on is noticed
	return os.WriteFile(filepath.Join(dir, sealFile), []byte(s), 0o644)
}

// intact reports whether the directory is there and as it was prepared.
func intact(dir string) bool {
	want, err := os.ReadFile(filepath.Join(dir, sealFile))
	if err != nil {
		return false
	}
	got, _, err := seal(dir)
	return err == nil && got == string(want)
}

// discard takes a damaged directory away, in one step for whoever looks at its name.
func discard(dir string) error {
	if _, err := os.Lstat(dir); os.IsNotExist(err) {
		return nil
	}
	trash, err := os.MkdirTemp(filepath.Dir(dir), damaged)
	if err != nil {
		return err
	}
	defer os.RemoveAll(trash)
	err = os.Rename(dir, filepath.Join(trash, "kernel"))
	if os.IsNotExist(err) {
		return nil
	}
	return err
}
