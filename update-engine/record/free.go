package record

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrFiles is the error of Free when the file system has room for bytes and hardly for files (inodes). What an update keeps are a few dozen.
var ErrFiles = errors.New("no room for more files (inodes)")

const minFiles = 64

// Free is how many bytes can still be written to the file system of the store. A file system that is read-only is an error that wraps
// syscall.EROFS: it is known without writing.
func (s *Store) Free() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(s.dir, &st); err != nil {
		return 0, fmt.Errorf("statfs %s: %w", s.dir, err)
	}
	free, err := free(st, os.Geteuid() == 0)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", s.dir, err)
	}
	return free, nil
}

func free(st unix.Statfs_t, root bool) (int64, error) {
	switch {
	case st.Flags&unix.ST_RDONLY != 0:
		return 0, unix.EROFS
	case st.Files > 0 && st.Ffree < minFiles: // btrfs and FAT do not count them
		return 0, ErrFiles
	case root:
		// With what is reserved for root, and without what ext4 keeps for itself: nobody can write there, and statfs(2) counts it as
		// free (linux, fs/ext4/super.c, ext4_calculate_resv_clusters).
		kept := min(int64(st.Blocks)/50, 4096)
		return max(int64(st.Bfree)-kept, 0) * st.Bsize, nil
	}
	return int64(st.Bavail) * st.Bsize, nil
}
