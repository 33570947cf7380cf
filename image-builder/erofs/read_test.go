package erofs

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/proa-os/proa/image-builder/tree"
	"github.com/proa-os/proa/internal/testenv"
)

// images are made by mkfs.erofs: as Make does it, and with the tails of files behind their inodes, as earlier releases have them.
func images(t testing.TB, tr *tree.Tree) map[string][]byte {
	t.Helper()
	tools := testenv.Tools(t)
	dir := t.TempDir()
	made := map[string][]byte{}
	if _, err := Make(t.Context(), tools, tr, filepath.Join(dir, "plain"), uuid, time.Unix(1e9, 0)); err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := tr.WriteTar(&archive, time.Unix(1e9, 0)); err != nil {
		t.Fatal(err)
	}
	cmd := tools.Command(t.Context(), "mkfs.erofs", "--tar=f", "--quiet", "-b4096", "-T1", filepath.Join(dir, "inline"))
	cmd.Stdin = &archive
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range []string{"plain", "inline"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		made[name] = b
	}
	return made
}

func dump(t *testing.T, tr *tree.Tree) string {
	t.Helper()
	var b strings.Builder
	if err := tr.Dump(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// What mkfs.erofs has written is read back as it was: types, modes, owners, devices, targets, contents, attributes.
func TestRead(t *testing.T) {
	tr := sample(t)
	add := func(e tree.Entry) {
		if err := tr.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 700 { // a directory of several blocks
		add(tree.Entry{Path: fmt.Sprintf("many/a rather long name %d", i), Type: tree.File, Mode: 0o644, Size: int64(i * 13),
			Content: tree.Bytes(bytes.Repeat([]byte{byte(i)}, i*13))})
	}
	for i := range 3 { // attributes that are kept once for all
		add(tree.Entry{Path: fmt.Sprintf("shared%d", i), Type: tree.File, Mode: 0o644, UID: 1 << 17, GID: 70_000, Size: 4096, Content: tree.Bytes(make([]byte, 4096)),
			Xattrs: map[string]string{"user.note": strings.Repeat("the same ", 50)}})
	}
	add(tree.Entry{Path: "dev/big", Type: tree.Char, Mode: 0o600, Major: 300, Minor: 70_000})
	for name, img := range images(t, tr) {
		got, err := Read(bytes.NewReader(img))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got, want := dump(t, got), dump(t, tr); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
		}
		s, err := ReadSuperblock(bytes.NewReader(img))
		if err != nil || s.Size != int64(len(img)) {
			t.Errorf("%s: got size %d, %v, want %d", name, s.Size, err, len(img))
		}
		if _, err := Read(bytes.NewReader(img[:len(img)/2])); err == nil {
			t.Errorf("%s: half an image was read", name)
		}
	}
}

func FuzzRead(f *testing.F) {
	small := tree.New()
	for _, e := range []tree.Entry{
		{Path: "a/f", Type: tree.File, Mode: 0o644, Size: 3, Content: tree.Bytes("abc"), Xattrs: map[string]string{"user.a": "b"}},
		{Path: "l", Type: tree.Symlink, Mode: 0o777, Target: "a"},
	} {
		if err := small.Add(e); err != nil {
			f.Fatal(err)
		}
	}
	for _, img := range images(f, small) {
		f.Add(img)
	}
	f.Fuzz(func(_ *testing.T, b []byte) {
		t, err := Read(bytes.NewReader(b))
		if err == nil {
			t.Sums() // contents may be cut off; reading must end
		}
	})
}
