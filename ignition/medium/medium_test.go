package medium

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/proa-os/proa/internal/testenv"
)

// files are on every medium of testdata, which genisoimage and xorriso have made.
var files = map[string]string{
	"openstack/latest/user_data": `{"ignition":{"version":"3.4.0"}}`,
	"vendor-data":                `{"ignition":{"version":"3.5.0"}}`,
	"long-file-name.txt":         strings.Repeat("x", 5000),
	"empty":                      "",
}

func unzip(t testing.TB, name string) []byte {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func check(t *testing.T, raw []byte, kind, label string) {
	t.Helper()
	v, err := Open(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	if v.Kind != kind || v.Label != label {
		t.Errorf("got %s %q, want %s %q", v.Kind, v.Label, kind, label)
	}
	for name, want := range files {
		if got, err := v.ReadFile("/"+name, 8000); err != nil || string(got) != want {
			t.Errorf("%s: got %.40q, %v", name, got, err)
		}
	}
	if _, err := v.ReadFile("OpenStack/LATEST/User_Data", 100); err != nil {
		t.Errorf("another case: %v", err)
	}
	for _, name := range []string{"none", "openstack/none", "empty/x", "/x/../../etc/passwd"} {
		if _, err := v.ReadFile(name, 100); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := v.ReadFile("long-file-name.txt", 4999); err == nil || !strings.HasSuffix(err.Error(), "expected at most 4999 bytes, found 5000") {
		t.Errorf("limit: got %v", err)
	}
	if _, err := v.ReadFile("openstack", 100); err == nil {
		t.Error("a directory was read")
	}
}

func TestForeignDiscs(t *testing.T) {
	tests := []struct{ name, kind, label string }{
		{"joliet", "iso9660", "config-2"}, {"rock", "iso9660", "cidata"}, {"xorriso", "iso9660", "XORRISO"}, {"bridge", "udf", "BRIDGE"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { check(t, unzip(t, "testdata/"+tt.name+".iso.gz"), tt.kind, tt.label) })
	}
}

// Without Joliet and Rock Ridge names are mangled; their versions and dots are not part of them.
func TestPlainISO(t *testing.T) {
	v, err := Open(bytes.NewReader(unzip(t, "testdata/plain.iso.gz")))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := v.ReadFile("OPENSTAC/LATEST/USER_DAT", 100); err != nil || string(b) != files["openstack/latest/user_data"] {
		t.Errorf("got %q, %v", b, err)
	}
}

// A record may end with its name, without the byte that pads it.
func TestUnpaddedRecord(t *testing.T) {
	b := append(make([]byte, 33), "AB"...)
	b[0], b[32] = 35, 2
	if e, ok := new(iso).record(b); !ok || e.name != "AB" {
		t.Errorf("got %+v, %v", e, ok)
	}
}

func TestForeignFAT(t *testing.T) {
	tools := testenv.Tools(t)
	tests := []struct{ name, size string }{{"12", "2048"}, {"16", "16384"}, {"32", "66000"}}
	for _, tt := range tests {
		t.Run("FAT"+tt.name, func(t *testing.T) {
			dir := t.TempDir()
			image := filepath.Join(dir, "image")
			run := func(program string, args ...string) {
				t.Helper()
				if out, err := tools.Command(t.Context(), program, args...).CombinedOutput(); err != nil {
					t.Fatalf("%s: %v: %s", program, err, out)
				}
			}
			run("mkfs.vfat", "-C", "-F", tt.name, "-s", "1", "-n", "CONFIG-2", image, tt.size)
			run("mmd", "-i", image, "::openstack", "::openstack/latest")
			for name, text := range files {
				file := filepath.Join(dir, filepath.Base(name))
				if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
				run("mcopy", "-i", image, file, "::"+name)
			}
			raw, err := os.ReadFile(image)
			if err != nil {
				t.Fatal(err)
			}
			check(t, raw, "vfat", "CONFIG-2")
		})
	}
}

func TestOtherMedia(t *testing.T) {
	for name, raw := range map[string][]byte{"empty": nil, "short": make([]byte, 600), "zeros": make([]byte, 1<<20)} {
		if v, err := Open(bytes.NewReader(raw)); err == nil {
			t.Errorf("%s: got %+v", name, v)
		}
	}
}

// FuzzOpen: hostile media end in errors, soon and with little memory. A seed is a medium's first blocks and where to change them.
func FuzzOpen(f *testing.F) {
	whole := map[string][]byte{}
	for _, name := range []string{"joliet", "rock", "bridge"} {
		whole[name] = unzip(f, "testdata/"+name+".iso.gz")
		f.Add(name, uint32(32768+156), []byte{0xff, 0xff})
		f.Add(name, uint32(256*2048+16), []byte{0, 0, 0, 0, 1})
	}
	f.Add("fat", uint32(0), append(make([]byte, 510), 0x55, 0xaa))
	f.Fuzz(func(t *testing.T, name string, at uint32, change []byte) {
		raw := bytes.Clone(whole[name])
		if raw == nil {
			raw = make([]byte, 64<<10)
		}
		copy(raw[min(int(at), len(raw)):], change)
		v, err := Open(bytes.NewReader(raw))
		if err != nil {
			return
		}
		for name := range files {
			if b, err := v.ReadFile(name, 8000); err == nil && len(b) > 8000 {
				t.Errorf("got %d bytes", len(b))
			}
		}
	})
}
