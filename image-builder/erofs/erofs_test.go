package erofs

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/image-builder/tree"
	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/gpt"
	"github.com/proa-os/proa/internal/testenv"
)

const uuid gpt.GUID = "11111111-2222-8333-8444-555555555555"

var deep = "/usr/" + strings.Repeat("long/", 40) + "name"

func sample(t *testing.T) *tree.Tree {
	t.Helper()
	tr := tree.New()
	for _, e := range []tree.Entry{
		{Path: "bin", Type: tree.Symlink, Mode: 0o777, Target: "usr/bin"},
		{Path: "usr/bin/su", Type: tree.File, Mode: 0o4750, UID: 7, GID: 1000, Size: 3, Content: tree.Bytes("set")},
		{Path: "usr/big", Type: tree.File, Mode: 0o644, Size: 100_000, Content: tree.Bytes(strings.Repeat("0123456789", 10_000))},
		{Path: "usr/empty", Type: tree.File, Mode: 0o600, Content: tree.Bytes("")},
		{Path: deep, Type: tree.File, Mode: 0o644, Size: 4, Content: tree.Bytes("deep")},
		{Path: "usr/cap", Type: tree.File, Mode: 0o755, Size: 1, Content: tree.Bytes("c"), Xattrs: map[string]string{"user.note": "hello", "security.capability": "\x01\x00\x00\x02"}},
		{Path: "tmp", Type: tree.Dir, Mode: 0o1777},
		{Path: "root", Type: tree.Dir, Mode: 0o700},
		{Path: "dev/console", Type: tree.Char, Mode: 0o600, GID: 5, Major: 5, Minor: 1},
	} {
		if err := tr.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	return tr
}

func TestMake(t *testing.T) {
	tools := testenv.Tools(t)
	dir := t.TempDir()
	when := time.Date(2025, 11, 1, 0, 0, 0, 0, time.UTC)
	var sums []digest.SHA256
	img := filepath.Join(dir, "img")
	for range 2 {
		size, err := Make(t.Context(), tools, sample(t), img, uuid, when)
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(img)
		if err != nil || int64(len(b)) != size {
			t.Fatalf("%d bytes, %v, want %d", len(b), err, size)
		}
		sums = append(sums, digest.Of(b))
	}
	if sums[0] != sums[1] {
		t.Error("the same tree makes different images")
	}

	run := func(name string, args ...string) string {
		out, err := tools.Command(t.Context(), name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
		return string(out)
	}
	run("fsck.erofs", img)
	if out := run("dump.erofs", "-s", img); !strings.Contains(out, string(uuid)) || !strings.Contains(out, "2025") {
		t.Errorf("superblock has another UUID or time:\n%s", out)
	}
	content, err := os.ReadFile(img)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]struct {
		mode uint16 // of the inode, with the type
		text []string
	}{
		"/":            {0o40755, []string{"directory", "Uid: 0   Gid: 0"}},
		"/tmp":         {0o41777, nil},
		"/root":        {0o40700, nil},
		"/usr/bin/su":  {0o104750, []string{"regular file", "Uid: 7", "Gid: 1000", "Size: 3 ", "Timestamp: 2025-11-01 00:00:00"}},
		"/usr/big":     {0o100644, []string{"Size: 100000", "On-disk size: 100000"}},
		"/usr/empty":   {0o100600, []string{"Size: 0 "}},
		"/usr/cap":     {0o100755, nil},
		"/dev":         {0o40755, nil},
		"/dev/console": {0o20600, []string{"char dev", "Gid: 5"}},
		"/bin":         {0o120777, []string{"symlink", "Size: 7 "}},
	} {
		out := run("dump.erofs", "--path="+path, img)
		for _, w := range want.text {
			if !strings.Contains(out, w) {
				t.Errorf("%s: want %q in\n%s", path, w, out)
			}
		}
		// dump.erofs does not show setuid, setgid and sticky bits, nor devices.
		ino := rawInode(t, content, out)
		if mode := binary.LittleEndian.Uint16(ino[4:]); mode != want.mode {
			t.Errorf("%s: mode %#o, want %#o", path, mode, want.mode)
		}
		if dev := binary.LittleEndian.Uint32(ino[16:]); path == "/dev/console" && dev != 5<<8|1 {
			t.Errorf("%s: device %#x", path, dev)
		}
		if xattrs := binary.LittleEndian.Uint16(ino[2:]); (xattrs > 0) != (path == "/usr/cap") {
			t.Errorf("%s: %d units of extended attributes", path, xattrs)
		}
	}
	for path, want := range map[string]string{"/usr/big": strings.Repeat("0123456789", 10_000), "/usr/bin/su": "set", deep: "deep"} {
		if out := run("dump.erofs", "--cat", "--path="+path, img); out != want {
			t.Errorf("%s: content of %d bytes differs", path, len(out))
		}
	}
}

var nid = regexp.MustCompile(`NID: (\d+)`)

// rawInode returns the inode that dump.erofs's output is about (fs/erofs/erofs_fs.h, erofs_inode_compact).
func rawInode(t *testing.T, img []byte, dump string) []byte {
	t.Helper()
	m := nid.FindStringSubmatch(dump)
	if m == nil {
		t.Fatalf("no NID in\n%s", dump)
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		t.Fatal(err)
	}
	meta := int(binary.LittleEndian.Uint32(img[1024+40:]))
	return img[meta*BlockSize+n*32:][:32]
}

func TestMakeFails(t *testing.T) {
	tools := testenv.Tools(t)
	dir := t.TempDir()
	short := tree.New()
	if err := short.Add(tree.Entry{Path: "f", Type: tree.File, Size: 10, Content: tree.Bytes("short")}); err != nil {
		t.Fatal(err)
	}
	img := filepath.Join(dir, "img")
	if _, err := Make(t.Context(), tools, short, img, uuid, time.Unix(0, 0)); err == nil {
		t.Error("a file shorter than it says was packed")
	}
	if _, err := Make(t.Context(), tools, sample(t), filepath.Join(dir, "none/img"), uuid, time.Unix(0, 0)); err == nil || !strings.Contains(err.Error(), "mkfs.erofs") {
		t.Errorf("no directory: %v", err)
	}
	if _, err := os.Stat(img); err == nil {
		t.Error("half an image was left behind")
	}
}
