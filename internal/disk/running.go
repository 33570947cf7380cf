package disk

import (
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/digest"
)

// VerityUUID begins the device-mapper UUID of every root image that runs; its root hash follows. It is given together with
// dm-verity's table, and neither can be changed while the root image is in use.
const VerityUUID = "PROA-VERITY-"

// Root returns the device number of the root file system.
func Root() (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat("/", &st); err != nil {
		return 0, fmt.Errorf("look at the root file system: %w", err)
	}
	return uint64(st.Dev), nil
}

// Running returns the root hash and the hash offset (bytes) of the root image that is mounted from a device. It is asked in place of the
// kernel command line, which says what was booted: after a soft reboot another root image runs under the same kernel.
func (s *Scanner) Running(device uint64) (root digest.SHA256, hashOffset int64, err error) {
	dir := path.Join("dev/block", fmt.Sprintf("%d:%d", unix.Major(device), unix.Minor(device)))
	read := func(name string) (string, error) {
		b, err := fs.ReadFile(s.Sys, path.Join(dir, name))
		return strings.TrimSuffix(string(b), "\n"), err
	}
	uuid, err := read("dm/uuid")
	if err != nil {
		return root, 0, fmt.Errorf("the root file system is no root image behind dm-verity: %w", err)
	}
	text, ok := strings.CutPrefix(uuid, VerityUUID)
	if !ok {
		return root, 0, fmt.Errorf("the root file system is on the device-mapper device %q, expected one whose name begins with %s", uuid, VerityUUID)
	}
	if root, err = digest.Parse(text); err != nil {
		return root, 0, fmt.Errorf("read the name %q of the running root image: %w", uuid, err)
	}
	if text, err = read("size"); err != nil {
		return root, 0, fmt.Errorf("read the size of the running root image: %w", err)
	}
	sectors, err := strconv.ParseInt(text, 10, 64)
	if err != nil || sectors <= 0 {
		return root, 0, fmt.Errorf("read the size of the running root image: expected a number of sectors, found %q", text)
	}
	return root, sectors * sysfsSector, nil
}
