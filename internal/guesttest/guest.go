package guesttest

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	guestEnv   = "PROA_GUEST"       // set by the kernel for /init, from its command line
	moduleList = "etc/modules.list" // names of files, in the order in which they are loaded
	results    = "/dev/ttyS1"
	verdict    = "guesttest: exit status " // begins the last line of the results
)

// Inside reports whether this process is PID 1 of a guest.
func Inside() bool { return os.Getpid() == 1 && os.Getenv(guestEnv) == "1" }

// Main is what TestMain calls in a package with tests that use Run. It does not return.
func Main(m *testing.M) {
	if !Inside() {
		os.Exit(m.Run())
	}
	code := 1
	if err := prepare(); err != nil {
		fmt.Fprintf(os.Stderr, "guesttest: %v\n", err)
	} else {
		code = m.Run()
	}
	fmt.Printf("%s%d\n", verdict, code)
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Fprintf(os.Stderr, "guesttest: power off: %v\n", err)
	}
	os.Exit(code) // The end of PID 1 panics the kernel: a guest never stays behind.
}

// prepare makes a fresh initramfs a place for tests, and sends their words to the second serial port, where the kernel's
// do not get in between.
func prepare() error {
	for _, m := range []struct{ kind, at string }{{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"}, {"tmpfs", "/tmp"}} {
		if err := os.MkdirAll(m.at, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.at, m.kind, 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	port, err := os.OpenFile(results, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return fmt.Errorf("open the port for results: %w", err)
	}
	for _, fd := range []int{1, 2} {
		if err := unix.Dup3(int(port.Fd()), fd, 0); err != nil {
			return fmt.Errorf("redirect output: %w", err)
		}
	}
	list, err := os.ReadFile("/" + moduleList)
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(string(list)) {
		if err := load(name); err != nil {
			return fmt.Errorf("load module %s: %w", name, err)
		}
	}
	return nil
}

func load(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), "", 0)
}
