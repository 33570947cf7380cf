package vm

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// CopySparse copies the file from to the new file to and makes it size bytes long, or as long as from when size is
// 0. Holes stay holes; a file system that can share blocks (FICLONE) is asked to.
func CopySparse(to, from string, size int64) (err error) {
	src, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copy disk: %w", err)
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil {
		return fmt.Errorf("copy disk: %w", err)
	}
	if size == 0 {
		size = info.Size()
	}
	if size < info.Size() {
		return fmt.Errorf("copy disk %s: the image is %d bytes and the disk to make only %d; ask for a larger disk", from, info.Size(), size)
	}
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o644)
	if err != nil {
		return fmt.Errorf("copy disk: %w", err)
	}
	defer func() {
		if cerr := dst.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("copy disk: %w", cerr)
		}
	}()
	if err := unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())); err != nil {
		if err := copyData(dst, src, info.Size()); err != nil {
			return fmt.Errorf("copy disk %s to %s: %w", from, to, err)
		}
	}
	if err := dst.Truncate(size); err != nil {
		return fmt.Errorf("grow disk %s to %d bytes: %w", to, size, err)
	}
	return nil
}

// copyData copies the parts of src that are not holes (lseek(2), SEEK_DATA).
func copyData(dst, src *os.File, size int64) error {
	for at := int64(0); at < size; {
		begin, err := unix.Seek(int(src.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // Nothing but a hole up to the end.
		}
		if err != nil {
			return fmt.Errorf("find data at %d: %w", at, err)
		}
		end, err := unix.Seek(int(src.Fd()), begin, unix.SEEK_HOLE)
		if err != nil {
			return fmt.Errorf("find hole behind %d: %w", begin, err)
		}
		if _, err := io.Copy(io.NewOffsetWriter(dst, begin), io.NewSectionReader(src, begin, end-begin)); err != nil {
			return err
		}
		at = end
	}
	return nil
}

// copyFile copies a small file.
func copyFile(to, from string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o644)
}
