package run

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// openProgram opens this program for execution as stage two, so that the container can never write it through
// /proc/<pid>/exe: as it is where the file system has no writing (EROFS, the machine's root image), else as a sealed copy in
// memory. The descriptor number lies above those that a child inherits.
func openProgram() (*os.File, error) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, fmt.Errorf("open own program: %w", err)
	}
	defer self.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(self.Fd()), &st); err == nil && st.Type == unix.EROFS_SUPER_MAGIC_V1 {
		return above(int(self.Fd()))
	}
	const name = "oci-runtime"
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if err == unix.EINVAL { // before Linux 6.3
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("copy own program: %w", err)
	}
	mem := os.NewFile(uintptr(fd), name)
	defer mem.Close()
	if _, err := io.Copy(mem, self); err != nil {
		return nil, fmt.Errorf("copy own program: %w", err)
	}
	seals := unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(mem.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return nil, fmt.Errorf("seal own program: %w", err)
	}
	return above(int(mem.Fd()))
}

func above(fd int) (*os.File, error) {
	const inherited = 64
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, inherited)
	if err != nil {
		return nil, fmt.Errorf("open own program: %w", err)
	}
	return os.NewFile(uintptr(n), "oci-runtime"), nil
}
