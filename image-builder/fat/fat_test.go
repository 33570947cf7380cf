package fat

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	mib        = 1 << 20
	sectorSize = 512 // of the sparse device
)

// sparse is a device that only keeps what is written; the rest reads as zeros, or as fill.
type sparse struct {
	size    int64
	sectors map[int64]*[sectorSize]byte
	fill    byte
}

func newSparse(size int64) *sparse {
	return &sparse{size: size, sectors: map[int64]*[sectorSize]byte{}}
}

func (s *sparse) at(off int64) *[sectorSize]byte {
	b := s.sectors[off/sectorSize]
	if b == nil {
		b = new([sectorSize]byte)
		for i := range b {
			b[i] = s.fill
		}
	}
	return b
}

func (s *sparse) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > s.size {
		return 0, fmt.Errorf("write of %d bytes at %d leaves the device", len(p), off)
	}
	for n := 0; n < len(p); {
		b := s.at(off + int64(n))
		s.sectors[(off+int64(n))/sectorSize] = b
		n += copy(b[(off+int64(n))%sectorSize:], p[n:])
	}
	return len(p), nil
}

func (s *sparse) ReadAt(p []byte, off int64) (int, error) {
	for n := 0; n < len(p); {
		if off+int64(n) >= s.size {
			return n, io.EOF
		}
		n += copy(p[n:], s.at(off + int64(n))[(off+int64(n))%sectorSize:])
	}
	return len(p), nil
}

func esp() []File {
	return []File{
		BytesFile("loader/loader.conf", []byte("timeout 0\nconsole-mode keep\n")),
		BytesFile("/EFI/BOOT/BOOTX64.EFI", bytes.Repeat([]byte("boot"), 30_000)),
		BytesFile("EFI/Linux/proa_1.0.1+3.efi", bytes.Repeat([]byte("linux"), 50_001)),
		BytesFile("EFI/Linux/proa_1.0.0.efi", []byte("old")),
		BytesFile("EFI/Linux/proa_1.1.0~rc.1+2-1.efi", bytes.Repeat([]byte("x"), 4096)),
		BytesFile("empty", nil),
		{Path: "loader/entries/"},
	}
}

func options(size int64) Options {
	return Options{Size: size, Label: "PROA-ESP", Serial: 0x1234abcd, Time: time.Date(2025, 11, 1, 12, 34, 57, 0, time.UTC), SectorSize: 512, HiddenSectors: 2048}
}

// large is options for sectors of 4096 bytes.
func large(size int64) Options {
	o := options(size)
	o.SectorSize = 4096
	return o
}

// list is the whole content as text.
func list(t testing.TB, f *FS) string {
	t.Helper()
	files, err := f.Files()
	if err != nil {
		t.Fatal(err)
	}
	return text(t, files)
}

