package extent

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/uki"
)

// stub is the least PE file that uki.Build puts sections behind.
func stub() []byte {
	const peAt, optSize, headers = 0x80, 240, 0x600
	b := make([]byte, headers+512)
	copy(b, "MZ")
	b[0x3c] = peAt
	copy(b[peAt:], "PE\x00\x00\x64\x86")
	le := binary.LittleEndian
	le.PutUint16(b[peAt+6:], 1)
	le.PutUint16(b[peAt+20:], optSize)
	opt := b[peAt+24:]
	le.PutUint16(opt, 0x20b)
	le.PutUint32(opt[32:], 0x1000)
	le.PutUint32(opt[36:], 512)
	le.PutUint32(opt[56:], 0x2000)
	le.PutUint32(opt[60:], headers)
	le.PutUint32(opt[108:], 16)
	section := opt[optSize:]
	copy(section, ".text")
	le.PutUint32(section[8:], 4)
	le.PutUint32(section[12:], 0x1000)
	le.PutUint32(section[16:], 512)
	le.PutUint32(section[20:], headers)
	copy(b[headers:], "code")
	return b
}

// member is an entry of a cpio archive, with what fills it up.
func member(name string, mode int, content string) string {
	pad := func(s string) string { return s + "\x00\x00\x00"[:(4-len(s)%4)%4] }
	h := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", 1, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0)
	return pad(h+name+"\x00") + pad(content)
}

func archive() string {
	return member("dev", 0o040755, "") + member("dev/console", 0o020600, "") + member("init", 0o100755, "\x7fELF five") +
		member("./usr/lib/modules/6.12.1/a.ko", 0o100644, "module") + member("empty", 0o100644, "") + member("bin", 0o120777, "usr/bin") +
		member(cpioTrailer, 0, "") + "\x00\x00\x00\x00"
}

func program(t testing.TB, initrd string) []byte {
	t.Helper()
	b, err := uki.Build(stub(), uki.Contents{OSRelease: "ID=proa\n", Cmdline: "quiet", Uname: "6.12", Linux: stub(), Initrd: []byte(initrd)})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestReadBoot(t *testing.T) {
	for initrd, want := range map[string]string{
		archive():                        ".text=code .osrel=ID=proa cmdline .uname=6.12 .linux=MZ init=\x7fELF usr/lib/modules/6.12.1/a.ko=module",
		"\x28\xb5\x2f\xfd as compressed": ".initrd=\x28\xb5\x2f\xfd as compressed",
	} {
		b := program(t, initrd)
		m, err := ReadBoot(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		check(t, m, int64(len(b)))
		var got []string
		for _, f := range m.Files {
			got = append(got, f.Path+"="+string(b[f.Offset:f.Offset+f.Size]))
		}
		at := -1
		for _, w := range strings.Split(want, " ") {
			i := slices.IndexFunc(got, func(g string) bool { return strings.Contains(g, w) })
			if i < 0 || len(want) > 40 && i <= at {
				t.Errorf("got %q, want %q behind number %d", got, w, at)
			}
			at = i
		}
		if len(initrd) > 100 && len(got) != 7 {
			t.Errorf("got %d files, want 7: %q", len(got), got)
		}
	}
}

func TestReadBootRefuses(t *testing.T) {
	good := archive()
	for want, initrd := range map[string]string{
		"unexpected EOF":                       member("init", 0o100755, "x"),
		`begins with "070702"`:                 member("init", 0o100755, "x") + strings.Replace(member("b", 0, ""), "070701", "070702", 1),
		`mode "0000000z"`:                      strings.Replace(good, "000041ed", "0000000z", 1),
		`name of "00000000"`:                   strings.Replace(good, "00000004", "00000000", 1),
		`name of "00001001"`:                   strings.Replace(good, "00000004", "00001001", 1),
		"\"init\": ends at 4294967":            strings.Replace(good, fmt.Sprintf("%08x", len("\x7fELF five")), "fffffff0", 1),
		"name at 110: unexpected EOF":          strings.Replace(member("dev", 0o040755, ""), "00000004", "00000fff", 1),
		"header at 116: unexpected EOF":        member("dev", 0o040755, "")[:116] + "070701",
		"section .initrd: header at 116 begin": member("dev", 0o040755, "") + strings.Repeat("x", 200),
	} {
		b := program(t, initrd)
		if _, err := ReadBoot(bytes.NewReader(b), int64(len(b))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	b := program(t, good)
	if _, err := ReadBoot(bytes.NewReader(b), int64(len(b)-1024)); err == nil || !strings.Contains(err.Error(), "section .initrd") {
		t.Errorf("cut off: got %v", err)
	}
	if _, err := ReadBoot(strings.NewReader("none"), 4); err == nil || !strings.Contains(err.Error(), "read extents of boot program: open boot program") {
		t.Errorf("no program: got %v", err)
	}
}

func FuzzReadBoot(f *testing.F) {
	f.Add([]byte(archive()))
	f.Add([]byte("no archive"))
	f.Fuzz(func(t *testing.T, initrd []byte) {
		if len(initrd) == 0 {
			return
		}
		b := program(t, string(initrd))
		m, err := ReadBoot(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		check(t, m, int64(len(b)))
		if err := m.Hash(bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
	})
}
