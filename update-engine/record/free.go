package record

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Free is how many bytes can still be written to the file system of the store. A file system that is read-only is an error that wraps
// syscall.EROFS: it is known without writing.
func (s *Store) Free() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(s.dir, &st); err != nil {
		return 0, fmt.Errorf("statfs %s: %w", s.dir, err)
	}
	if st.Flags&unix.ST_RDONLY != 0 {
		return 0, fmt.Errorf("%s: %w", s.dir, unix.EROFS)
	}
	if os.Geteuid() == 0 {
		return int64(st.Bfree) * st.Bsize, nil // with what is reserved for root
	}
	return int64(st.Bavail) * st.Bsize, nil
}
