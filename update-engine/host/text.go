package host

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// LetGo takes the program's own instructions and constants out of this process's memory: what it needed to begin with, and does not need any
// more. Those that it goes on with are mapped again as they are used (they are in the page cache, clean), so it costs a few faults, and can be
// called at any time. Only what nobody can have written to is let go of: constants of a program that is relocated when it starts (ET_DYN in its
// ELF header) are not, for they would come back as they were before.
func LetGo() error {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("let go of the program's pages: %w", err)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return fmt.Errorf("let go of the program's pages: %w", err)
	}
	fixed, err := isFixed("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("let go of the program's pages: %w", err)
	}
	for line := range strings.Lines(string(maps)) {
		fields := strings.Fields(line)
		if len(fields) < 6 || fields[1] != "r-xp" && (fields[1] != "r--p" || !fixed) || !strings.HasSuffix(strings.TrimSpace(line), program) {
			continue
		}
		from, to, _ := strings.Cut(fields[0], "-")
		begin, beginErr := strconv.ParseUint(from, 16, 64)
		end, endErr := strconv.ParseUint(to, 16, 64)
		if beginErr != nil || endErr != nil || end <= begin {
			return fmt.Errorf("let go of the program's pages: unexpected line %q in /proc/self/maps", strings.TrimSpace(line))
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, uintptr(begin), uintptr(end-begin), unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("let go of the program's pages: madvise: %w", errno)
		}
	}
	return nil
}

// isFixed reports whether a program is of type ET_EXEC (elf(5)), for little-endian machines.
func isFixed(name string) (bool, error) {
	f, err := os.Open(name)
	if err != nil {
		return false, err
	}
	defer f.Close()
	header := make([]byte, 18)
	if _, err := io.ReadFull(f, header); err != nil {
		return false, err
	}
	return binary.LittleEndian.Uint16(header[16:]) == 2, nil
}

// SmallPages starts this program anew, as the same process, without transparent huge pages; if it runs without them, it returns. A Go program
// reserves a dozen large areas and uses some KB of each: a kernel that gives huge pages to everybody, as Debian's does, puts 2 MB there. What this
// process starts has none either (PR_SET_THP_DISABLE, prctl(2)). After an error the program goes on as it is.
func SmallPages() error {
	without, err := unix.PrctlRetInt(unix.PR_GET_THP_DISABLE, 0, 0, 0, 0)
	if err != nil || without == 1 {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_THP_DISABLE, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("do without huge pages: %w", err)
	}
	return unix.Exec(program, os.Args, os.Environ())
}
