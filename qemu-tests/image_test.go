package qemutests

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/gpt"
	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/internal/uki"
)

// TestImageJudges lets programs of other people read every format of a built release.
func TestImageJudges(t *testing.T) {
	s := begin(t)
	image := s.image("1.0.0", "")
	tools := testenv.Tools(t)
	root := filepath.Join(image.Dir, "root.img")
	r := image.Release

	judge := func(stdin io.Reader, want, program string, args ...string) {
		t.Helper()
		cmd := tools.Command(t.Context(), program, args...)
		cmd.Stdin = stdin
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s %s: %v, want %q in\n%s", program, strings.Join(args, " "), err, want, out)
		}
	}
	judge(nil, "", "fsck.erofs", root)
	judge(nil, "Command successful", "veritysetup", "verify", "-v", fmt.Sprintf("--hash-offset=%d", r.Root.HashOffset), root, root, r.Root.RootHash.String())
	for _, sectorSize := range []string{"--sector-size=512", "--sector-size=4096"} {
		judge(nil, "No errors detected", "sfdisk", sectorSize, "--verify", image.Disk())
		judge(nil, `name="root-a"`, "sfdisk", sectorSize, "--dump", image.Disk())
	}

	disk, err := os.Open(image.Disk())
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	fi, err := disk.Stat()
	if err != nil {
		t.Fatal(err)
	}
	table, err := gpt.Read(disk, fi.Size(), 512)
	if err != nil {
		t.Fatal(err)
	}
	part := func(name string) *io.SectionReader {
		t.Helper()
		p, err := table.Find(name)
		if err != nil {
			t.Fatal(err)
		}
		return io.NewSectionReader(disk, table.Offset(p), table.Size(p))
	}
	esp := filepath.Join(t.TempDir(), "esp.img")
	copyTo(t, esp, part("esp"))
	judge(nil, "esp.img", "fsck.fat", "-n", esp)
	judge(nil, "proa_1.0.0.efi", "mdir", "-b", "-i", esp, "::/EFI/Linux")

	boot := filepath.Join(image.Dir, "boot.efi")
	judge(nil, ".initrd", "objdump", "-h", boot)
	f, err := os.Open(boot)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	program, err := uki.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	initrd, err := program.Section(".initrd")
	if err != nil {
		t.Fatal(err)
	}
	judge(initrd, "etc/proa/modules", "cpio", "-it")

	// What the release says is what the disk holds.
	got, _, err := digest.OfReader(io.LimitReader(part("root-a"), r.Root.Size))
	if err != nil || got != r.Root.SHA256 {
		t.Errorf("slot A holds %s, %v, want root image %s", got, err, r.Root.SHA256)
	}
	if got, _, err := digest.OfReader(f); err != nil || got != r.Boot.SHA256 {
		t.Errorf("boot.efi is %s, %v, want %s", got, err, r.Boot.SHA256)
	}
}

func copyTo(t *testing.T, name string, r io.Reader) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.Copy(f, r); err != nil {
		t.Fatal(err)
	}
}

// TestSameBytes builds the same release from a copy of the checkout elsewhere, in another time zone and with another umask:
// every file must be the same.
func TestSameBytes(t *testing.T) {
	s := begin(t)
	image := s.image("1.0.0", "")
	elsewhere := filepath.Join(s.dir, "elsewhere")
	archive := exec.CommandContext(t.Context(), "sh", "-c", `umask 077 && mkdir -p "$1" && git ls-files -z --cached --others --exclude-standard | tar --null --ignore-failed-read -T - -c 2>/dev/null | tar -x -C "$1"`, "sh", elsewhere)
	archive.Dir = s.repo
	if out, err := archive.CombinedOutput(); err != nil {
		t.Fatalf("copy the checkout: %v\n%s", err, out)
	}
	build := exec.CommandContext(t.Context(), "sh", "-c", "umask 077 && exec go run ./image-builder/cmd/image-builder build --version 1.0.0 --out built")
	build.Dir = elsewhere
	build.Env = append(os.Environ(), "TZ=Pacific/Auckland", "LC_ALL=C")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build elsewhere: %v\n%s", err, out)
	}
	for _, name := range []string{"root.img", "boot.efi", "disk.img", "release.json"} {
		a, errA := os.Open(filepath.Join(image.Dir, name))
		b, errB := os.Open(filepath.Join(elsewhere, "built", name))
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		if at, err := firstDifference(a, b); err != nil || at >= 0 {
			t.Errorf("%s: %v, the builds differ from byte %d on", name, err, at)
		}
		a.Close()
		b.Close()
	}
}

// firstDifference returns -1 if a and b yield the same bytes.
func firstDifference(a, b io.Reader) (int64, error) {
	bufA, bufB := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := int64(0); ; {
		n, errA := io.ReadFull(a, bufA)
		m, errB := io.ReadFull(b, bufB)
		if !bytes.Equal(bufA[:n], bufB[:m]) {
			for i := range min(n, m) {
				if bufA[i] != bufB[i] {
					return at + int64(i), nil
				}
			}
			return at + int64(min(n, m)), nil
		}
		at += int64(n)
		if errA == io.EOF || errA == io.ErrUnexpectedEOF {
			return -1, nil
		}
		if errA != nil || errB != nil {
			return at, fmt.Errorf("%v, %v", errA, errB)
		}
	}
}
