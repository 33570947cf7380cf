package budget

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/testenv"
)

const sum = " e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 "

const report = `bin: symlink 0777 0:0 usr/bin base-files
dev/console: char 0600 0:0 5:1 -
usr: dir 0755 0:0 base-files
usr/bin/mount: file 4755 0:0 59000000` + sum + `mount
usr/bin/wall: file 2755 0:5 1000000` + sum + `util-linux
usr/lib/libc.so.6: file 0755 0:0 2000000` + sum + `libc6
usr/lib/modules/e1000.ko: file 0644 0:0 3000000` + sum + `linux user.x=00
"usr/lib/a b": file 0644 0:0 10` + sum + `libc6
tmp: dir 1777 0:0 proa
`

func usage(t *testing.T) *Usage {
	t.Helper()
	u, err := Read(strings.NewReader(report))
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestRead(t *testing.T) {
	u := usage(t)
	if want := []string{"usr/bin/mount", "usr/bin/wall"}; !reflect.DeepEqual(u.Setid, want) {
		t.Errorf("got setuid and setgid files %q, want %q", u.Setid, want)
	}
	if want := map[string]int64{"mount": 59e6, "util-linux": 1e6, "libc6": 2000010, "linux": 3e6}; !reflect.DeepEqual(u.packages, want) {
		t.Errorf("got packages %v, want %v", u.packages, want)
	}
	if u.Files["usr/lib/libc.so.6"] != 2e6 || u.dirs["usr/bin"] != 60e6 || u.dirs["usr/lib/modules"] != 3e6 {
		t.Errorf("got files %v, directories %v", u.Files, u.dirs)
	}
	for _, bad := range []string{"x", "x: file", "x: file 0644 0:0 5 6", "x: file rw 0:0 1" + sum + "p", "x: file 0644 0:0 a" + sum + "p"} {
		if _, err := Read(strings.NewReader("usr: dir 0755 0:0 p\n" + bad + "\n")); err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%q: got %v, want an error in line 2", bad, err)
		}
	}
}

func items(root, setid int64) []Item {
	return []Item{
		{Name: "root image", Value: root, Limit: 320e6, Bytes: true},
		{Name: "packages", Value: 86},
		{Name: "setuid files", Value: setid, Zero: true},
	}
}

func TestWrite(t *testing.T) {
	var b bytes.Buffer
	if err := Write(&b, items(240e6, 0)); err != nil {
		t.Fatal(err)
	}
	want := "  root image                 240.0 MB of   320.0 MB   75 %\n" +
		"  packages                         86 of          -\n" +
		"  setuid files                      0 of          0\n"
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
	b.Reset()
	if err := Write(&b, items(330e6, 2)); err != nil || strings.Count(b.String(), "TOO MUCH") != 2 {
		t.Errorf("got %v\n%s", err, b.String())
	}
}

func TestCheck(t *testing.T) {
	if err := Check(items(320e6, 0), usage(t), nil); err != nil {
		t.Errorf("everything is within its budget: got %v", err)
	}
	earlier, err := Read(strings.NewReader("usr/bin/mount: file 4755 0:0 58000000" + sum + "mount\nusr/lib/libc.so.6: file 0755 0:0 2100000" + sum + "libc6\n"))
	if err != nil {
		t.Fatal(err)
	}
	err = Check(items(320e6+1, 2), usage(t), earlier)
	if err == nil {
		t.Fatal("two budgets are passed, and nothing says so")
	}
	for _, want := range []string{
		"root image is 320.0 MB, the budget is 320.0 MB", "setuid files is 2, the budget is 0: usr/bin/mount, usr/bin/wall",
		"59.0 MB  mount\n", "60.0 MB  usr/bin\n", "[budget]",
		"by package:\n       3.0 MB  linux\n       1.0 MB  mount\n       1.0 MB  util-linux\nby directory:\n       3.0 MB  usr/lib/modules\n       2.0 MB  usr/bin\n",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "packages is") {
		t.Errorf("packages have no budget:\n%v", err)
	}
}

// The measure is what a person gets from zstd -19, and is remembered by the sum. As long as a lower level shows that the budget holds, that
// will do.
func TestMeasure(t *testing.T) {
	tools := testenv.Tools(t)
	name := filepath.Join(t.TempDir(), "root.img")
	if err := os.WriteFile(name, bytes.Repeat([]byte(report), 1000), 0o644); err != nil {
		t.Fatal(err)
	}
	m := Memory{Dir: filepath.Join(t.TempDir(), "budget")}
	s := digest.Of([]byte("x"))
	quick, err := m.Within(t.Context(), tools, name, s, 1<<20)
	if err != nil || quick.Level != 3 || quick.Size <= 0 {
		t.Errorf("a large budget: got %+v, %v, want level 3", quick, err)
	}
	if c, err := m.Within(t.Context(), tools, name, digest.Of([]byte("z")), 1); err != nil || c.Level != Best {
		t.Errorf("a budget that nothing holds: got %+v, %v, want level %d", c, err, Best)
	}
	got, err := m.Measure(t.Context(), tools, name, s, Best)
	if err != nil {
		t.Fatal(err)
	}
	compress := tools.Command(t.Context(), "zstd", "-19", "-q", name)
	if out, err := compress.CombinedOutput(); err != nil {
		t.Fatalf("zstd: %v\n%s", err, out)
	}
	if fi, err := os.Stat(name + ".zst"); err != nil || fi.Size() != got {
		t.Errorf("measured %d bytes, zstd -19 makes %v, %v", got, fi.Size(), err)
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if again, err := m.Within(t.Context(), tools, name, s, 1<<20); err != nil || again != (Compressed{got, Best}) {
		t.Errorf("measured again: got %+v, %v, want %d from memory", again, err, got)
	}
	if _, err := m.Measure(t.Context(), tools, name, digest.Of([]byte("y")), Best); err == nil {
		t.Error("a missing file: no error")
	}
}
