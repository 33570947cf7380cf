package stage

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A file system that really is full: the screen says how much is missing and what to do, nothing is there by half, and once there is
// room the next boot completes the work, the file that only gets something appended too.
func TestFullDisk(t *testing.T) {
	const size = 1 << 20
	big, more := strings.Repeat("x", size), strings.Repeat("y", size/2)
	m, o, dir := machine(t, `{"ignition":{"version":"3.4.0"},
"storage":{"files":[{"path":"/etc/first","contents":{"source":"data:,first"}},
{"path":"/etc/grows","append":[{"source":"data:,`+more+`"}]},
{"path":"/etc/big","contents":{"source":"data:,`+big+`"}}]}}`)
	root, etc := dir+"/root", dir+"/root/etc"
	full(t, root) // with the journal, and what it keeps of files
	put(t, dir, "root/etc/grows", "old\n")
	run := func() error {
		o.Stage = "fetch-offline,files"
		return Run(t.Context(), m, o)
	}
	for _, step := range []struct {
		file, path string
		size       int
		room       string // of the file system afterwards
	}{
		{"/etc/grows", "storage.files[1].path", len("old\n") + size/2, "1m"},
		{"/etc/big", "storage.files[2].path", size, "4m"},
	} {
		if err := run(); err == nil {
			t.Fatalf("%s fits into a file system that is too small", step.file)
		}
		b, err := os.ReadFile(o.Failure)
		screen := Screen(string(b))
		for _, want := range []string{"config:    fw_cfg opt/com.coreos/config\n", "path:      " + step.path + "\n", "write file " + step.file + ": the file system is full\n",
			fmt.Sprintf("expected:  room for %d bytes\n", step.size), "next step: make room or use a larger disk"} {
			if err != nil || !strings.Contains(screen, want) {
				t.Errorf("want %q on the screen: %v\n%s", want, err, screen)
			}
		}
		missing := regexp.MustCompile(`found:     (\d+) bytes missing\n`).FindStringSubmatch(screen)
		if lines := strings.Count(screen, "\n"); missing == nil || lines > 24 || strings.Contains(screen, "xxx") {
			t.Fatalf("want the missing bytes on one screen, got %d lines:\n%s", lines, screen)
		}
		if n, err := strconv.Atoi(missing[1]); err != nil || n < step.size/4 || n >= step.size {
			t.Errorf("%s: got %s bytes missing of %d", step.file, missing[1], step.size)
		}
		wholeFiles(t, etc, map[string]string{"first": "first", "grows": "old\n" + more, "big": big}, "old\n")
		if _, err := os.Stat(filepath.Join(dir, "root", Marker)); err == nil {
			t.Error("it counts as provisioned")
		}
		if err := unix.Mount("", root, "", unix.MS_REMOUNT, "size="+step.room); err != nil {
			t.Fatal(err)
		}
	}
	if err := run(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"first": "first", "grows": "old\n" + more, "big": big} {
		if got, err := os.ReadFile(filepath.Join(etc, name)); string(got) != want {
			t.Errorf("%s: got %d bytes, %v, want %d", name, len(got), err, len(want))
		}
	}
}

// wholeFiles fails if anything in dir is neither as it was nor as it becomes, or has a name that neither has.
func wholeFiles(t *testing.T, dir string, after map[string]string, before ...string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(name)
		rel, _ := filepath.Rel(dir, name)
		want, ours := after[rel]
		switch {
		case !ours:
			t.Errorf("%s is left over", rel)
		case string(b) != want && !slices.Contains(before, string(b)):
			t.Errorf("%s is there by half: %d bytes", rel, len(b))
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
