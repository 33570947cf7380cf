package run

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Files of the kernel and of the state are read and written by plain calls: package os asks for each whether it can be polled, and
// these are a good part of all calls of a start.

// readFile is os.ReadFile.
func readFile(name string) ([]byte, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	b := make([]byte, 0, 4096)
	for {
		n, err := unix.Read(fd, b[len(b):cap(b)])
		switch {
		case err == unix.EINTR:
		case err != nil:
			return nil, &os.PathError{Op: "read", Path: name, Err: err}
		case n == 0:
			return b, nil
		}
		if b = b[:len(b)+max(n, 0)]; len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
	}
}

// putFile writes to a file, which flags may create or empty.
func putFile(name string, b []byte, flags int, mode uint32) error {
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_CLOEXEC|flags, mode)
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	n, err := unix.Write(fd, b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	if err != nil {
		return &os.PathError{Op: "write", Path: name, Err: err}
	}
	return nil
}

// setFile writes to a file of the kernel, which takes a value at once.
func setFile(name, value string) error { return putFile(name, []byte(value), 0, 0) }

// newFile makes or replaces a file that only its owner may read.
func newFile(name string, b []byte) error {
	return putFile(name, b, unix.O_CREAT|unix.O_TRUNC|unix.O_NOFOLLOW, 0o600)
}
