package lock

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/testenv"
)

func TestMeterLine(t *testing.T) {
	half := snapshot{files: 138, filesOK: 63, total: 168 << 20, done: 84 << 20, received: 42 << 20, elapsed: 21 * time.Second}
	for _, tc := range []struct {
		name    string
		s       snapshot
		columns int
		want    string
	}{
		{"wide", half, 200, " 50% [####################--------------------] 63 of 138 packages, 84.0 MiB of 168.0 MiB, 2.0 MiB/s, 42s left"},
		{"a usual window", half, 80, " 50% [####-----] 63 of 138 packages, 84.0 MiB of 168.0 MiB, 2.0 MiB/s, 42s left"},
		{"a narrower one", half, 72, " 50% [##########-----------] 84.0 MiB of 168.0 MiB, 2.0 MiB/s, 42s left"},
		{"narrow", half, 40, " 50% [######------] 2.0 MiB/s, 42s left"},
		{"very narrow", half, 28, " 50% [#####-----] 2.0 MiB/s"},
		{"tiny", half, 10, " 50%"},
		{"three columns", half, 3, " 5"},
		{"no column", half, 0, ""},
		{"at the beginning", snapshot{files: 1, total: 10 << 20}, 80, "  0% [------------------------] 0 of 1 packages, 0.0 MiB of 10.0 MiB, 0.0 MiB/s"},
		{"resumed, nothing came yet", snapshot{files: 1, total: 10 << 20, done: 5 << 20, elapsed: time.Minute}, 60, " 50% [##########-----------] 5.0 MiB of 10.0 MiB, 0.0 MiB/s"},
		{"crawling", snapshot{files: 1, total: 1 << 50, done: 1, received: 1, elapsed: time.Hour}, 45, "  0% [-------------] 0.0 MiB/s, 24h0m0s left"},
		{"done", snapshot{files: 2, filesOK: 2, total: 10 << 20, done: 10 << 20, received: 10 << 20, elapsed: 2 * time.Second}, 90,
			"100% [#################################] 2 of 2 packages, 10.0 MiB of 10.0 MiB, 5.0 MiB/s"},
		{"counted twice", snapshot{files: 1, total: 10, done: 11}, 36, "100% [##################] 0.0 MiB/s"},
		{"lost again", snapshot{files: 1, total: 10, done: -5}, 36, "  0% [------------------] 0.0 MiB/s"},
	} {
		got := tc.s.line(tc.columns)
		if got != tc.want {
			t.Errorf("%s:\ngot  %q\nwant %q", tc.name, got, tc.want)
		}
	}
	for columns := range 300 {
		if got := half.line(columns); len(got) > max(columns-1, 0) {
			t.Errorf("%d columns: got %d characters: %q", columns, len(got), got)
		}
	}
}

// openTerminal returns both ends of a pseudo terminal with so many columns.
func openTerminal(t *testing.T, columns int) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		testenv.Missing(t, "on a terminal: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: uint16(columns)})
	}
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		testenv.Missing(t, "on a terminal: %v", err)
	}
	return master, slave
}

// TestMeterTerminal: on a terminal there is one line that is rewritten, fits its columns, and ends in a newline.
func TestMeterTerminal(t *testing.T) {
	for _, columns := range []int{30, 80} {
		master, slave := openTerminal(t, columns)
		t.Setenv("TERM", "xterm")
		m := newMeter(slave, 3, 3<<20)
		m.Write(make([]byte, 1<<20))
		m.print()
		m.Write(make([]byte, 2<<20))
		m.close()
		slave.Close()
		b, err := io.ReadAll(master) // ends in EIO once the slave is closed
		if len(b) == 0 {
			t.Fatalf("nothing came: %v", err)
		}
		text := string(b)
		if strings.Count(text, "\n") != 1 || !strings.HasSuffix(text, "\r\n") {
			t.Errorf("got %q, want one line", text)
		}
		for state := range strings.SplitSeq(strings.TrimSuffix(text, "\r\n"), "\r\x1b[K") {
			if len(state) >= columns {
				t.Errorf("%d columns: got %q of %d", columns, state, len(state))
			}
		}
		if !strings.Contains(text, "33% [") || !strings.Contains(text, "100% [#") {
			t.Errorf("got %q, want 33%% and 100%%", text)
		}
	}
}

func TestMeterDumbTerminal(t *testing.T) {
	master, slave := openTerminal(t, 80)
	t.Setenv("TERM", "dumb")
	m := newMeter(slave, 1, 1<<20)
	m.close()
	slave.Close()
	if b, _ := io.ReadAll(master); strings.Contains(string(b), "\x1b") || !strings.Contains(string(b), "fetched 0 of 1 packages") {
		t.Errorf("got %q, want plain lines", b)
	}
}
