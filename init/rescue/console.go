// Package rescue is what init says, and what it does when it cannot go on.
//
// A Console writes lines to the kernel's log (/dev/kmsg), which the kernel shows on every console and which the journal
// keeps. Messages about failures also appear when the kernel is told to be quiet: then they go to each console directly.
// Before devtmpfs is mounted there is only the console the kernel opened for process 1.
//
// Run is the frame around the boot: whatever ends it, an error or a panic, is shown, and the machine reboots.
package rescue

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// prefix begins every line, so that a console log can be searched for it.
const prefix = "proa: init: "

// Kernel log levels (linux/kern_levels.h). A step is visible unless the command line says quiet, which sets the console
// to 4; a failure is at a level that even quiet shows.
const (
	levelError  = 3
	levelNotice = 5
)

// maxLine keeps a line below what /dev/kmsg takes in one write (kernel/printk, PRINTKRB_RECORD_MAX, 1024).
const maxLine = 900

// A Console writes to the machine's consoles. It is for one goroutine.
type Console struct {
	root   string
	stderr io.Writer
	kmsg   *os.File // nil until it can be opened; kept, so that it survives switching the root
	step   string
}

// NewConsole returns the Console of the machine whose /dev, /proc and /sys are below root.
func NewConsole(root string) *Console { return &Console{root: root, stderr: os.Stderr} }

// Step says what is done next. The last step on a console names the culprit of a hang.
func (c *Console) Step(format string, args ...any) {
	c.step = fmt.Sprintf(format, args...)
	c.write(levelNotice, c.step)
}

// Note adds a fact to the step.
func (c *Console) Note(format string, args ...any) {
	c.write(levelNotice, fmt.Sprintf(format, args...))
}

// Fail says that the step ended with err.
func (c *Console) Fail(err error) {
	c.write(levelError, fmt.Sprintf("FAILED while %s: %v", c.step, err))
}

// write writes text, one log record per line and at most maxLine bytes.
func (c *Console) write(level int, text string) {
	for _, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		for len(line) > maxLine {
			c.writeLine(level, line[:maxLine])
			line = line[maxLine:]
		}
		c.writeLine(level, line)
	}
}

func (c *Console) writeLine(level int, line string) {
	if !c.openKmsg() {
		fmt.Fprintf(c.stderr, "%s%s\r\n", prefix, line)
		return
	}
	_, err := fmt.Fprintf(c.kmsg, "<%d>%s%s\n", level, prefix, line)
	if err == nil && (level > levelError || c.kernelShows(level)) {
		return
	}
	for _, path := range c.consoles() {
		c.writeConsole(path, line)
	}
}

// openKmsg opens the kernel's log once it is there, and lifts the limit of ten lines in five seconds that the
// kernel sets for it (Documentation/admin-guide/sysctl/kernel.rst, printk_devkmsg).
func (c *Console) openKmsg() bool {
	if c.kmsg != nil {
		return true
	}
	f, err := os.OpenFile(c.path("dev/kmsg"), os.O_WRONLY, 0)
	if err != nil {
		return false
	}
	c.kmsg = f
	// Without it lines may be missing, which is no reason not to boot.
	_ = os.WriteFile(c.path("proc/sys/kernel/printk_devkmsg"), []byte("on\n"), 0)
	return true
}

// kernelShows reports whether the kernel prints messages of the level on its consoles: those below the first number.
func (c *Console) kernelShows(level int) bool {
	b, err := os.ReadFile(c.path("proc/sys/kernel/printk"))
	if err != nil {
		return false
	}
	fields := strings.Fields(string(b))
	if len(fields) == 0 {
		return false
	}
	limit, err := strconv.Atoi(fields[0])
	return err == nil && level < limit
}

// consoles returns the device nodes of all consoles; "tty0" is the screen.
func (c *Console) consoles() []string {
	b, err := os.ReadFile(c.path("sys/class/tty/console/active"))
	if err != nil || len(strings.Fields(string(b))) == 0 {
		return []string{c.path("dev/console")}
	}
	var paths []string
	for _, name := range strings.Fields(string(b)) {
		paths = append(paths, c.path("dev/"+name))
	}
	return paths
}

// writeConsole leaves out a console that cannot be written to: the others may work.
func (c *Console) writeConsole(path, line string) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer f.Close()
	fmt.Fprintf(f, "%s%s\r\n", prefix, line)
}

func (c *Console) path(name string) string { return filepath.Join(c.root, name) }
