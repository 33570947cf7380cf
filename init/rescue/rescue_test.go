package rescue

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// machine returns a Console and the files it writes to.
func machine(t *testing.T, printk string) (c *Console, read func(name string) string, stderr *bytes.Buffer) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{
		"dev/kmsg": "", "dev/tty0": "", "dev/ttyS0": "", "dev/console": "", "proc/sys/kernel/printk_devkmsg": "ratelimit\n",
		"proc/sys/kernel/printk": printk, "sys/class/tty/console/active": "tty0 missing0 ttyS0\n",
	} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	stderr = &bytes.Buffer{}
	return &Console{root: dir, stderr: stderr}, func(name string) string {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}, stderr
}

func TestConsole(t *testing.T) {
	const failure = "proa: init: FAILED while loading modules: no such file"
	for name, tt := range map[string]struct{ printk, tty string }{
		"loud":       {"7\t4\t1\t7\n", ""},
		"quiet":      {"4\t4\t1\t7\n", ""},
		"very quiet": {"1\t4\t1\t7\n", failure + "\r\n"},
		"unknown":    {"", failure + "\r\n"},
	} {
		c, read, stderr := machine(t, tt.printk)
		c.Step("loading %s", "modules")
		c.Fail(errors.New("no such file"))
		if got, want := read("dev/kmsg"), "<5>proa: init: loading modules\n<3>"+failure+"\n"; got != want {
			t.Errorf("%s: kmsg got %q, want %q", name, got, want)
		}
		for _, tty := range []string{"dev/tty0", "dev/ttyS0"} {
			if got := read(tty); got != tt.tty {
				t.Errorf("%s: %s got %q, want %q", name, tty, got, tt.tty)
			}
		}
		if got := read("proc/sys/kernel/printk_devkmsg"); got != "on\n" {
			t.Errorf("the kernel's limit of lines is %q", got)
		}
		if stderr.Len() != 0 {
			t.Errorf("%s: standard error got %q", name, stderr)
		}
	}
}

// Before devtmpfs is mounted there is only what the kernel opened.
func TestConsoleEarly(t *testing.T) {
	var stderr bytes.Buffer
	c := &Console{root: t.TempDir(), stderr: &stderr}
	c.Step("mounting")
	if got := stderr.String(); got != "proa: init: mounting\r\n" {
		t.Errorf("got %q", got)
	}
}

func TestConsoleLines(t *testing.T) {
	c, read, _ := machine(t, "7\n")
	c.Note("a\n%s\n", strings.Repeat("x", maxLine+1))
	want := "<5>proa: init: a\n<5>proa: init: " + strings.Repeat("x", maxLine) + "\n<5>proa: init: x\n"
	if got := read("dev/kmsg"); got != want {
		t.Errorf("got %q", got)
	}
}

func TestAttempt(t *testing.T) {
	if err := attempt(func() error { return os.ErrNotExist }); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if err := attempt(func() error { return nil }); err == nil {
		t.Error("a boot that ends is a failure")
	}
	err := attempt(func() error { var m map[string]int; m["x"] = 1; return nil })
	if err == nil || !strings.Contains(err.Error(), "panic: assignment to entry in nil map") || !strings.Contains(err.Error(), "rescue_test.go") {
		t.Errorf("panic: got %v", err)
	}
}
