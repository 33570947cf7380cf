package image

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// buildSpace is what one build writes at the most, in bytes: root image, boot program, disk images.
	buildSpace = 2 << 30
	// stageSpace is what the cache of stages may hold, in bytes: some ten root images.
	stageSpace = 4 << 30
)

// checkSpace says early what would otherwise fail late, and what moves dir to another disk.
func checkSpace(dir string, want int64, setting string) error {
	for {
		if _, err := os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
			break
		}
		dir = filepath.Dir(dir)
	}
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return fmt.Errorf("ask for the free space of %s: %w", dir, err)
	}
	if free := int64(s.Bavail) * s.Bsize; free < want {
		return fmt.Errorf("%s has %d MiB free, a build needs %d MiB: make room, or set %s to another disk", dir, free>>20, want>>20, setting)
	}
	return nil
}

// usage returns the bytes a file takes on its disk, without its holes.
func usage(fi os.FileInfo) int64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return fi.Size()
}
