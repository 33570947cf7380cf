package qcow2

import (
	"bytes"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// findData returns the numbers of the clusters that are not all zeros. Of a file, holes are not read; what counts is the content, so
// a disk with other holes gives the same answer.
func findData(disk io.ReaderAt, size int64) ([]int64, error) {
	var used []int64
	const window = 16 * clusterSize
	buf, zero := make([]byte, window), make([]byte, clusterSize)
	for at := int64(0); at < size; {
		next, err := NextData(disk, at)
		if err != nil {
			return nil, err
		}
		at = next / clusterSize * clusterSize
		if at >= size {
			break
		}
		n := min(size-at, window)
		if got, err := disk.ReadAt(buf[:n], at); int64(got) < n {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		for off := int64(0); off < n; off += clusterSize {
			b := buf[off:min(off+clusterSize, n)]
			if !bytes.Equal(b, zero[:len(b)]) {
				used = append(used, (at+off)/clusterSize)
			}
		}
		at += n
	}
	return used, nil
}

// NextData returns where the next data are, at or behind at; the end of all if there are none (lseek(2), SEEK_DATA).
func NextData(disk io.ReaderAt, at int64) (int64, error) {
	f, ok := disk.(*os.File)
	if !ok {
		return at, nil
	}
	next, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return f.Seek(0, io.SeekEnd)
	}
	if errors.Is(err, unix.EINVAL) { // a file system without holes
		return at, nil
	}
	return next, err
}