func text(t testing.TB, files []File) string {
	t.Helper()
	var lines []string
	for _, f := range files {
		line := strings.TrimPrefix(f.Path, "/")
		if f.Open != nil {
			r, err := f.Open()
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			line += fmt.Sprintf(" %d %.10s", len(b), b)
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func TestRoundTrip(t *testing.T) {
	for _, o := range []Options{
		options(34 * mib), options(34*mib + 5), options(100 * mib), options(259 * mib), options(260 * mib), options(512 * mib),
		large(257 * mib), large(260*mib + 4000), large(512 * mib),
	} {
		size := o.Size
		d := newSparse(size)
		d.fill = 0xa5 // an old file system may have been there
		if err := Write(d, o, esp()); err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		f, err := Open(d)
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if got, want := list(t, f), text(t, esp()); got != want {
			t.Errorf("%d bytes: got\n%s\nwant\n%s", size, got, want)
		}
		want := o
		want.Size = size / int64(o.SectorSize) * int64(o.SectorSize)
		if got := f.Options(); got != want {
			t.Errorf("%d bytes: options %+v, want %+v", size, got, want)
		}
		again := newSparse(size)
		again.fill = 0xa5
		if files, err := f.Files(); err != nil || Write(again, f.Options(), files) != nil || !maps.EqualFunc(again.sectors, d.sectors, func(a, b *[sectorSize]byte) bool { return *a == *b }) {
			t.Errorf("%d bytes: written again it is not the same (%v)", size, err)
		}
		if written, most := int64(len(d.sectors))*sectorSize, int64(6*mib); written > most {
			t.Errorf("%d bytes: %d bytes were written, want at most %d", size, written, most)
		}
	}
}

func TestDeterministic(t *testing.T) {
	a, b := newSparse(64*mib), newSparse(64*mib)
	files := esp()
	if err := Write(a, options(64*mib), files); err != nil {
		t.Fatal(err)
	}
	slices.Reverse(files)
	if err := Write(b, options(64*mib), files); err != nil {
		t.Fatal(err)
	}
	if len(a.sectors) != len(b.sectors) {
		t.Fatalf("%d and %d sectors", len(a.sectors), len(b.sectors))
	}
	for n, s := range a.sectors {
		if *b.sectors[n] != *s {
			t.Fatalf("sector %d differs", n)
		}
	}
}

func TestRead(t *testing.T) {
	d := newSparse(64 * mib)
	if err := Write(d, options(64*mib), esp()); err != nil {
		t.Fatal(err)
	}
	f, err := Open(d)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := f.ReadDir("/efi/linux")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, fmt.Sprint(e.Name, " ", e.Size, " ", e.Dir))
	}
	want := []string{"proa_1.0.0.efi 3 false", "proa_1.0.1+3.efi 250005 false", "proa_1.1.0~rc.1+2-1.efi 4096 false"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if b, err := f.ReadFile("LOADER/loader.CONF"); err != nil || string(b) != "timeout 0\nconsole-mode keep\n" {
		t.Errorf("loader.conf: %q, %v", b, err)
	}
	for _, name := range []string{"none", "EFI", "empty/x", "EFI/Linux/none"} {
		if _, err := f.ReadFile(name); err == nil {
			t.Errorf("%s was read", name)
		}
	}
}

func TestShortNames(t *testing.T) {
	used := map[[11]byte]bool{}
	for _, c := range []struct {
		name, short string
		exact       bool
	}{
		{"BOOTX64.EFI", "BOOTX64 EFI", true},
		{"EFI", "EFI        ", true},
		{"Linux", "LINUX      ", false},
		{"loader.conf", "LOADER~1CON", false},
		{"proa_1.0.1+3.efi", "PROA_1~1EFI", false},
		{"proa_1.0.1+2-1.efi", "PROA_1~2EFI", false},
		{"a+b", "A_B~1      ", false},
		{".hidden", "HIDDEN~1   ", false},
		{"A.B.C", "AB~1    C  ", false},
		{"LINUX~1", "LINUX~1    ", true},
		{"a b.txt", "AB~1    TXT", false},
		{"+++", "___~1      ", false},
	} {
		short, exact, err := shortName(c.name, used)
		if err != nil || string(short[:]) != c.short || exact != c.exact {
			t.Errorf("%s: %q, %t, %v, want %q, %t", c.name, short[:], exact, err, c.short, c.exact)
		}
		used[short] = true
	}
}

func TestManyFiles(t *testing.T) {
	var files []File
	for i := range 700 {
		files = append(files, BytesFile(fmt.Sprintf("dir/some long name, number %d.txt", i), []byte{byte(i)}))
	}
	d := newSparse(64 * mib)
	if err := Write(d, options(64*mib), files); err != nil {
		t.Fatal(err)
	}
	f, err := Open(d)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := list(t, f), text(t, files); got != want {
		t.Errorf("700 files came back as %d", strings.Count(got, "\n")+1)
	}
}

func TestWriteRefuses(t *testing.T) {
	one := func(name string) []File { return []File{BytesFile(name, []byte("x"))} }
	short := BytesFile("f", []byte("four"))
	short.Size = 5
	long := BytesFile("f", []byte("four"))
	long.Size = 3
	for _, c := range []struct {
		want  string
		o     Options
		files []File
	}{
		{"not a size for FAT32", options(32 * mib), nil},
		{"not a size for FAT32", options(-1), nil},
		{"with sectors of 4096 bytes: expected 257 MiB", large(256 * mib), nil},
		{"sector size is 1024", Options{Size: 512 * mib, SectorSize: 1024}, nil},
		{"label", Options{Size: 64 * mib, Label: "lower"}, nil},
		{"label", Options{Size: 64 * mib, Label: "MORE-THAN-11"}, nil},
		{"is not one for FAT", options(64 * mib), one("a:b")},
		{"is not one for FAT", options(64 * mib), one("größe")},
		{"is not one for FAT", options(64 * mib), one("dot.")},
		{"is not one for FAT", options(64 * mib), one(strings.Repeat("x", 256))},
		{"root cannot be a file", options(64 * mib), one("/")},
		{"is there already", options(64 * mib), append(one("A/x"), one("a/y")...)},
		{"is there already", options(64 * mib), append(one("a"), one("A")...)},
		{"is there already", options(64 * mib), append(one("a"), one("a/b")...)},
		{"expected 5 bytes, found 4", options(64 * mib), []File{short}},
		{"expected 3 bytes, found more", options(64 * mib), []File{long}},
		{"are free", options(34 * mib), []File{{Path: "big", Size: 40 * mib}}},
		{"not a size of a file", options(34 * mib), []File{{Path: "big", Size: 1 << 32}}},
	} {
		if err := Write(newSparse(64*mib), c.o, c.files); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}

func TestStamp(t *testing.T) {
	for _, c := range []struct {
		t    time.Time
		want stamp
	}{
		{time.Unix(0, 0), stamp{date: 1<<5 | 1}},
		{time.Date(2025, 11, 30, 23, 59, 59, 0, time.UTC), stamp{date: 45<<9 | 11<<5 | 30, time: 23<<11 | 59<<5 | 29, odd: 100}},
		{time.Date(2025, 1, 1, 0, 30, 0, 0, time.FixedZone("", 3600)), stamp{date: 44<<9 | 12<<5 | 31, time: 23<<11 | 30<<5}},
		{time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC), stamp{date: 127<<9 | 12<<5 | 31, time: 23<<11 | 59<<5 | 29, odd: 100}},
	} {
		if got := newStamp(c.t); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.t, got, c.want)
		}
	}
}

