// Guest stands in for systemd in the root images of init's kernel tests: it says what init left it, counts boots in state,
// and turns the machine off.
package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(); err != nil {
		fmt.Printf("guest: error: %v\n", err)
	}
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}

func run() error {
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 3 {
			fmt.Printf("guest: mount %s %s %s %s\n", f[1], f[2], f[0], f[3])
		}
	}
	if _, err := os.Stat("/init"); err == nil {
		return fmt.Errorf("/init: the root is still the initramfs")
	}
	// Reads every block of the blob, which is where the tests corrupt the image.
	blob, err := os.ReadFile("/usr/share/blob")
	if err != nil {
		return err
	}
	fmt.Printf("guest: read %d bytes of blob\n", len(blob))
	var st unix.Statfs_t
	if err := unix.Statfs("/var", &st); err != nil {
		return err
	}
	fmt.Printf("guest: /var has %d MiB\n", int64(st.Blocks)*st.Bsize>>20)
	if err := count("/var/lib/boots"); err != nil {
		return err
	}
	return count("/etc/boots")
}

// count adds one to the number in a file, durably.
func count(name string) error {
	n := 0
	if b, err := os.ReadFile(name); err == nil {
		if n, err = strconv.Atoi(string(b)); err != nil {
			return err
		}
	}
	n++
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(strconv.Itoa(n)); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	fmt.Printf("guest: boot %d by %s\n", n, name)
	return f.Close()
}
