package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

var then = time.Unix(1700000000, 123456789)

// entry is one line of a test archive.
type entry struct {
	tar.Header
	body string
}

func dir(name string, mode int64) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode}}
}
func reg(name, body string) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, body: body}
}
func sym(name, to string) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to, Mode: 0o777}}
}
func hard(name, to string) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to}}
}

func archive(t testing.TB, es ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range es {
		h := e.Header
		h.Size = int64(len(e.body))
		h.Format = tar.FormatPAX
		if h.ModTime.IsZero() {
			h.ModTime = then
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

var limits = Limits{Bytes: 1 << 20, Entries: 1000}

// apply unpacks into <tmp>/layer; <tmp> shows what got out.
func apply(t testing.TB, data []byte, o Options) (string, error) {
	t.Helper()
	top := t.TempDir()
	d := filepath.Join(top, "layer")
	if err := os.Mkdir(d, 0o755); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(d, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	err = Apply(fd, bytes.NewReader(data), o)
	left, rerr := os.ReadDir(top)
	if rerr != nil || len(left) != 1 {
		t.Errorf("the archive reached out of the directory: %v %v", left, rerr)
	}
	return d, err
}

// unprivileged is how the hermetic tests unpack; TestRoot does the rest.
var unprivileged = Options{Limits: limits, Unprivileged: true}

// tree lists what is in a directory, one line a path.
func tree(t testing.TB, d string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(d, func(p string, e fs.DirEntry, err error) error {
		if err != nil || p == d {
			return err
		}
		i, err := e.Info()
		if err != nil {
			return err
		}
		line := strings.TrimPrefix(p, d+"/") + " " + i.Mode().String()
		switch {
		case i.Mode().IsRegular():
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %q", b)
		case i.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(p)
			if err != nil {
				return err
			}
			line += " -> " + to
		}
		out = append(out, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestApply(t *testing.T) {
	suid := reg("bin/su", "x")
	suid.Mode = 0o4755
	d, err := apply(t, archive(t,
		dir("./", 0o711), dir("bin/", 0o755), suid, sym("sh", "bin/su"), reg("/etc/passwd", "root"), hard("bin/su2", "./bin/su"),
		reg("twice", "1"), reg("twice", "22"), dir("was/", 0o755), reg("was/file", ""), reg("was", "now a file"),
		reg("f", ""), dir("f/", 0o700), dir("ro/", 0o555), reg("ro/in", "x"), sym("dangling", "/nowhere/x")), unprivileged)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"bin drwxr-xr-x", `bin/su urwxr-xr-x "x"`, `bin/su2 urwxr-xr-x "x"`, "dangling Lrwxrwxrwx -> /nowhere/x",
		"etc drwxr-xr-x", `etc/passwd -rw-r--r-- "root"`, "f drwx------", "ro drwxr-xr-x", `ro/in -rw-r--r-- "x"`,
		"sh Lrwxrwxrwx -> bin/su", `twice -rw-r--r-- "22"`, `was -rw-r--r-- "now a file"`,
	}
	if got := tree(t, d); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, name := range []string{"bin/su", "bin", ".", "sh", "ro"} {
		i, err := os.Lstat(filepath.Join(d, name))
		if err != nil {
			t.Fatal(err)
		}
		if !i.ModTime().Equal(then) {
			t.Errorf("%s: time %v, want %v", name, i.ModTime(), then)
		}
	}
	if i, _ := os.Stat(d); i.Mode().Perm() != 0o711 {
		t.Errorf("top directory: mode %v", i.Mode())
	}
}

// TestHostile: whatever the archive says, it is refused or stays inside (apply checks the latter).
func TestHostile(t *testing.T) {
	long := strings.Repeat("a", 300)
	for name, c := range map[string]struct {
		es   []entry
		want string // in the error; "" is success
	}{
		"dotdot":              {[]entry{reg("../evil", "x")}, "a name with .."},
		"dotdot inside":       {[]entry{dir("a", 0o755), reg("a/../../evil", "x")}, "a name with .."},
		"absolute":            {[]entry{reg("/../evil", "x")}, "a name with .."},
		"link out, absolute":  {[]entry{sym("out", "/"), reg("out/tmp/evil", "x")}, ""},
		"link out, relative":  {[]entry{sym("out", "../.."), reg("out/evil", "x")}, ""},
		"link to itself":      {[]entry{sym("loop", "loop"), reg("loop/evil", "x")}, "too many levels"},
		"write through link":  {[]entry{sym("f", "../evil"), reg("f", "x")}, ""},
		"chmod through link":  {[]entry{sym("d", "../.."), dir("d", 0o777)}, ""},
		"hard link out":       {[]entry{hard("h", "../../etc/passwd")}, "a name with .."},
		"hard link absolute":  {[]entry{hard("h", "/etc/passwd")}, "hard link"},
		"hard link via link":  {[]entry{sym("out", "/etc"), hard("h", "out/passwd")}, "hard link"},
		"hard link to dir":    {[]entry{dir("d", 0o755), hard("h", "d")}, "hard link"},
		"hard link to top":    {[]entry{hard("h", "/")}, "hard link"},
		"whiteout of ..":      {[]entry{reg(".wh...", "")}, `a whiteout of ".."`},
		"whiteout of nothing": {[]entry{reg("d/.wh.", "")}, "a whiteout of"},
		"long element":        {[]entry{reg(long, "")}, "element of 300 bytes"},
		"long name":           {[]entry{reg(strings.Repeat("a/", 2100)+"x", "")}, "name of 4201 bytes"},
		"fake whiteout": {[]entry{{Header: tar.Header{Typeflag: tar.TypeChar, Name: "w"}}},
			"overlayfs takes for a whiteout"},
		"trusted attribute": {[]entry{{Header: tar.Header{Typeflag: tar.TypeDir, Name: "d", Mode: 0o755,
			PAXRecords: map[string]string{"SCHILY.xattr.trusted.overlay.redirect": "/etc"}}}}, "trusted attributes"},
		"large file":              {[]entry{reg("f", strings.Repeat("x", 1<<20+1))}, "too large"},
		"large together":          {[]entry{reg("f", strings.Repeat("x", 1<<19)), reg("g", strings.Repeat("x", 1<<19+1))}, "too large"},
		"many entries":            {slices.Repeat([]entry{dir("d", 0o755)}, 1001), "too large"},
		"long names":              {slices.Repeat([]entry{dir(strings.Repeat(strings.Repeat("a", 200)+"/", 10), 0o755)}, 70), "bytes of names"},
		"many implied":            {[]entry{reg(strings.Repeat("a/", 1500)+"x", "")}, "too large"},
		"owner out of range":      {[]entry{{Header: tar.Header{Typeflag: tar.TypeDir, Name: "d", Uid: 1<<32 - 1}}}, "owner"},
		"top is a file":           {[]entry{reg(".", "")}, "the top directory is something else"},
		"hard link to a whiteout": {[]entry{reg(".wh.x", ""), hard("h", "x")}, "hard link to \"x\""},
		"hard link to its name":   {[]entry{reg(".wh.x", ""), hard("h", ".wh.x")}, "hard link to \".wh.x\""},
		"whiteout as a link":      {[]entry{hard(".wh.x", "/etc/passwd"), sym(".wh.y", "/etc"), reg("y/z", "x")}, ""},
		"whiteout through a link": {[]entry{sym("out", "../.."), reg("out/.wh.layer", "")}, ""},
		"opaque through a link":   {[]entry{sym("out", "../.."), reg("out/.wh..wh..opq", "")}, ""},
		"huge attribute": {[]entry{{Header: tar.Header{Typeflag: tar.TypeReg, Name: "f", Mode: 0o644,
			PAXRecords: map[string]string{"SCHILY.xattr.user.x": strings.Repeat("x", 200<<10)}}}}, "bytes of attributes"},
		"overlay attribute of another kind": {[]entry{{Header: tar.Header{Typeflag: tar.TypeReg, Name: "f", Mode: 0o644,
			PAXRecords: map[string]string{"SCHILY.xattr.trusted.overlay.metacopy": ""}}}}, "trusted attributes"},
		"end of time":                 {[]entry{{Header: tar.Header{Typeflag: tar.TypeReg, Name: "f", ModTime: time.Unix(1<<40, 0)}}, {Header: tar.Header{Typeflag: tar.TypeReg, Name: "g", ModTime: time.Unix(-1<<40, 0)}}}, ""},
		"directory and link by turns": {[]entry{dir("d", 0o755), sym("d", "../.."), dir("d", 0o700), sym("d", "/"), reg("d/evil", "x")}, ""},
		"link to itself by name":      {[]entry{reg("f", "x"), hard("f", "f")}, "not in this layer"},
		"aufs bookkeeping":            {[]entry{dir(".wh..wh.plnk", 0o755)}, ""},
		"character in a name":         {[]entry{reg("new\nline \x1b[31m", "")}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := apply(t, archive(t, c.es...), unprivileged)
			if c.want == "" && err != nil {
				t.Errorf("error %v", err)
			}
			if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
		})
	}
}

// TestManyReplacements: each one searches all names, so a small archive of them would keep the processor busy for hours.
func TestManyReplacements(t *testing.T) {
	es := slices.Repeat([]entry{dir("d/", 0o755), reg("d", "")}, 1001)
	_, err := apply(t, archive(t, es...), Options{Limits: Limits{Bytes: 1 << 30, Entries: 5000}, Unprivileged: true})
	if !errors.Is(err, ErrLimit) {
		t.Errorf("error %v", err)
	}
}

// TestShared: layers that share what they have taken also share the limits, and each attribute takes a block.
func TestShared(t *testing.T) {
	f := reg("f", "")
	f.PAXRecords = map[string]string{"SCHILY.xattr.user.test": "x"}
	for _, c := range []struct {
		limits Limits
		e      entry
	}{{Limits{Bytes: 1 << 20, Entries: 5}, reg("f", "")}, {Limits{Bytes: 5 * block, Entries: 100}, f}} {
		data := archive(t, c.e, c.e, c.e)
		for range 2 {
			if _, err := apply(t, data, Options{Limits: c.limits, Unprivileged: true}); err != nil {
				t.Errorf("%+v: a layer alone: %v", c.limits, err)
			}
		}
		c.limits.Taken = new(Taken)
		apply(t, data, Options{Limits: c.limits, Unprivileged: true})
		if _, err := apply(t, data, Options{Limits: c.limits, Unprivileged: true}); !errors.Is(err, ErrLimit) {
			t.Errorf("%+v: two layers: %v, want %v", c.limits, err, ErrLimit)
		}
	}
}

// TestSparseBomb: a header of a few hundred bytes promises a file of an exabyte.
func TestSparseBomb(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	records := map[string]string{"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "bomb", "GNU.sparse.realsize": "1000000000000000000"}
	var body bytes.Buffer
	for k, v := range records {
		line := fmt.Sprintf(" %s=%s\n", k, v)
		n := len(line) + 2
		body.WriteString(fmt.Sprintf("%d%s", n, line))
	}
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "x", Size: 512, Mode: 0o644}); err != nil {
		t.Fatal(err)
	}
	w.Write(append([]byte("1\n999999999999999999\n1\n"), make([]byte, 512-23)...))
	w.Close()
	raw := b.Bytes()
	// A PAX header in front turns the entry into a sparse one.
	h := make([]byte, 512)
	copy(h, raw[:512])
	h[156] = 'x'
	copy(h[124:136], fmt.Sprintf("%011o\x00", body.Len()))
	copy(h[148:156], "        ")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:156], fmt.Sprintf("%06o\x00 ", sum))
	rec := append(body.Bytes(), make([]byte, (512-body.Len()%512)%512)...)
	_, err := apply(t, slices.Concat(h, rec, raw), unprivileged)
	if err == nil {
		t.Fatal("unpacked an exabyte")
	}
	if !errors.Is(err, ErrLimit) && !strings.Contains(err.Error(), "tar") {
		t.Errorf("error %v", err)
	}
}

func TestTruncated(t *testing.T) {
	data := archive(t, reg("a", strings.Repeat("x", 5000)), reg("b", "y"))
	for _, n := range []int{100, 3000, 5700} {
		if _, err := apply(t, data[:n], unprivileged); err == nil {
			t.Errorf("the first %d of %d bytes unpack without an error", n, len(data))
		}
	}
}

func TestDecompress(t *testing.T) {
	data := archive(t, reg("a", "content"))
	var gz, zs bytes.Buffer
	g := gzip.NewWriter(&gz)
	g.Write(data)
	g.Close()
	z, err := zstd.NewWriter(&zs)
	if err != nil {
		t.Fatal(err)
	}
	z.Write(data)
	z.Close()
	for name, blob := range map[string][]byte{"plain": data, "gzip": gz.Bytes(), "zstd": zs.Bytes()} {
		r, err := Decompress(bytes.NewReader(blob))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := io.ReadAll(r)
		r.Close()
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		if name == "plain" {
			continue
		}
		r, err = Decompress(bytes.NewReader(blob[:len(blob)-9]))
		if err == nil {
			_, err = io.ReadAll(r)
		}
		if err == nil {
			t.Errorf("%s: a cut blob is no error", name)
		}
	}
}

// TestRoot holds what only root can make: owners, devices, whiteouts, attributes.
func TestRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: owners, devices and whiteouts need root; the stories in qemu-tests cover them")
	}
	owned := reg("owned", "x")
	owned.Uid, owned.Gid, owned.Mode = 1234, 70000, 0o2755
	owned.PAXRecords = map[string]string{"SCHILY.xattr.user.k": "v\x00w"}
	d, err := apply(t, archive(t, owned, reg(".wh.gone", ""), dir("d/", 0o755), reg("d/.wh..wh..opq", ""),
		reg(".wh.again", ""), dir("again/", 0o750), reg("kept", "x"), reg(".wh.kept", ""), dir("dir/", 0o755), reg(".wh.dir", ""),
		reg(".wh.sub", ""), reg("sub/file", "x"),
		entry{Header: tar.Header{Typeflag: tar.TypeChar, Name: "null", Devmajor: 1, Devminor: 3, Mode: 0o666}},
		entry{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "fifo", Mode: 0o600}}), Options{Limits: limits})
	if err != nil {
		t.Fatal(err)
	}
	stat := func(name string) unix.Stat_t {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(d, name), &st); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return st
	}
	if st := stat("owned"); st.Uid != 1234 || st.Gid != 70000 || st.Mode&0o7777 != 0o2755 {
		t.Errorf("owned: %d:%d %o", st.Uid, st.Gid, st.Mode)
	}
	buf := make([]byte, 16)
	if n, err := unix.Lgetxattr(filepath.Join(d, "owned"), "user.k", buf); err != nil || string(buf[:n]) != "v\x00w" {
		t.Errorf("attribute user.k: %q %v", buf[:max(n, 0)], err)
	}
	if st := stat("gone"); st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0 {
		t.Errorf("gone is no whiteout: mode %o device %d", st.Mode, st.Rdev)
	}
	if st := stat("null"); st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(1, 3) || st.Mode&0o777 != 0o666 {
		t.Errorf("null: mode %o device %d", st.Mode, st.Rdev)
	}
	if st := stat("kept"); st.Mode&unix.S_IFMT != unix.S_IFREG {
		t.Errorf("kept: a whiteout removed what its own layer made: mode %o", st.Mode)
	}
	for name, want := range map[string]bool{"d": true, "again": true, "dir": true, "sub": true, ".": false} {
		n, err := unix.Lgetxattr(filepath.Join(d, name), "trusted.overlay.opaque", buf)
		if got := err == nil && string(buf[:n]) == "y"; got != want {
			t.Errorf("%s opaque: %v (%v), want %v", name, got, err, want)
		}
	}
	if st := stat("again"); st.Mode&0o777 != 0o750 {
		t.Errorf("again: mode %o", st.Mode)
	}
}

