package elfcheck

import (
	"encoding/binary"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"
)

func file(p, name string) File {
	return File{Path: p, Open: func() (io.ReadCloser, error) { return os.Open(name) }}
}

// /bin/ls of the host stands for any dynamic program: it needs libc.so.6.
func TestCheck(t *testing.T) {
	files := []File{file("usr/bin/ls", "/bin/ls")}
	none := func(string) bool { return false }
	got, err := Check(files, none, []string{"/usr/lib"})
	if err != nil {
		t.Fatal(err)
	}
	named := false
	for _, m := range got {
		named = named || m == Missing{"usr/bin/ls", "libc.so.6"}
	}
	if !named {
		t.Errorf("libc.so.6 is not missing in an empty tree: %v", got)
	}
	all := func(p string) bool { return strings.HasPrefix(p, "usr/lib/") }
	if got, err := Check(files, all, []string{"/usr/lib"}); err != nil || len(got) != 0 {
		t.Errorf("got %v, %v; want nothing missing", got, err)
	}
}

func TestNotELF(t *testing.T) {
	f := File{Path: "etc/x", Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("#!")), nil }}
	if got, err := Check([]File{f}, nil, nil); err != nil || got != nil {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestRequiredDlopens(t *testing.T) {
	desc := `[{"soname":["libkmod.so.2"],"priority":"required"},{"soname":["libtss2.so.0"],"priority":"suggested"}]`
	desc += strings.Repeat("\x00", 4-len(desc)%4)
	var b []byte
	b = binary.LittleEndian.AppendUint32(b, 4)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(desc)))
	b = binary.LittleEndian.AppendUint32(b, 0x407c0c0a)
	b = append(b, "FDO\x00"+desc...)
	if got := requiredDlopens(b, binary.LittleEndian); !reflect.DeepEqual(got, []string{"libkmod.so.2"}) {
		t.Errorf("got %q", got)
	}
	for i := range b { // cut notes end the walk, they do not crash it
		requiredDlopens(b[:i], binary.LittleEndian)
	}
}