func small(t testing.TB) *sparse {
	d := newSparse(34 * mib)
	if err := Write(d, options(34*mib), esp()[:4]); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestOpenRefuses(t *testing.T) {
	for _, c := range []struct {
		want string
		off  int64
		b    []byte
	}{
		{"no boot sector", 510, []byte{0}},
		{"not a FAT32", 11, []byte{0, 8}},
		{"not a FAT32", 17, []byte{1}},
		{"makes no sense", 13, []byte{0}},
		{"makes no sense", 13, []byte{3}},
		{"makes no sense", 14, []byte{0, 0}},
		{"makes no sense", 16, []byte{0}},
		{"makes no sense", 36, []byte{0xff, 0xff, 0xff, 0xff}},
		{"root directory is said", 44, []byte{1}},
		{"root directory is said", 44, []byte{0xff, 0xff, 0xff, 0xff}},
	} {
		d := small(t)
		d.WriteAt(c.b, c.off)
		if _, err := Open(d); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("offset %d: got %v, want %q", c.off, err, c.want)
		}
	}
	if _, err := Open(newSparse(100)); err == nil {
		t.Error("100 bytes are a file system")
	}
}

// Chains and directories that loop must end.
func TestLoops(t *testing.T) {
	d := small(t)
	f, err := Open(d)
	if err != nil {
		t.Fatal(err)
	}
	d.WriteAt([]byte{rootDir, 0, 0, 0}, f.fatStart+4*rootDir)
	if list, err := f.ReadDir("/"); err != nil && len(list) > maxDir/entrySize {
		t.Errorf("a looping root directory has %d entries", len(list))
	}
	d = small(t)
	if f, err = Open(d); err != nil {
		t.Fatal(err)
	}
	e, err := f.find("EFI")
	if err != nil {
		t.Fatal(err)
	}
	// EFI/BOOT becomes EFI itself.
	at := f.dataStart + int64(e.cluster-rootDir)*f.clusterSize() + 2*entrySize
	d.WriteAt([]byte{byte(e.cluster), byte(e.cluster >> 8)}, at+26)
	if _, err := f.Files(); err == nil || !strings.Contains(err.Error(), "loop") {
		t.Errorf("a looping directory: %v", err)
	}
	// A file whose chain ends too early.
	d.WriteAt([]byte{0xff, 0xff, 0xff, 0x0f}, f.fatStart+4*int64(mustFind(t, f, "EFI/Linux/proa_1.0.1+3.efi").cluster))
	if _, err := f.ReadFile("EFI/Linux/proa_1.0.1+3.efi"); err == nil || !strings.Contains(err.Error(), "chain leads") {
		t.Errorf("a short chain: %v", err)
	}
}

