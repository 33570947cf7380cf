package inspect

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/proa-os/proa/image-builder/imagetest"
	"github.com/proa-os/proa/image-builder/qcow2"
	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/gpt"
	"github.com/proa-os/proa/internal/release"
)

var spec = imagetest.Spec{
	Version: "1.3.0-rc.1", Files: map[string]string{"etc/hostname": "proa\n", "usr/big": strings.Repeat("0123456789abcdef", 5000)},
	Packages: []release.Package{{Name: "base-files", Version: "13.8"}, {Name: "libc6", Version: "2.41-12"}},
}

func file(t *testing.T, name string, o Options) *Image {
	t.Helper()
	i, err := File(name, o)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func TestDisk(t *testing.T) {
	dir, r := imagetest.Build(t, spec)
	i := file(t, dir, Options{Verify: true})
	if len(i.Warnings) > 0 || i.Kind != KindDisk || !slices.Equal(i.SectorSizes, []int{512}) || len(i.Partitions) != 3 || i.Partitions[1].Name != "root-a" {
		t.Errorf("got %+v", i)
	}
	a, b := i.Slots[0], i.Slots[1]
	if !a.Filled || *a.RootHash != r.Root.RootHash || a.HashOffset != r.Root.HashOffset || a.Size != r.Root.Size || a.Version != spec.Version ||
		!*a.Verified || len(a.Programs) != 1 || len(a.Packages) != 2 || a.Packages[1] != spec.Packages[1] {
		t.Errorf("got slot A %+v", a)
	}
	if b.Filled || b.Verified != nil {
		t.Errorf("got slot B %+v", b)
	}
	p := i.Programs[0]
	if p.File != "proa_1.3.0~rc.1.efi" || p.Version != spec.Version || !p.Good || p.Kernel != "6.12" || p.RootHash != r.Root.RootHash || p.SHA256 != r.Boot.SHA256 {
		t.Errorf("got boot program %+v", p)
	}
	var text bytes.Buffer
	if err := i.Print(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"root-b  (empty)", r.Root.RootHash.String(), "2 PACKAGES in root-a", "libc6", "good", "panic=10"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("want %q in\n%s", want, text.String())
		}
	}
	b2, err := json.Marshal(i)
	if err != nil || !strings.Contains(string(b2), `"verified":true`) {
		t.Errorf("%v, %s", err, b2)
	}
}

// A disk with tables for both sector sizes is shown as one, and if the two do not say the same, that is said.
func TestBothSectorSizes(t *testing.T) {
	dir, _ := imagetest.Build(t, spec)
	name := filepath.Join(dir, "disk.img")
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	table, err := gpt.Read(f, fi.Size(), 512)
	if err != nil {
		t.Fatal(err)
	}
	if err := table.WriteBoth(f); err != nil {
		t.Fatal(err)
	}
	i := file(t, name, Options{})
	if !slices.Equal(i.SectorSizes, []int{512, 4096}) || len(i.Warnings) > 0 || len(i.Partitions) != 3 || !i.Slots[0].Filled {
		t.Errorf("got %+v", i)
	}
	large, err := gpt.Read(f, fi.Size(), 4096)
	if err != nil {
		t.Fatal(err)
	}
	if !sameLayout(table, large) {
		t.Error("the two tables of one disk are not the same")
	}
	large.Partitions[2].LastLBA--
	if sameLayout(table, large) {
		t.Error("a shorter partition is the same")
	}
}

func TestPartsOfARelease(t *testing.T) {
	dir, r := imagetest.Build(t, spec)
	root := file(t, filepath.Join(dir, "root.img"), Options{})
	if s := root.Slots[0]; root.Kind != KindRoot || *s.RootHash != r.Root.RootHash || s.Version != spec.Version || s.Verified != nil {
		t.Errorf("got %+v", root)
	}
	boot := file(t, filepath.Join(dir, "boot.efi"), Options{})
	if p := boot.Programs[0]; boot.Kind != KindBoot || p.RootHash != r.Root.RootHash || p.SHA256 != r.Boot.SHA256 {
		t.Errorf("got %+v", boot)
	}
}

