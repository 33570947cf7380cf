package tpm

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Open opens the machine's TPM. It is not done by os.OpenFile, which makes devices non-blocking: of an answer that is not there yet the kernel
// would say that it is empty.
func Open() (*os.File, error) {
	const name = "/dev/tpmrm0"
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}
