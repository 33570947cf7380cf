package archive_test

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/proa-os/proa/image-builder/archive"
)

func TestFindMirrors(t *testing.T) {
	oneLine := fstest.MapFS{
		"sources.list": {Data: []byte("# deb http://commented.test/debian x main\n" +
			"deb-src http://source.test/debian bookworm main\n" +
			"deb cdrom:[Debian]/debian bookworm main\n" +
			"deb [arch=amd64 signed-by=/k.gpg] http://m.test/debian/ bookworm main # here\n" +
			"deb http://later.test/debian bookworm main\n")},
		"sources.list.d/security.list": {Data: []byte("deb\thttps://s.test/debian-security bookworm-security main\n")},
	}
	stanzas := fstest.MapFS{
		"sources.list.d/a.sources": {Data: []byte("Types: deb\nURIs: https://other.test/repo\nSuites: x\n\n" +
			"Enabled: no\nTypes: deb\nURIs: http://disabled.test/debian\n\n" +
			"Types: deb-src\nURIs: http://source.test/debian\n\n" +
			"Types: deb deb-src\nURIs: tor+http://t.test/debian\n http://m.test/debian\nSuites: trixie\n")},
		"sources.list.d/b.sources.save": {Data: []byte("garbage")},
	}
	m := func(main, security string) archive.Mirrors { return archive.Mirrors{Main: main, Security: security} }
	for _, tc := range []struct {
		name           string
		flag, manifest archive.Mirrors
		apt            fstest.MapFS
		want           archive.Mirrors
	}{
		{"flag wins", m("http://f.test/debian", ""), m("http://g.test/debian", ""), oneLine, m("http://f.test/debian", "http://f.test/debian-security")},
		{"manifest wins over host", m("", ""), m("https://g.test/x/debian/", ""), oneLine, m("https://g.test/x/debian", "https://g.test/x/debian-security")},
		{"both by flag", m("file:///srv/main", "file:///srv/sec"), m("", ""), oneLine, m("file:///srv/main", "file:///srv/sec")},
		{"one-line", m("", ""), m("", ""), oneLine, m("http://m.test/debian", "https://s.test/debian-security")},
		{"stanzas", m("", ""), m("", ""), stanzas, m("http://m.test/debian", "http://m.test/debian-security")},
	} {
		got, err := archive.FindMirrors(tc.flag, tc.manifest, tc.apt)
		if err != nil || got != tc.want {
			t.Errorf("%s: got %v, %v, want %v", tc.name, got, err, tc.want)
		}
	}
}

func TestFindMirrorsErrors(t *testing.T) {
	for _, tc := range []struct {
		name string
		flag archive.Mirrors
		apt  fstest.MapFS
		want string
	}{
		{"no apt", archive.Mirrors{}, fstest.MapFS{}, "pass --mirror URL"},
		{"another distribution", archive.Mirrors{}, fstest.MapFS{"sources.list": {Data: []byte("deb http://m.test/ubuntu noble main\n")}}, "pass --mirror URL"},
		{"no neighbour", archive.Mirrors{Main: "http://m.test/pub"}, nil, "pass --security-mirror URL"},
		{"only security", archive.Mirrors{Security: "http://m.test/debian-security"}, nil, "without a main mirror"},
		{"scheme", archive.Mirrors{Main: "ftp://m.test/debian"}, nil, `"ftp://m.test/debian" is not an http, https or file URL`},
		{"no host", archive.Mirrors{Main: "m.test/debian"}, nil, `"m.test/debian" is not an http, https or file URL`},
		{"broken stanza", archive.Mirrors{}, fstest.MapFS{"sources.list.d/x.sources": {Data: []byte("Types: deb\nwhat\n")}}, "sources.list.d/x.sources:2: expected"},
	} {
		_, err := archive.FindMirrors(tc.flag, archive.Mirrors{}, tc.apt)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want an error with %q", tc.name, err, tc.want)
		}
	}
}

func TestURL(t *testing.T) {
	m := archive.Mirrors{Main: "http://m.test/debian", Security: "http://s.test/debian-security"}
	for suite, want := range map[string]string{
		"trixie": "http://m.test/debian/pool/x", "trixie-updates": "http://m.test/debian/pool/x", "trixie-security": "http://s.test/debian-security/pool/x",
	} {
		if got := m.URL(archive.Of(suite), "pool/x"); got != want {
			t.Errorf("%s: got %s, want %s", suite, got, want)
		}
	}
}

// FuzzFindMirrors reads whatever a host's administrator has written.
func FuzzFindMirrors(f *testing.F) {
	f.Add("deb [arch=amd64] http://m.test/debian/ trixie main\n", "Types: deb\nURIs: http://m.test/debian\nSuites: trixie\n")
	f.Fuzz(func(t *testing.T, list, sources string) {
		m, err := archive.FindMirrors(archive.Mirrors{}, archive.Mirrors{},
			fstest.MapFS{"sources.list": {Data: []byte(list)}, "sources.list.d/x.sources": {Data: []byte(sources)}})
		if err != nil {
			return
		}
		for _, u := range []string{m.Main, m.Security} {
			if !strings.HasPrefix(u, "http://") && !strings.HasPrefix(u, "https://") && !strings.HasPrefix(u, "file:///") || strings.HasSuffix(u, "/") {
				t.Errorf("got mirror %q", u)
			}
		}
	})
}