// The same disk as qcow2 shows the same.
func TestQcow2(t *testing.T) {
	dir, _ := imagetest.Build(t, spec)
	raw, err := os.Open(filepath.Join(dir, "disk.img"))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	want := file(t, dir, Options{Verify: true})
	name := filepath.Join(dir, "disk.qcow2")
	if err := qcow2.Write(name, raw, want.Size); err != nil {
		t.Fatal(err)
	}
	got := file(t, name, Options{Verify: true})
	if got.Format != "qcow2" || want.Format != "raw" {
		t.Errorf("got formats %q and %q", got.Format, want.Format)
	}
	got.File, got.Format = want.File, want.Format
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if err := os.Truncate(name, 100); err != nil {
		t.Fatal(err)
	}
	if _, err := File(name, Options{}); err == nil || !strings.Contains(err.Error(), "disk.qcow2") {
		t.Errorf("a cut file: got %v", err)
	}
}

func TestCounter(t *testing.T) {
	s := spec
	s.BootName = "proa_1.3.0~rc.1+2-1.efi"
	dir, _ := imagetest.Build(t, s)
	if p := file(t, dir, Options{}).Programs[0]; p.Good || p.TriesLeft != 2 || p.TriesDone != 1 {
		t.Errorf("got %+v", p)
	}
}

// Every flipped bit of a slot's data or tree must be seen with Verify, and what cannot be looked at is said.
func TestDamage(t *testing.T) {
	dir, r := imagetest.Build(t, spec)
	name := filepath.Join(dir, "disk.img")
	slotA := file(t, name, Options{}).Partitions[1].Start
	for what, at := range map[string]int64{"data": 2 * 4096, "tree": r.Root.HashOffset + 2*4096 - 1} {
		flip(t, name, slotA+at)
		i, err := File(name, Options{Verify: true})
		if err != nil {
			t.Fatal(err)
		}
		if s := i.Slots[0]; s.Verified != nil && *s.Verified && *s.RootHash == r.Root.RootHash {
			t.Errorf("%s: a flipped bit was verified: %+v", what, s)
		}
		flip(t, name, slotA+at)
	}
	flip(t, name, slotA+r.Root.HashOffset) // the verity superblock
	i := file(t, name, Options{})
	if i.Slots[0].Filled || !strings.Contains(strings.Join(i.Warnings, "\n"), "slot root-a: behind the file system") ||
		!strings.Contains(strings.Join(i.Warnings, "\n"), "no slot has its root hash "+r.Root.RootHash.String()) {
		t.Errorf("got warnings %q", i.Warnings)
	}
}

func flip(t *testing.T, name string, at int64) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

func TestRefuses(t *testing.T) {
	for name, c := range map[string]struct{ content, want string }{
		"short":  {"x", "1 bytes are no image"},
		"zeros":  {strings.Repeat("\x00", 8192), "neither a disk image"},
		"bad PE": {"MZ" + strings.Repeat("\x00", 8192), "PE"},
	} {
		if i, err := Read(strings.NewReader(c.content), int64(len(c.content)), Options{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %+v, %v, want %q", name, i, err, c.want)
		}
	}
	if _, err := File(filepath.Join(t.TempDir(), "none"), Options{}); err == nil {
		t.Error("a file that is not there was inspected")
	}
}

func TestTree(t *testing.T) {
	dir, _ := imagetest.Build(t, spec)
	for _, name := range []string{"disk.img", "root.img"} {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		fi, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		tr, err := Tree(f, fi.Size())
		if err != nil {
			t.Fatal(err)
		}
		if b, err := tr.ReadFile("usr/big"); err != nil || digest.Of(b) != digest.Of([]byte(spec.Files["usr/big"])) {
			t.Errorf("%s: usr/big differs, %v", name, err)
		}
	}
}
