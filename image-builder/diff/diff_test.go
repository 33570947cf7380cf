package diff

import (
	"bytes"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/proa-os/proa/image-builder/imagetest"
	"github.com/proa-os/proa/image-builder/tree"
	"github.com/proa-os/proa/internal/release"
)

func specs() (before, after imagetest.Spec) {
	before = imagetest.Spec{
		Version: "1.0.0", Kernel: "old",
		Files:    map[string]string{"etc/same": "same", "etc/gone": "gone", "etc/longer": "12", "usr/big": strings.Repeat("a", 200_000)},
		Packages: []release.Package{{Name: "bash", Version: "5.2"}, {Name: "libc6", Version: "2.41-12"}, {Name: "zstd", Version: "1"}},
	}
	after = imagetest.Spec{
		Version: "1.0.1", Kernel: "newer",
		Files:    map[string]string{"etc/same": "same", "etc/new": "new!!", "etc/longer": "123", "usr/big": strings.Repeat("a", 199_999) + "b"},
		Packages: []release.Package{{Name: "bash", Version: "5.2"}, {Name: "libc6", Version: "2.41-13"}, {Name: "xz", Version: "5"}},
	}
	return before, after
}

func TestFiles(t *testing.T) {
	before, after := specs()
	oldDir, _ := imagetest.Build(t, before)
	newDir, _ := imagetest.Build(t, after)
	for _, names := range [][2]string{{oldDir, newDir}, {filepath.Join(oldDir, "root.img"), filepath.Join(newDir, "disk.img")}} {
		d, err := Files(names[0], names[1])
		if err != nil {
			t.Fatal(err)
		}
		if want := []Package{{"libc6", "2.41-12", "2.41-13"}, {"xz", "", "5"}, {"zstd", "1", ""}}; !reflect.DeepEqual(d.Packages, want) {
			t.Errorf("got %v, want %v", d.Packages, want)
		}
		got := map[string]File{}
		for _, f := range d.Files {
			got[f.Path] = f
		}
		for _, want := range []File{
			{"etc/gone", Removed, 4, 0, nil}, {"etc/new", Added, 0, 5, nil}, {"etc/longer", Changed, 2, 3, []string{"content"}}, {"usr/big", Changed, 200_000, 200_000, []string{"content"}},
		} {
			if !reflect.DeepEqual(got[want.Path], want) {
				t.Errorf("got %+v, want %+v", got[want.Path], want)
			}
		}
		if _, ok := got["etc/same"]; ok || d.Totals.Added != 1 || d.Totals.Removed != 1 || d.Totals.Changed != 4 { // with os-release and packages.json
			t.Errorf("got %+v", d)
		}
	}
}

func TestBoot(t *testing.T) {
	before, after := specs()
	oldDir, _ := imagetest.Build(t, before)
	newDir, _ := imagetest.Build(t, after)
	for _, file := range []string{"", "boot.efi"} {
		d, err := Files(filepath.Join(oldDir, file), filepath.Join(newDir, file))
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, p := range d.Boot {
			names = append(names, p.Name)
		}
		if got := strings.Join(names, " "); got != ".osrel .linux" || d.Old.CommandLine != "panic=10" || d.New.Version != "1.0.1" {
			t.Errorf("got sections %q and %+v", got, d)
		}
	}
	if _, err := Files(filepath.Join(oldDir, "boot.efi"), newDir); err == nil || !strings.Contains(err.Error(), "no root image") {
		t.Errorf("got %v", err)
	}
}

func TestNothing(t *testing.T) {
	before, _ := specs()
	a, _ := imagetest.Build(t, before)
	b, _ := imagetest.Build(t, before)
	d, err := Files(a, b)
	if err != nil || !d.Empty() {
		t.Errorf("got %+v, %v", d, err)
	}
	var text bytes.Buffer
	if err := d.Print(&text); err != nil || !strings.Contains(text.String(), "nothing has changed") {
		t.Errorf("got %q, %v", text.String(), err)
	}
}

func TestPrint(t *testing.T) {
	before, after := specs()
	a, _ := imagetest.Build(t, before)
	b, _ := imagetest.Build(t, after)
	d, err := Files(a, b)
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := d.Print(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"(1.0.0)", "~ libc6", "2.41-12 -> 2.41-13", "+ xz", "- zstd", "~ .linux", "1 added, 1 removed, 4 changed", "~ etc/longer", "2 -> 3 bytes", "- etc/gone"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("want %q in\n%s", want, text.String())
		}
	}
}

// Everything that a tree's entry has counts.
func TestCompareEntries(t *testing.T) {
	base := tree.Entry{Path: "p", Type: tree.File, Mode: 0o644, Size: 1, Content: tree.Bytes("a")}
	for want, change := range map[string]func(*tree.Entry){
		"":                    func(*tree.Entry) {},
		"content":             func(e *tree.Entry) { e.Content = tree.Bytes("b") },
		"mode 0644 -> 4644":   func(e *tree.Entry) { e.Mode = 0o4644 },
		"owner 0:0 -> 0:5":    func(e *tree.Entry) { e.GID = 5 },
		"file -> symlink":     func(e *tree.Entry) { e.Type = tree.Symlink },
		"target  -> x":        func(e *tree.Entry) { e.Target = "x" },
		"device 0:0 -> 1:0":   func(e *tree.Entry) { e.Major = 1 },
		"extended attributes": func(e *tree.Entry) { e.Xattrs = map[string]string{"user.a": "b"} },
	} {
		e := base
		change(&e)
		what, _, err := compareEntries(base, e)
		if err != nil || strings.Join(what, ";") != want {
			t.Errorf("got %q, %v, want %q", what, err, want)
		}
	}
}

func TestFirst(t *testing.T) {
	long := strings.Repeat("x", 1<<17)
	for _, c := range []struct {
		a, b string
		want int64
	}{{"", "", -1}, {"a", "a", -1}, {"a", "b", 0}, {"ab", "a", 1}, {"", "a", 0}, {long + "a", long + "b", 1 << 17}, {long, long + "b", 1 << 17}, {long, long, -1}} {
		if got, err := First(strings.NewReader(c.a), strings.NewReader(c.b)); err != nil || got != c.want {
			t.Errorf("%.3s, %.3s: got %d, %v, want %d", c.a, c.b, got, err, c.want)
		}
	}
}
