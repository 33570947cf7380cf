package fat

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/testenv"
)

func TestFsck(t *testing.T) {
	tools := testenv.Tools(t)
	for _, o := range []Options{options(34 * mib), options(259 * mib), options(512 * mib), large(257 * mib), large(512 * mib)} {
		out, err := tools.Command(t.Context(), "fsck.fat", "-n", "-v", image(t, o, esp())).CombinedOutput()
		// A complaint would stand between these lines.
		_, tail, _ := strings.Cut(string(out), "Checking for unused clusters.\n")
		lines := strings.Split(strings.TrimSpace(tail), "\n")
		if err != nil || len(lines) != 2 || lines[0] != "Checking free cluster summary." || !strings.Contains(lines[1], ": 12 files, ") {
			t.Errorf("%d bytes: fsck.fat: %v\n%s", o.Size, err, out)
		}
		if want := fmt.Sprintf("%d bytes per logical sector", o.SectorSize); !strings.Contains(string(out), want) {
			t.Errorf("fsck.fat does not see %s:\n%s", want, out)
		}
	}
}

// mtools must see the names and contents, and Open must read what mtools changed.
func TestMtools(t *testing.T) {
	for _, o := range []Options{options(64 * mib), large(512 * mib)} {
		t.Run(fmt.Sprint(o.SectorSize), func(t *testing.T) { mtools(t, image(t, o, esp())) })
	}
}

func mtools(t *testing.T, path string) {
	tools := testenv.Tools(t)
	run := func(program string, args ...string) string {
		t.Helper()
		out, err := tools.Command(t.Context(), program, append([]string{"-i", path}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v\n%s", program, args, err, out)
		}
		return string(out)
	}
	listing := run("mdir", "-/", "-b", "-a", "::/")
	for _, f := range esp() {
		if name := "::/" + strings.TrimPrefix(f.Path, "/"); !strings.Contains(listing, name+"\n") {
			t.Errorf("mdir does not show %s:\n%s", name, listing)
		}
	}
	if out := run("mdir", "::/EFI/Linux"); !strings.Contains(out, "PROA-ESP") || !strings.Contains(out, "1234-ABCD") ||
		!strings.Contains(out, "250005 2025-11-01  12:34  proa_1.0.1+3.efi") {
		t.Errorf("mdir shows\n%s", out)
	}
	if got := run("mtype", "::/loader/loader.conf"); got != "timeout 0\nconsole-mode keep\n" {
		t.Errorf("mtype shows %q", got)
	}
	want := strings.Repeat("linux", 50_001)
	if got := run("mtype", "::/EFI/Linux/proa_1.0.1+3.efi"); got != want {
		t.Errorf("mtype shows %d bytes, want %d", len(got), len(want))
	}

	src := filepath.Join(t.TempDir(), "src")
	if err := os.WriteFile(src, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	run("mren", "::/EFI/Linux/proa_1.0.1+3.efi", "proa_1.0.1+2-1.efi")
	run("mcopy", src, "::/EFI/Linux/lower.efi")
	run("mdel", "::/EFI/Linux/proa_1.0.0.efi")
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fs, err := Open(f)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := fs.ReadDir("EFI/Linux")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name)
	}
	if got, want := strings.Join(names, " "), "lower.efi proa_1.0.1+2-1.efi proa_1.1.0~rc.1+2-1.efi"; got != want {
		t.Errorf("after mtools: %s, want %s", got, want)
	}
	if b, err := fs.ReadFile("EFI/Linux/lower.efi"); err != nil || string(b) != "new" {
		t.Errorf("lower.efi: %q, %v", b, err)
	}
}

// Open must read what mkfs.fat made.
func TestMkfs(t *testing.T) {
	tools := testenv.Tools(t)
	for _, sector := range []string{"512", "4096"} {
		path := filepath.Join(t.TempDir(), "esp")
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, 300*mib); err != nil {
			t.Fatal(err)
		}
		if out, err := tools.Command(t.Context(), "mkfs.fat", "-F32", "-S", sector, "-n", "OTHER", "-i", "cafe0123", path).CombinedOutput(); err != nil {
			t.Fatalf("mkfs.fat: %v\n%s", err, out)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		fs, err := Open(f)
		if err != nil {
			t.Fatal(err)
		}
		if got := fs.Options(); got.Label != "OTHER" || got.Serial != 0xcafe0123 || fmt.Sprint(got.SectorSize) != sector {
			t.Errorf("options %+v, want label OTHER, serial number cafe0123 and sectors of %s", got, sector)
		}
		if entries, err := fs.ReadDir("/"); err != nil || len(entries) != 0 {
			t.Errorf("root directory: %v, %v", entries, err)
		}
	}
}
