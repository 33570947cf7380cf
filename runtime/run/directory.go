package run

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// makeDir takes the ID: of two callers one makes the directory.
func (c *Container) makeDir(config []byte) error {
	err := os.Mkdir(c.dir, 0o700)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(c.dir), 0o711); err != nil {
			return fmt.Errorf("create %s: %w", c.ID, err)
		}
		err = os.Mkdir(c.dir, 0o700)
	}
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("create %s: a container with this ID exists: delete it first", c.ID)
	}
	if err != nil {
		return fmt.Errorf("create %s: %w", c.ID, err)
	}
	if err := newFile(filepath.Join(c.dir, "config.json"), config); err != nil {
		os.RemoveAll(c.dir)
		return fmt.Errorf("create %s: %w", c.ID, err)
	}
	return nil
}

func (c *Container) listen() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", c.ID, err)
	}
	f := os.NewFile(uintptr(fd), "start.sock")
	err = c.atSocket(func(a *unix.SockaddrUnix) error { return unix.Bind(fd, a) })
	if err == nil {
		err = unix.Listen(fd, 1)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("create %s: listen for start: %w", c.ID, err)
	}
	return f, nil
}

// atSocket calls f with an address that fits sun_path however long the directory is.
func (c *Container) atSocket(f func(*unix.SockaddrUnix) error) error {
	dir, err := os.Open(c.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	return f(&unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/start.sock", dir.Fd())})
}
