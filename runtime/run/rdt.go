package run

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// resctrl finds the file system of linux.intelRdt (the kernel's arch/x86/resctrl.rst).
func resctrl() (string, error) {
	b, err := readFile("/proc/thread-self/mountinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		before, after, ok := strings.Cut(line, " - ")
		if f := strings.Fields(before); ok && len(f) >= 5 && strings.HasPrefix(after, "resctrl ") {
			return f[4], nil
		}
	}
	return "", errors.New("linux.intelRdt: no resctrl file system is mounted on this machine")
}

// joinRdt makes and fills what linux.intelRdt asks for below the directory top, and puts process pid into it. It returns the directory
// whose tasks file is the container's, and those that are to be removed with it, which are also there after an error.
func joinRdt(top, id string, r *specs.LinuxIntelRdt, pid int) (dir string, made []string, err error) {
	dir = filepath.Join(top, id)
	if r.ClosID != "" {
		dir = filepath.Join(top, r.ClosID)
	}
	lines := make([]string, 0, 2+len(r.Schemata))
	for _, l := range append([]string{r.L3CacheSchema, r.MemBwSchema}, r.Schemata...) {
		if l != "" {
			lines = append(lines, l)
		}
	}
	err = os.Mkdir(dir, 0o755)
	exists := errors.Is(err, fs.ErrExist)
	switch {
	case err == nil && r.ClosID != "" && len(lines) == 0:
		os.Remove(dir)
		return dir, nil, fmt.Errorf("linux.intelRdt.closID: %s is not there, and there is nothing to make it of", dir)
	case err == nil && r.ClosID == "":
		made = append(made, dir)
	case exists && r.ClosID == "":
		return dir, nil, fmt.Errorf("linux.intelRdt: %s is there already: set closID to use it", dir)
	case err != nil && !exists:
		return dir, nil, fmt.Errorf("linux.intelRdt: %w", err)
	}
	if exists {
		err = compareSchemata(filepath.Join(dir, "schemata"), lines)
	} else {
		err = writeSchemata(filepath.Join(dir, "schemata"), lines)
	}
	if err != nil {
		return dir, made, err
	}
	if r.EnableMonitoring {
		mon := filepath.Join(dir, "mon_groups", id)
		if err := os.Mkdir(mon, 0o755); err != nil {
			return dir, made, fmt.Errorf("linux.intelRdt.enableMonitoring: %w", err)
		}
		made = append([]string{mon}, made...)
		if err := setFile(filepath.Join(dir, "tasks"), strconv.Itoa(pid)); err != nil {
			return dir, made, fmt.Errorf("linux.intelRdt: %w", err)
		}
		dir = mon
	}
	if err := setFile(filepath.Join(dir, "tasks"), strconv.Itoa(pid)); err != nil {
		return dir, made, fmt.Errorf("linux.intelRdt: %w", err)
	}
	return dir, made, nil
}

// writeSchemata writes all lines at once: the kernel takes a change as a whole.
func writeSchemata(file string, lines []string) error {
	if len(lines) == 0 {
		return nil
	}
	if err := setFile(file, strings.Join(lines, "\n")+"\n"); err != nil {
		return fmt.Errorf("linux.intelRdt: write schemata: %w", err)
	}
	return nil
}

// compareSchemata wants each value that lines name in the file.
func compareSchemata(file string, lines []string) error {
	if len(lines) == 0 {
		return nil
	}
	b, err := readFile(file)
	if err != nil {
		return fmt.Errorf("linux.intelRdt: %w", err)
	}
	has := schemata(string(b))
	for key, want := range schemata(strings.Join(lines, "\n")) {
		if has[key] != want {
			return fmt.Errorf("linux.intelRdt: %s has %s=%s, and config.json wants %s", file, key, has[key], want)
		}
	}
	return nil
}

// schemata reads lines such as "L3:0=7f;1=1f" as values by "L3:0".
func schemata(text string) map[string]string {
	out := make(map[string]string)
	for line := range strings.Lines(text) {
		resource, values, _ := strings.Cut(strings.TrimSpace(line), ":")
		for v := range strings.SplitSeq(values, ";") {
			id, value, _ := strings.Cut(v, "=")
			out[resource+":"+strings.TrimSpace(id)] = strings.TrimLeft(strings.TrimSpace(value), "0")
		}
	}
	return out
}
