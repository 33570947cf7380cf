package tooltree

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// bind is a detached copy of a mount tree (open_tree(2)): what is later mounted over its path does not matter.
type bind struct {
	path string
	fd   int
	dir  bool
}

func openBind(path string) (bind, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return bind{}, err
	}
	fi, err := os.Stat(abs)
	if err != nil {
		return bind{}, err
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, abs, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return bind{}, fmt.Errorf("open_tree %s: %w", abs, err)
	}
	return bind{abs, fd, fi.IsDir()}, nil
}

func openAll(paths []string) ([]bind, error) {
	var all []bind
	for _, p := range paths {
		b, err := openBind(p)
		if err != nil {
			closeAll(all)
			return nil, err
		}
		all = append(all, b)
	}
	return all, nil
}

func closeAll(binds []bind) {
	for _, b := range binds {
		unix.Close(b.fd)
	}
}

// attach mounts it below root, under its own path.
func (b bind) attach(root string) error {
	target := filepath.Join(root, b.path)
	err := os.MkdirAll(filepath.Dir(target), 0o755)
	if err == nil && b.dir {
		err = os.MkdirAll(target, 0o755)
	} else if err == nil {
		err = os.WriteFile(target, nil, 0o600)
	}
	if err != nil {
		return fmt.Errorf("make place for %s: %w", b.path, err)
	}
	if err := unix.MoveMount(b.fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("move_mount to %s: %w", b.path, err)
	}
	return nil
}

// newAccounts are the files of a room's /etc by name: the tree's, and those that name root and the loopback.
func newAccounts(etc fs.FS) (map[string][]byte, error) {
	files := make(map[string][]byte)
	err := fs.WalkDir(etc, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		files[name], err = fs.ReadFile(etc, name)
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the tree's etc: %w", err)
	}
	files["passwd"] = []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
	files["group"] = []byte("root:x:0:\ntty:x:5:\nnogroup:x:65534:\n")
	files["hosts"] = []byte("127.0.0.1 localhost\n::1 localhost\n")
	files["resolv.conf"] = []byte("nameserver 127.0.0.1\n")
	files["nsswitch.conf"] = []byte("passwd: files\ngroup: files\nhosts: files\n")
	return files, nil
}
