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
		// With what is reserved for root, and without what ext4 keeps for itself: nobody can write there, and statfs(2) counts it as
		// free (linux, fs/ext4/super.c, ext4_calculate_resv_clusters).
		kept := min(int64(st.Blocks)/50, 4096)
		return max(int64(st.Bfree)-kept, 0) * st.Bsize, nil
	}
	return int64(st.Bavail) * st.Bsize, nil
}
