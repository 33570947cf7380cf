package extent

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/internal/tooltree"
)

// files of every size at which a layout changes.
func hostTree(t *testing.T) (dir string, contents map[string][]byte) {
	t.Helper()
	dir, contents = t.TempDir(), map[string][]byte{}
	r := rand.NewChaCha8([32]byte{1})
	for i, n := range []int{0, 1, 2000, 4031, 4032, 4095, 4096, 4097, 8192, 12_000, 300_000} {
		for _, d := range []string{".", "usr/lib", "usr/lib/deep/" + strings.Repeat("long/", 20)} {
			p := filepath.Join(d, fmt.Sprintf("file%d", i))
			b := make([]byte, n)
			r.Read(b)
			contents[p] = b
			if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, p), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i := range 300 { // more than a block of entries
		if err := os.Symlink("target", filepath.Join(dir, "usr", fmt.Sprintf("link-with-a-long-name-%d", i))); err != nil {
			t.Fatal(err)
		}
	}
	return dir, contents
}

func run(t *testing.T, tools *tooltree.Tree, program string, args ...string) string {
	t.Helper()
	out, err := tools.Command(t.Context(), program, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", program, err, out)
	}
	return string(out)
}

// What mkfs.erofs has written is found by us where dump.erofs says it is.
func TestReadAgrees(t *testing.T) {
	tools := testenv.Tools(t)
	dir, contents := hostTree(t)
	extents := regexp.MustCompile(`\n +\d+: +\d+\.\. +\d+ \| +\d+ : +(\d+)\.\. *(\d+) \|`)
	for layout, flag := range map[string]string{"plain": "-E^inline_data", "inline": "-Elegacy-compress"} {
		t.Run(layout, func(t *testing.T) {
			img := filepath.Join(t.TempDir(), "img")
			run(t, tools, "mkfs.erofs", "--quiet", "-b4096", "-T1", flag, img, dir)
			run(t, tools, "fsck.erofs", img)
			b, err := os.ReadFile(img)
			if err != nil {
				t.Fatal(err)
			}
			m := read(t, b)
			found := map[string]Extent{}
			for _, f := range m.Files {
				found[f.Path] = f
			}
			for p, want := range contents {
				f, ok := found[p]
				whole := len(want)
				if layout == "inline" && f.Size != int64(whole) {
					whole = whole / blockSize * blockSize
				}
				if ok != (whole > 0) {
					t.Errorf("%s: %d bytes, found %+v", p, len(want), f)
					continue
				}
				if !ok {
					continue
				}
				if f.SHA256 != digest.Of(want[:whole]) || !bytes.Equal(b[f.Offset:f.Offset+f.Size], want[:whole]) {
					t.Errorf("%s: other content", p)
				}
				got := extents.FindStringSubmatch(run(t, tools, "dump.erofs", "-e", "--path=/"+p, img))
				if len(got) != 3 || got[1] != fmt.Sprint(f.Offset) || whole == len(want) && got[2] != fmt.Sprint(f.End()) && got[2] != fmt.Sprint(f.Offset+f.Size) {
					t.Errorf("%s: got %+v, dump.erofs says %q", p, f, got)
				}
			}
		})
	}
}

// What cpio has packed is found by us.
func TestReadBootAgrees(t *testing.T) {
	tools := testenv.Tools(t)
	dir, contents := hostTree(t)
	var names []string
	for p := range contents {
		names = append(names, p)
	}
	cmd := tools.Command(t.Context(), "cpio", "-o", "-H", "newc", "--quiet")
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(strings.Join(names, "\n"))
	initrd, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	b := program(t, string(initrd))
	m, err := ReadBoot(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	check(t, m, int64(len(b)))
	for _, f := range m.Files {
		if strings.HasPrefix(f.Path, ".") {
			continue
		}
		if !bytes.Equal(b[f.Offset:f.Offset+f.Size], contents[f.Path]) {
			t.Errorf("%s: other content", f.Path)
		}
		delete(contents, f.Path)
	}
	for p, b := range contents {
		if len(b) > 0 {
			t.Errorf("%s: not found", p)
		}
	}
}
