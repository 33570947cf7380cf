package tree

import (
	"bytes"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/digest"
)

func TestReport(t *testing.T) {
	entries := []Entry{file("etc/hosts", "local"), link("bin", "usr/bin"), dir("tmp", 0o1777), file("a b", ""), link("odd", "x y"),
		{Path: "dev/null", Type: Char, Mode: 0o666, Major: 1, Minor: 3}}
	entries[0].Package, entries[0].Xattrs = "netbase", map[string]string{"user.x": "\x01"}
	tr := make1(t, entries...)
	sums, err := tr.Sums()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := tr.Report(&b, sums); err != nil {
		t.Fatal(err)
	}
	want := `"a b": file 0644 0:0 0 ` + digest.Of(nil).String() + ` -
bin: symlink 0777 0:0 usr/bin -
dev: dir 0755 0:0 -
dev/null: char 0666 0:0 1:3 -
etc: dir 0755 0:0 netbase
etc/hosts: file 0644 0:0 5 ` + digest.Of([]byte("local")).String() + ` netbase user.x=01
odd: symlink 0777 0:0 "x y" -
tmp: dir 1777 0:0 -
`
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}

func TestSumsOfAFileThatChanged(t *testing.T) {
	tr := make1(t, Entry{Path: "f", Type: File, Size: 9, Content: Bytes("short")}, file("g", "g"))
	if _, err := tr.Sums(); err == nil || !strings.Contains(err.Error(), "expected 9 bytes, found 5") {
		t.Errorf("got %v", err)
	}
}
