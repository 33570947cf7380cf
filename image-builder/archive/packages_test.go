package archive_test

import (
	"strings"
	"testing"

	"github.com/proa-os/proa/image-builder/archive"
)

// stanza is a good entry with changed fields, given as "Field: value"; a field without a value is left out.
func stanza(changes ...string) string {
	fields := [][2]string{{"Package", "hello"}, {"Version", "1.0"}, {"Architecture", "amd64"}, {"Filename", "pool/main/h/hello/hello_1.0_amd64.deb"},
		{"Size", "1000"}, {"SHA256", strings.Repeat("ab", 32)}}
	var b strings.Builder
	for _, f := range fields {
		for _, c := range changes {
			if name, value, _ := strings.Cut(c, ":"); name == f[0] {
				f[1] = strings.TrimSpace(value)
			}
		}
		if f[1] != "" {
			b.WriteString(f[0] + ": " + f[1] + "\n")
		}
	}
	return b.String() + "\n"
}

// TestParsePackagesRefuses what an entry may not say, whoever has signed it.
func TestParsePackagesRefuses(t *testing.T) {
	if list, err := archive.ParsePackages("index", "trixie", strings.NewReader(stanza())); err != nil || len(list) != 1 {
		t.Fatalf("good entry: got %d packages, %v", len(list), err)
	}
	for _, tc := range []struct{ change, want string }{
		{"Package:", `package name ""`},
		{"Package: ../hello", "is not allowed"},
		{"Package: Hello", "is not allowed"},
		{"Version:", "no upstream version"},
		{"Version: 1/2", "is not allowed in the upstream version"},
		{"Filename:", "is not a path to a .deb"},
		{"Filename: /pool/x.deb", "is not a path to a .deb"},
		{"Filename: pool/../../x.deb", "is not a path to a .deb"},
		{"Filename: ./x.deb", "is not a path to a .deb"},
		{"Filename: pool//x.deb", "is not a path to a .deb"},
		{"Filename: pool/x.deb?y=.deb", "is not a path to a .deb"},
		{"Filename: pool/x\x00.deb", "is not a path to a .deb"},
		{"Filename: pool/x.rpm", "is not a path to a .deb"},
		{"Size:", `size "" is not`},
		{"Size: 0", `size "0" is not`},
		{"Size: -5", `size "-5" is not`},
		{"Size: 1e3", `size "1e3" is not`},
		{"Size: 9223372036854775807", "at most 8589934592"},
		{"Size: 99999999999999999999", "is not"},
		{"SHA256:", "parse sha256"},
		{"SHA256: " + strings.Repeat("00", 32), "sha256 is all zero"},
		{"SHA256: " + strings.Repeat("AB", 32), "lower-case"},
		{"SHA256: d41d8cd98f00b204e9800998ecf8427e", "parse sha256"},
	} {
		_, err := archive.ParsePackages("index", "trixie", strings.NewReader(stanza()+stanza(tc.change)))
		if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "index:8: package") {
			t.Errorf("%q: got %v, want an error with the line and %q", tc.change, err, tc.want)
		}
	}
}

// FuzzPackages: whatever is accepted can be fetched from below a mirror and nowhere else.
func FuzzPackages(f *testing.F) {
	f.Add(stanza())
	f.Add(stanza("Package: libc6", "Version: 1:2.41-12+deb13u1", "Architecture: all") + stanza())
	f.Add(strings.Replace(stanza(), "Size", "Depends: a1 (>= 2) | b1,\n c1\nSize", 1))
	f.Fuzz(func(t *testing.T, text string) {
		list, err := archive.ParsePackages("fuzz", "trixie", strings.NewReader(text))
		if err != nil {
			return
		}
		for _, p := range list {
			if p.Size <= 0 || p.SHA256.IsZero() || p.Version.Upstream == "" {
				t.Errorf("got %+v", p)
			}
			const base = "http://m.test/debian"
			url := archive.Mirrors{Main: base}.URL(archive.Main, p.Filename)
			if !strings.HasPrefix(url, base+"/") || strings.Contains(url, "/../") || strings.ContainsAny(url, "?#%\x00\n\r ") || strings.Count(url, "//") != 1 {
				t.Errorf("filename %q makes the address %s", p.Filename, url)
			}
		}
	})
}
