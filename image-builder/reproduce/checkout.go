package reproduce

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// sources lists the files of the checkout: what git knows, and what is new and not ignored.
func sources(ctx context.Context, dir string) ([]string, error) {
	cmd := exec.CommandContext(ctx, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list the checkout's files: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00"), nil
}

// copyCheckout copies files from a checkout, each with its execute bit, and gives them the time mtime.
func copyCheckout(from, to string, files []string, mtime time.Time) error {
	for _, name := range files {
		src, dst := filepath.Join(from, name), filepath.Join(to, name)
		fi, err := os.Lstat(src)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed, and not yet committed
		}
		if err != nil {
			return fmt.Errorf("copy the checkout: %w", err)
		}
		if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
			return fmt.Errorf("copy the checkout: %w", err)
		}
		if err := copyOne(src, dst, fi); err != nil {
			return fmt.Errorf("copy the checkout: %w", err)
		}
		if fi.Mode().IsRegular() {
			if err := os.Chtimes(dst, mtime, mtime); err != nil {
				return fmt.Errorf("copy the checkout: %w", err)
			}
		}
	}
	return nil
}

func copyOne(src, dst string, fi fs.FileInfo) error {
	switch {
	case fi.Mode().Type() == fs.ModeSymlink:
		target, err := os.Readlink(src)
		if err != nil {
			return err
		}
		return os.Symlink(target, dst)
	case fi.Mode().IsRegular():
		return copyFile(src, dst, 0o644|fi.Mode().Perm()&0o111)
	}
	return fmt.Errorf("%s is neither a file nor a link", src)
}

func copyFile(src, dst string, mode fs.FileMode) error {
	r, err := os.Open(src)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Close())
}

// linkAll makes the packages of one cache those of another, by hard links or, on another file system, copies. Nothing writes to
// a package file once it is there.
func linkAll(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return fmt.Errorf("share the packages: %w: build once before, so that they are there", err)
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return fmt.Errorf("share the packages: %w", err)
	}
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".deb" {
			continue
		}
		src, dst := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		if os.Link(src, dst) == nil {
			continue
		}
		if err := copyFile(src, dst, 0o644); err != nil {
			return fmt.Errorf("share the packages: %w", err)
		}
	}
	return nil
}
