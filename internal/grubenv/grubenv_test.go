package grubenv

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/slot"
	"github.com/proa-os/proa/internal/testenv"
)

// block pads text to a block.
func block(text string) []byte {
	b := append([]byte(signature), text...)
	return append(b, bytes.Repeat([]byte("#"), Size-len(b))...)
}

func TestParse(t *testing.T) {
	for text, want := range map[string]slot.Counts{
		"":                           {},
		"tries=proa_1.0.1+3.efi=2\n": {"proa_1.0.1+3.efi": 2},
		"x=y\n# tries=a=1\ntries=a.efi=1 b.efi=0\nz=tries=c=1\n": {"a.efi": 1, "b.efi": 0},
		"tries=a=1\ntries=b=2\n":                                 {"b": 2},
		"tries=a=b=1 c d= e=x f=-1 g=01 h=256 =3 i=99\n":         {"a=b": 1, "": 3, "i": 99},
		"other=a\\\ntries=b=1\ntries=c=1\n":                      {"c": 1}, // an escaped line break
		"tries=a\\\\b=1\n":                                       {`a\b`: 1},
		"tries=":                                                 {}, // cut off by the end
		"tries=\n":                                               {},
		strings.Repeat("v=1\n", 100) + "tries=proa_2.0.0+3.efi=1\n": {"proa_2.0.0+3.efi": 1},
	} {
		got, err := Parse(block(text))
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("%q: got %v, %v, want %v", text, got, err, want)
		}
	}
	for _, b := range [][]byte{nil, Empty()[:Size-1], append(Empty(), '#'), make([]byte, Size), bytes.Replace(Empty(), []byte("Block"), []byte("block"), 1)} {
		if got, err := Parse(b); err == nil || !strings.Contains(err.Error(), "expected 1024 bytes") {
			t.Errorf("%d bytes %.30q: got %v, %v", len(b), b, got, err)
		}
	}
}

// grub-editenv reads what we make, and we read what it writes into it.
func TestGRUB(t *testing.T) {
	tools := testenv.Tools(t)
	name := filepath.Join(t.TempDir(), File)
	editenv := func(args ...string) string {
		t.Helper()
		out, err := tools.Command(t.Context(), "grub-editenv", append([]string{name}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("grub-editenv %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	read := func(want slot.Counts) {
		t.Helper()
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Parse(b); err != nil || !maps.Equal(got, want) {
			t.Errorf("got %v, %v, want %v in\n%s", got, err, want, b)
		}
	}
	if err := os.WriteFile(name, Empty(), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := editenv("list"); got != "" {
		t.Errorf("grub-editenv finds %q in an empty block", got)
	}
	editenv("set", "tries=proa_1.0.1+3.efi=2 proa_1.0.2~rc.1+3.efi=0")
	read(slot.Counts{"proa_1.0.1+3.efi": 2, "proa_1.0.2~rc.1+3.efi": 0})
	editenv("set", "other=back\\slash\ntries=x=1")
	read(slot.Counts{"proa_1.0.1+3.efi": 2, "proa_1.0.2~rc.1+3.efi": 0})
	editenv("set", "tries=proa_1.0.1+3.efi=1")
	read(slot.Counts{"proa_1.0.1+3.efi": 1})
	editenv("unset", "tries")
	read(slot.Counts{})
	editenv("create") // with its comment
	read(slot.Counts{})
}

// grub-editenv reads the kernel arguments, whatever their length.
func TestArguments(t *testing.T) {
	tools := testenv.Tools(t)
	for _, words := range [][]string{nil, {"ignition.kargs=2", "console=ttyS1,115200n8", "a.b-c_d=e:/@,+~"}, {strings.Repeat("x", 985)}, {strings.Repeat("x", 986)}, {strings.Repeat("x", 1500)}} {
		b, err := Arguments(ArgumentsFile, words)
		if err != nil || len(b)%Size != 0 {
			t.Fatalf("got %d bytes, %v", len(b), err)
		}
		name := filepath.Join(t.TempDir(), "block")
		if err := os.WriteFile(name, b, 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := tools.Command(t.Context(), "grub-editenv", name, "list").CombinedOutput()
		if want := "ignition=" + strings.Join(words, " ") + "\n"; err != nil || string(out) != want {
			t.Errorf("%d bytes: got %q, %v, want %q", len(b), out, err, want)
		}
	}
	for _, bad := range []string{"", "a b", `a"`, `a\`, "a'", "$a", "é", "a\n"} {
		if _, err := Arguments(PlatformFile, []string{bad}); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("tries=a=1\n")
	f.Add("a\\\nb=c\\")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > Size-len(signature) {
			return
		}
		counts, err := Parse(block(text))
		if err != nil {
			t.Fatal(err)
		}
		for f, n := range counts {
			if n < 0 || n > 255 || strings.ContainsAny(f, " \n") {
				t.Errorf("%q: %d tries", f, n)
			}
		}
	})
}
