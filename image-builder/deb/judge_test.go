package deb_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/proa-os/proa/image-builder/deb"
	"github.com/proa-os/proa/internal/testenv"
	"github.com/proa-os/proa/internal/tooltree"
)

// TestBuiltByDpkg reads packages that dpkg-deb has built, with every compression, names too long for a plain tar header, links, and a
// file larger than a decompressor's block.
func TestBuiltByDpkg(t *testing.T) {
	tree := testenv.Tools(t)
	if _, err := exec.LookPath("tar"); err != nil { // dpkg-deb runs it, and a tools tree has none
		testenv.Missing(t, "against packages built by dpkg-deb: %v", err)
	}
	dir := t.TempDir()
	long := "usr/share/" + strings.Repeat("long-name/", 15) + "file"
	big := bytes.Repeat([]byte("0123456789abcdef"), 200_000)
	control := "Package: hello\nVersion: 1:2.0-1\nArchitecture: all\nMaintainer: x <x@example.org>\nDepends: libc6 (>= 2.41),\n libz1\nDescription: short\n long\n .\n end\n"
	for name, content := range map[string][]byte{"DEBIAN/control": []byte(control), "usr/bin/hello": big, long: []byte("x")} {
		file := filepath.Join(dir, "tree", name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("hello", filepath.Join(dir, "tree/usr/bin/hi")); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(dir, "tree/usr/bin/hello"), filepath.Join(dir, "tree/usr/bin/twin")); err != nil {
		t.Fatal(err)
	}
	for _, compression := range []string{"xz", "zstd", "gzip", "none"} {
		file := filepath.Join(dir, compression+".deb")
		out, err := tree.Command(t.Context(), "dpkg-deb", "--root-owner-group", "-Z"+compression, "--build", filepath.Join(dir, "tree"), file).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", compression, err, out)
		}
		sizes, err := sizesOf(file)
		if err != nil {
			t.Errorf("%s: %v", compression, err)
			continue
		}
		// tar stores whichever of two hard-linked names comes first.
		if got := sizes["./usr/bin/hello"] + sizes["./usr/bin/twin"]; got != int64(len(big)) || sizes["./"+long] != 1 || len(sizes) != 3+3+17 {
			t.Errorf("%s: got %d entries, hello of %d bytes: %v", compression, len(sizes), got, sizes)
		}
		compareFields(t, tree, file)
	}
}

// sizesOf reads all of a package, checks every entry and returns their sizes by name.
func sizesOf(file string) (map[string]int64, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	d, err := deb.NewReader(f)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	sizes := make(map[string]int64)
	for tr := d.Tar(); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return sizes, nil
		}
		if err == nil {
			err = deb.CheckEntry(h)
		}
		if err != nil {
			return nil, err
		}
		n, err := io.Copy(io.Discard, tr)
		if err != nil || n != h.Size {
			return nil, fmt.Errorf("%s: got %d of %d bytes, %w", h.Name, n, h.Size, err)
		}
		sizes[h.Name] = n
	}
}

// TestFieldsJudge compares the control fields of real packages with what dpkg-deb prints of them.
func TestFieldsJudge(t *testing.T) {
	tree := testenv.Tools(t)
	for _, file := range cached(t) {
		compareFields(t, tree, file)
	}
}

func compareFields(t *testing.T, tree *tooltree.Tree, file string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d, err := deb.NewReader(f)
	if err != nil {
		t.Errorf("%s: %v", file, err)
		return
	}
	defer d.Close()
	for name, value := range d.Control.Fields() {
		out, err := tree.Command(t.Context(), "dpkg-deb", "--field", file, name).Output()
		if err != nil {
			t.Fatalf("dpkg-deb --field %s %s: %v", file, name, err)
		}
		// dpkg-deb prints relations on one line, and other continuation lines with their first space.
		want := strings.ReplaceAll(strings.TrimSuffix(string(out), "\n"), "\n ", "\n")
		if _, err := deb.ParseRelations(value); err == nil {
			value, want = strings.Join(strings.Fields(value), " "), strings.Join(strings.Fields(want), " ")
		}
		if value != want {
			t.Errorf("%s: field %s: got %q, dpkg-deb %q", file, name, value, want)
		}
	}
}