// TestHugeHeader: records that would fill the memory before the first entry are refused, whatever kind of header they are in.
func TestHugeHeader(t *testing.T) {
	for _, kind := range []byte{'x', 'g', 'L', 'K'} {
		const size = 64 << 20
		h := make([]byte, 512)
		copy(h, "header")
		copy(h[100:], "0000644\x000000000\x000000000\x00")
		copy(h[124:136], fmt.Sprintf("%011o\x00", size))
		copy(h[136:], "00000000000\x00        ")
		h[156] = kind
		copy(h[257:], "ustar\x0000")
		sum := 0
		for _, c := range h {
			sum += int(c)
		}
		copy(h[148:156], fmt.Sprintf("%06o\x00 ", sum))
		d := t.TempDir()
		fd, err := unix.Open(d, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		r := &counter{r: io.MultiReader(bytes.NewReader(h), io.LimitReader(zeros{}, size+1024))}
		if err := Apply(fd, r, unprivileged); err == nil || !strings.Contains(err.Error(), "read layer") {
			t.Errorf("%c: %v", kind, err)
		}
		if r.n > 4<<20 {
			t.Errorf("%c: %d bytes were read", kind, r.n)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

type counter struct {
	r io.Reader
	n int
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

// TestReplacedParent: after a directory or a link has been replaced, what comes behind goes to the new one.
func TestReplacedParent(t *testing.T) {
	d, err := apply(t, archive(t,
		dir("one/", 0o755), dir("two/", 0o755), sym("s", "one"), reg("s/a", "1"), sym("s", "two"), reg("s/b", "2"),
		dir("d/", 0o755), reg("d/a", "3"), sym("d", "two"), reg("d/c", "4"),
		dir("x/y/", 0o755), reg("x/y/z", "5"), reg("x", "file"), reg("x/y/w", "6"),
		sym("self", "."), reg("self/q", "7"), sym("self/self", "one"), reg("self/r", "8")), unprivileged)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"d Lrwxrwxrwx -> two", "one drwxr-xr-x", `one/a -rw-r--r-- "1"`, `one/r -rw-r--r-- "8"`, `q -rw-r--r-- "7"`, "s Lrwxrwxrwx -> two",
		"self Lrwxrwxrwx -> one", "two drwxr-xr-x", `two/b -rw-r--r-- "2"`, `two/c -rw-r--r-- "4"`, "x drwxr-xr-x", "x/y drwxr-xr-x", `x/y/w -rw-r--r-- "6"`}
	if got := tree(t, d); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestSparse: what GNU tar makes of a file with holes is the file, and its holes count.
func TestSparse(t *testing.T) {
	from := t.TempDir()
	f, err := os.Create(filepath.Join(from, "holes"))
	if err != nil {
		t.Fatal(err)
	}
	const size = 700 << 10
	if _, err := f.WriteAt([]byte("end"), size-3); err != nil {
		t.Fatal(err)
	}
	f.Close()
	for _, format := range []string{"gnu", "pax"} {
		data, err := exec.Command("tar", "-C", from, "--sparse", "--format="+format, "-cf", "-", "holes").Output()
		if err != nil {
			t.Skipf("NOT TESTED: tar: %v", err)
		}
		if len(data) > 100<<10 {
			t.Skipf("NOT TESTED: the file system of the test has no holes")
		}
		d, err := apply(t, data, unprivileged)
		if err != nil {
			t.Fatalf("%s: %v", format, err)
		}
		got, err := os.ReadFile(filepath.Join(d, "holes"))
		if err != nil || !bytes.Equal(got, append(make([]byte, size-3), "end"...)) {
			t.Errorf("%s: %d bytes, %v", format, len(got), err)
		}
		if _, err := apply(t, data, Options{Limits: Limits{Bytes: size / 2, Entries: 10}, Unprivileged: true}); !errors.Is(err, ErrLimit) {
			t.Errorf("%s: holes do not count: %v", format, err)
		}
	}
}

// TestSecurityAttributes: file capabilities are kept, the labels of the machine that built the image are not, and neither are signatures
// that the kernel would believe. A whiteout has no rights, whatever its header says.
func TestSecurityAttributes(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: these attributes need root; the stories in qemu-tests cover them")
	}
	capability := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" // cap_net_bind_service=ep
	f := reg("ping", "x")
	f.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": capability, "SCHILY.xattr.security.selinux": "l", "SCHILY.xattr.security.ima": "\x03",
		"SCHILY.xattr.security.evm": "\x02", "SCHILY.xattr.security.SMACK64EXEC": "x", "SCHILY.xattr.security.apparmor": "y"}
	w := reg(".wh.gone", "")
	w.Mode, w.Uid = 0o6777, 7
	w.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": capability}
	d, err := apply(t, archive(t, f, w), Options{Limits: limits})
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1000)
	n, err := unix.Llistxattr(filepath.Join(d, "ping"), buf)
	if err != nil || string(buf[:n]) != "security.capability\x00" {
		t.Errorf("attributes %q, %v", buf[:max(n, 0)], err)
	}
	if n, err := unix.Lgetxattr(filepath.Join(d, "ping"), "security.capability", buf); err != nil || string(buf[:n]) != capability {
		t.Errorf("%q %v", buf[:max(n, 0)], err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(d, "gone"), &st); err != nil || st.Mode != unix.S_IFCHR|0o600 || st.Uid != 0 {
		t.Errorf("whiteout: mode %o, owner %d, %v", st.Mode, st.Uid, err)
	}
	if n, err := unix.Llistxattr(filepath.Join(d, "gone"), buf); err != nil || n != 0 {
		t.Errorf("whiteout: attributes %q, %v", buf[:max(n, 0)], err)
	}
}

func FuzzApply(f *testing.F) {
	f.Add(archive(f, dir("a/", 0o755), reg("a/b", "x"), sym("a/c", "../../.."), reg("a/c/d", "y"), hard("h", "a/b")))
	f.Add(archive(f, reg(".wh.x", ""), dir("x/", 0o755), reg("x/.wh..wh..opq", ""), reg("x", "file")))
	f.Fuzz(func(t *testing.T, data []byte) {
		apply(t, data, Options{Limits: Limits{Bytes: 1 << 16, Entries: 64}, Unprivileged: true})
	})
}
