package reproduce

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/proa-os/proa/image-builder/fat"
	"github.com/proa-os/proa/image-builder/imagetest"
	"github.com/proa-os/proa/image-builder/inspect"
	"github.com/proa-os/proa/internal/gpt"
)

var spec = imagetest.Spec{Version: "1.0.0", Files: map[string]string{"etc/hostname": "machine-name", "usr/big": strings.Repeat("x", 50_000)}}

// change writes text at an offset of a file.
func change(t *testing.T, text string, at int64, elem ...string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(elem...), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(text), at); err != nil {
		t.Fatal(err)
	}
}

// find returns where text is in a file.
func find(t *testing.T, text string, elem ...string) int64 {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	i := strings.Index(string(b), text)
	if i < 0 {
		t.Fatalf("no %q in %s", text, filepath.Join(elem...))
	}
	return int64(i)
}

func table(t *testing.T, dir string) *gpt.Table {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, "disk.img"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	table, err := inspect.ReadTable(f, fi.Size())
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// The comparison must catch every difference, and say where it is.
func TestCompare(t *testing.T) {
	for name, c := range map[string]struct {
		change func(t *testing.T, dir string)
		want   []string
	}{
		"nothing": {func(*testing.T, string) {}, nil},
		"missing": {func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, "boot.efi")) }, []string{"boot.efi: only the first build made it"}},
		"more":    {func(t *testing.T, dir string) { change(t, "", 0, dir, "more") }, []string{"more: only the second build made it"}},
		"longer":  {func(t *testing.T, dir string) { change(t, "x", 1<<20, dir, "release.json") }, []string{"release.json: byte "}},
		"release": {func(t *testing.T, dir string) { change(t, "X", 5, dir, "release.json") }, []string{"release.json: byte 5 differs"}},
		"file in root": {func(t *testing.T, dir string) {
			change(t, "M", find(t, "machine-name", dir, "root.img"), dir, "root.img")
		}, []string{"root.img: byte ", "in file etc/hostname"}},
		"verity": {func(t *testing.T, dir string) {
			change(t, "X", find(t, "verity\x00\x00", dir, "root.img")+16, dir, "root.img")
		}, []string{"root.img", "the verity tree"}},
		"boot": {func(t *testing.T, dir string) { change(t, "M", find(t, "panic=10", dir, "boot.efi"), dir, "boot.efi") }, []string{"boot.efi", "section .cmdline"}},
		"disk's slot": {func(t *testing.T, dir string) {
			at := table(t, dir).Offset(table(t, dir).Partitions[1]) + find(t, "machine-name", dir, "root.img")
			change(t, "M", at, dir, "disk.img")
		}, []string{"disk.img", "partition root-a, file etc/hostname"}},
		"disk's table": {func(t *testing.T, dir string) { change(t, "x", 100, dir, "disk.img") }, []string{"disk.img: byte 100 differs, in no partition"}},
		"ESP": {func(t *testing.T, dir string) {
			change(t, "T", find(t, "timeout 0", dir, "disk.img"), dir, "disk.img")
		}, []string{"disk.img", "in partition esp", "the first file that differs is loader/loader.conf"}},
		"ESP's file": {func(t *testing.T, dir string) {
			p := table(t, dir).Partitions[0]
			f, err := os.OpenFile(filepath.Join(dir, "disk.img"), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			w := offset{f, table(t, dir).Offset(p)}
			if err := fat.Write(w, fat.Options{Size: table(t, dir).Size(p), Label: "ESP"}, []fat.File{fat.BytesFile("EFI/odd", nil)}); err != nil {
				t.Fatal(err)
			}
		}, []string{"disk.img", "in partition esp", "EFI/Linux/proa_1.0.0.efi"}},
	} {
		a, _ := imagetest.Build(t, spec)
		b, _ := imagetest.Build(t, spec)
		c.change(t, b)
		d, err := Compare(a, b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if c.want == nil {
			if d != nil {
				t.Errorf("%s: got %v", name, d)
			}
			continue
		}
		if d == nil {
			t.Errorf("%s was not caught", name)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(d.Error(), want) {
				t.Errorf("%s: got %q, want %q", name, d.Error(), want)
			}
		}
	}
}

type offset struct {
	f  *os.File
	at int64
}

func (o offset) WriteAt(b []byte, off int64) (int, error) { return o.f.WriteAt(b, o.at+off) }

// A file of another content is found in the inodes first, if its size is another: then it is named all the same.
func TestCompareInodes(t *testing.T) {
	a, _ := imagetest.Build(t, spec)
	other := spec
	other.Files = map[string]string{"etc/hostname": "machine-name", "usr/big": strings.Repeat("x", 50_001)}
	b, _ := imagetest.Build(t, other)
	d, err := Compare(a, b)
	if err != nil || d == nil || d.File != "root.img" || d.Other != "usr/big" {
		t.Errorf("got %+v, %v", d, err)
	}
}

func TestCompareNothing(t *testing.T) {
	if _, err := Compare(t.TempDir(), t.TempDir()); err == nil {
		t.Error("two empty directories are the same build")
	}
	if _, err := Compare(t.TempDir(), filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a directory that is not there was compared")
	}
}

func TestTreeReport(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	text := strings.Repeat("etc/x: file 0644 0:0 1 aa proa\n", 1000)
	change(t, text+"etc/y: file 0644 0:0 1 aa proa\n", 0, a, "tree.txt")
	change(t, text+"etc/y: file 0644 0:0 1 ab proa\n", 0, b, "tree.txt")
	d, err := Compare(a, b)
	if err != nil || d == nil || d.Inside != "the line of etc/y" {
		t.Errorf("got %+v, %v", d, err)
	}
}
