package cpio

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/proa-os/proa/image-builder/tree"
	"github.com/proa-os/proa/internal/testenv"
)

func sample(t *testing.T) *tree.Tree {
	t.Helper()
	tr := tree.New()
	for _, e := range []tree.Entry{
		{Path: "sbin", Type: tree.Symlink, Mode: 0o777, Target: "usr/sbin"},
		{Path: "init", Type: tree.File, Mode: 0o755, Size: 5, Content: tree.Bytes("\x7fELF\n")},
		{Path: "etc/proa/modules", Type: tree.File, Mode: 0o640, UID: 3, GID: 1000, Size: 2, Content: tree.Bytes("x\n")},
		{Path: "dev/console", Type: tree.Char, Mode: 0o600, Major: 5, Minor: 1},
		{Path: "empty", Type: tree.File, Mode: 0o644, Content: tree.Bytes("")},
	} {
		if err := tr.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	return tr
}

const pad = "\x00\x00\x00"

// The archive of the format's description, entry by entry.
func TestWrite(t *testing.T) {
	var b bytes.Buffer
	if err := Write(&b, sample(t)); err != nil {
		t.Fatal(err)
	}
	head := func(ino, mode, uid, gid, size, dev, name string) string {
		return "070701" + ino + mode + uid + gid + "00000001" + "00000000" + size + "0000000000000000" + dev + name + "00000000"
	}
	const zero, nodev = "00000000", "0000000000000000"
	want := head("00000001", "000041ed", zero, zero, zero, nodev, "00000004") + "dev\x00" + pad[:2] +
		head("00000002", "00002180", zero, zero, zero, "0000000500000001", "0000000c") + "dev/console\x00" + pad[:2] +
		head("00000003", "000081a4", zero, zero, zero, nodev, "00000006") + "empty\x00" +
		head("00000004", "000041ed", zero, zero, zero, nodev, "00000004") + "etc\x00" + pad[:2] +
		head("00000005", "000041ed", zero, zero, zero, nodev, "00000009") + "etc/proa\x00" + pad[:1] +
		head("00000006", "000081a0", "00000003", "000003e8", "00000002", nodev, "00000011") + "etc/proa/modules\x00" + pad[:1] + "x\n" + pad[:2] +
		head("00000007", "000081ed", zero, zero, "00000005", nodev, "00000005") + "init\x00" + pad[:1] + "\x7fELF\n" + pad[:3] +
		head("00000008", "0000a1ff", zero, zero, "00000008", nodev, "00000005") + "sbin\x00" + pad[:1] + "usr/sbin" +
		head("00000000", zero, zero, zero, zero, nodev, "0000000b") + "TRAILER!!!\x00" + pad[:3]
	got := b.String()
	if b.Len()%512 != 0 || strings.TrimRight(got, "\x00") != strings.TrimRight(want, "\x00") {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
}

func TestCpioReads(t *testing.T) {
	tools := testenv.Tools(t)
	var b bytes.Buffer
	if err := Write(&b, sample(t)); err != nil {
		t.Fatal(err)
	}
	cmd := tools.Command(t.Context(), "cpio", "-itv", "--numeric-uid-gid", "--quiet")
	cmd.Stdin = bytes.NewReader(b.Bytes())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("cpio -itv: %v\n%s", err, out)
	}
	want := `drwxr-xr-x 1 0 0 0 Jan 1 1970 dev
crw------- 1 0 0 5, 1 Jan 1 1970 dev/console
-rw-r--r-- 1 0 0 0 Jan 1 1970 empty
drwxr-xr-x 1 0 0 0 Jan 1 1970 etc
drwxr-xr-x 1 0 0 0 Jan 1 1970 etc/proa
-rw-r----- 1 3 1000 2 Jan 1 1970 etc/proa/modules
-rwxr-xr-x 1 0 0 5 Jan 1 1970 init
lrwxrwxrwx 1 0 0 8 Jan 1 1970 sbin -> usr/sbin
`
	var got strings.Builder
	for line := range strings.Lines(string(out)) {
		got.WriteString(strings.Join(strings.Fields(line), " ") + "\n")
	}
	if got.String() != want {
		t.Errorf("cpio sees\n%swant\n%s", got.String(), want)
	}
	cmd = tools.Command(t.Context(), "cpio", "-idm", "--quiet", "--no-absolute-filenames", "init", "etc/proa/modules", "sbin")
	cmd.Stdin, cmd.Dir = bytes.NewReader(b.Bytes()), t.TempDir()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cpio -id: %v\n%s", err, out)
	}
	if got, err := os.ReadFile(filepath.Join(cmd.Dir, "init")); err != nil || string(got) != "\x7fELF\n" {
		t.Errorf("init: %q, %v", got, err)
	}
}

func TestRefuses(t *testing.T) {
	for want, e := range map[string]tree.Entry{
		"extended attributes":  {Path: "x", Type: tree.Dir, Xattrs: map[string]string{"user.a": "b"}},
		"more than the format": {Path: "x", Type: tree.File, Size: 1 << 32, Content: tree.Bytes("")},
		"expected 9 bytes":     {Path: "x", Type: tree.File, Size: 9, Content: tree.Bytes("12345678")},
	} {
		tr := tree.New()
		if err := tr.Add(e); err != nil {
			t.Fatal(err)
		}
		if err := Write(&bytes.Buffer{}, tr); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	full := errors.New("disk is full")
	if err := Write(broken{full}, sample(t)); !errors.Is(err, full) {
		t.Errorf("got %v, want %v", err, full)
	}
}

type broken struct{ err error }

func (b broken) Write([]byte) (int, error) { return 0, b.err }