func mustFind(t *testing.T, f *FS, name string) Entry {
	t.Helper()
	e, err := f.find(name)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func FuzzRead(f *testing.F) {
	d := small(f)
	fs, err := Open(d)
	if err != nil {
		f.Fatal(err)
	}
	boot, table, dirs := make([]byte, sectorSize), make([]byte, 128), make([]byte, 6*sectorSize)
	d.ReadAt(boot, 0)
	d.ReadAt(table, fs.fatStart)
	d.ReadAt(dirs, fs.dataStart)
	f.Add(boot, table, dirs)
	f.Fuzz(func(t *testing.T, boot, table, dirs []byte) {
		const size = 34 * mib
		d := newSparse(size)
		for off, b := range map[int64][]byte{0: boot, fs.fatStart: table, fs.dataStart: dirs} {
			d.WriteAt(b[:min(len(b), 16*sectorSize)], off)
		}
		f, err := Open(d)
		if err != nil {
			return
		}
		entries, err := f.ReadDir("/")
		if err != nil {
			return
		}
		for _, e := range entries[:min(len(entries), 10)] {
			if e.Name == "" || e.Name == "." || e.Name == ".." || strings.ContainsAny(e.Name, "/\x00") || e.Size < 0 || e.Dir && e.Size != 0 {
				t.Errorf("got entry %+v", e)
			}
			if e.Dir {
				f.ReadDir(e.Name)
				continue
			}
			b, err := f.chain(e.cluster, e.Size)
			if err == nil && int64(len(b)) != e.Size || len(b) > size {
				t.Errorf("%q of %d bytes: got %d, %v", e.Name, e.Size, len(b), err)
			}
		}
	})
}

// TestFileLoops: a chain that loops is told before it has yielded more than there is.
func TestFileLoops(t *testing.T) {
	d := small(t)
	f, err := Open(d)
	if err != nil {
		t.Fatal(err)
	}
	for i, next := range []byte{6, 7, 8, 6} { // 5 -> 6 -> 7 -> 8 -> 6
		if _, err := d.WriteAt([]byte{next, 0, 0, 0}, f.fatStart+4*int64(5+i)); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := f.chain(5, 4*f.clusterSize()); err != nil || int64(len(b)) != 4*f.clusterSize() {
		t.Errorf("before it loops: got %d bytes, %v", len(b), err)
	}
	if b, err := f.chain(5, maxFile); err == nil || !strings.Contains(err.Error(), "the chain comes back to cluster") {
		t.Errorf("got %d bytes, %v, want the loop named", len(b), err)
	}
}

func image(t *testing.T, o Options, files []File) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "esp")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(o.Size); err != nil {
		t.Fatal(err)
	}
	if err := Write(f, o, files); err != nil {
		t.Fatal(err)
	}
	return path
}
