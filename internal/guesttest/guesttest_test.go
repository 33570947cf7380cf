package guesttest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/testenv"
)

func TestMain(m *testing.M) { Main(m) }

// TestRun shows what a guest has: root, modules, disks, files, environment; and that its subtests are seen.
func TestRun(t *testing.T) {
	text := []byte("from the host\n")
	if Inside() {
		t.Run("root", func(t *testing.T) {
			if os.Getpid() != 1 || os.Getuid() != 0 {
				t.Errorf("got process %d of user %d", os.Getpid(), os.Getuid())
			}
		})
		t.Run("disk", func(t *testing.T) {
			disk, err := os.OpenFile("/dev/vda", os.O_RDWR|unix.O_SYNC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer disk.Close()
			got := make([]byte, len(text))
			if _, err := disk.ReadAt(got, 0); err != nil || !bytes.Equal(got, text) {
				t.Errorf("got %q, %v, want %q", got, err, text)
			}
			if _, err := disk.WriteAt([]byte("from the guest"), 4096); err != nil {
				t.Fatal(err)
			}
			if err := unix.Mount("/dev/vdb", "/tmp", "ext4", 0, ""); err == nil {
				t.Error("mounted an empty disk")
			}
		})
		t.Run("files", func(t *testing.T) {
			if b, err := os.ReadFile("/data/file"); err != nil || !bytes.Equal(b, text) {
				t.Errorf("got %q, %v", b, err)
			}
			if got := os.Getenv("LAB"); got != "x=y" {
				t.Errorf("got LAB=%q", got)
			}
			t.Log("a word from the guest")
		})
		return
	}
	testenv.Machines(t)
	dir := t.TempDir()
	disk, other := filepath.Join(dir, "with, comma"), filepath.Join(dir, "other")
	for file, content := range map[string][]byte{disk: text, other: nil} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(file, 1<<20); err != nil {
			t.Fatal(err)
		}
	}
	console := Run(t, Machine{
		Modules: []string{"virtio-blk", "ext4"}, Disks: []Disk{{File: disk}, {File: other}},
		Files: map[string][]byte{"data/file": text}, Env: map[string]string{"LAB": "x=y"},
	})
	if !strings.Contains(console, "EXT4-fs") {
		t.Errorf("the kernel's words are missing:\n%s", console)
	}
	b, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(b[4096:], []byte("from the guest")) {
		t.Errorf("got %q on the disk", b[4096:4110])
	}
}

// TestFailuresAreSeen runs tests that go wrong in their guests: each must fail on the host and say why.
func TestFailuresAreSeen(t *testing.T) {
	testenv.Machines(t)
	for name, want := range map[string][]string{
		"subtest": {"--- FAIL: TestWrong/inner", "wrong on purpose"},
		"panics":  {"panic: wrong on purpose", "the guest's kernel panicked: Attempted to kill init"},
		"hangs":   {"the guest did not end within 4s"},
		"skips":   {"the test skipped itself in the guest"},
		"warns":   {"the guest's kernel is not content"},
		"nopanic": {`got no panic in the guest, want "of another kind"`},
		"other":   {`in the guest, want "of another kind"`},
		"module":  {"the tools tree's kernel has none of this name"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestWrong$", "-test.v")
			cmd.Env = append(os.Environ(), "PROA_TEST_WRONG="+name)
			out, err := cmd.CombinedOutput()
			if err == nil {
				t.Errorf("it passed:\n%s", out)
			}
			for _, w := range want {
				if !strings.Contains(string(out), w) {
					t.Errorf("got no %q in\n%s", w, out)
				}
			}
		})
	}
}

// TestWrong is run by TestFailuresAreSeen.
func TestWrong(t *testing.T) {
	if !Inside() {
		m := Machine{Env: map[string]string{"PROA_TEST_WRONG": os.Getenv("PROA_TEST_WRONG")}}
		switch os.Getenv("PROA_TEST_WRONG") {
		case "":
			t.Skip("run by TestFailuresAreSeen")
		case "hangs":
			m.Deadline = 4 * time.Second
		case "nopanic", "other":
			m.Panic = "of another kind"
		case "module":
			m.Modules = []string{"no_such_module"}
		}
		Run(t, m)
		return
	}
	switch os.Getenv("PROA_TEST_WRONG") {
	case "subtest":
		t.Run("inner", func(t *testing.T) { t.Fatal("wrong on purpose") })
	case "panics":
		panic("wrong on purpose")
	case "hangs":
		time.Sleep(time.Hour)
	case "skips":
		t.Skip("wrong on purpose")
	case "warns":
		if err := os.WriteFile("/dev/kmsg", []byte("<4>WARNING: CPU: 0 PID: 1 at kernel/wrong.c:1\n"), 0); err != nil {
			t.Fatal(err)
		}
	case "other":
		if err := os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0); err != nil {
			t.Fatal(err)
		}
	}
}

func TestParse(t *testing.T) {
	const said = `=== RUN   TestX
    x_test.go:1: before
=== RUN   TestX/a
    x_test.go:2: in a
=== RUN   TestX/a/deep
    x_test.go:3: in deep
=== RUN   TestX/b
    x_test.go:4: in b
=== NAME  TestX
    x_test.go:5: after
--- FAIL: TestX (0.10s)
    --- FAIL: TestX/a (0.00s)
        --- FAIL: TestX/a/deep (0.00s)
    --- SKIP: TestX/b (0.00s)
FAIL
guesttest: exit status 1
`
	r := parse(said, "TestX")
	if r.status != "FAIL" || r.exit != "1" || r.log != "    x_test.go:1: before\n    x_test.go:5: after\n" || len(r.subtests) != 2 {
		t.Fatalf("got %+v", r)
	}
	a, b := r.subtests[0], r.subtests[1]
	if a.name != "a" || a.status != "FAIL" || a.log != "    x_test.go:2: in a\n    x_test.go:3: in deep\n        --- FAIL: TestX/a/deep (0.00s)\n" {
		t.Errorf("got %+v", a)
	}
	if b.name != "b" || b.status != "SKIP" || b.log != "    x_test.go:4: in b\n" {
		t.Errorf("got %+v", b)
	}
	if cut := parse(said[:60], "TestX"); cut.status != "" || cut.exit != "" {
		t.Errorf("got %+v of output that ends early", cut)
	}
	if got := failures(said); len(got) != 3+1 {
		t.Errorf("got %q", got)
	}
}
