package archive_test

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/proa-os/proa/image-builder/archive"
	"github.com/proa-os/proa/image-builder/archivetest"
)

const (
	releaseURL = "/debian/dists/trixie/InRelease"
	indexURL   = "/debian/dists/trixie/main/binary-amd64/Packages.xz"
)

func newArchive(t *testing.T) *archivetest.Archive {
	a := archivetest.New(t)
	a.Add("trixie", archivetest.Deb{Name: "hello", Version: "1:2.0-1", Fields: map[string]string{"Depends": "libc6 (>= 2.41)"}})
	a.Add("trixie", archivetest.Deb{Name: "libc6", Version: "2.41-12", Arch: "amd64"})
	a.Add("trixie-security", archivetest.Deb{Name: "libc6", Version: "2.41-12+deb13u1"})
	a.Publish()
	return a
}

func TestPackages(t *testing.T) {
	c := newArchive(t).Client()
	list, rel, err := c.Packages(t.Context(), "trixie", "amd64")
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, p := range list {
		fmt.Fprintln(&got, p.Name, p.Version, p.Arch, p.Suite, p.Filename, p.Depends)
	}
	want := "hello 1:2.0-1 amd64 trixie pool/main/hello/hello_2.0-1_amd64.deb libc6 (>= 2.41)\n" +
		"libc6 2.41-12 amd64 trixie pool/main/libc6/libc6_2.41-12_amd64.deb \n"
	if got.String() != want {
		t.Errorf("got\n%swant\n%s", got.String(), want)
	}
	if !strings.Contains(rel.Signer, "Test Archive") {
		t.Errorf("signer: got %q, want the test archive's user id", rel.Signer)
	}
	if list, _, err = c.Packages(t.Context(), "trixie-security", "amd64"); err != nil || len(list) != 1 {
		t.Errorf("security: got %d packages, %v, want 1", len(list), err)
	}
}

// TestPackagesRefused changes one thing at a time, as an attacker or an accident would.
func TestPackagesRefused(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spoil func(*archivetest.Archive, *archive.Client)
		want  string
	}{
		{"index tampered, same size", func(a *archivetest.Archive, _ *archive.Client) {
			b := bytes.Clone(a.Get(indexURL))
			b[len(b)/2] ^= 1
			a.Put(indexURL, b)
		}, "Packages.xz: expected sha256"},
		{"index cut", func(a *archivetest.Archive, _ *archive.Client) {
			a.Put(indexURL, a.Get(indexURL)[:100])
		}, "found 100"},
		{"index longer", func(a *archivetest.Archive, _ *archive.Client) {
			a.Put(indexURL, append(bytes.Clone(a.Get(indexURL)), 0))
		}, "Packages.xz: expected"},
		{"index larger than named", func(a *archivetest.Archive, _ *archive.Client) {
			name := "main/binary-amd64/Packages"
			a.PublishIndexes("trixie", map[string][]byte{name: []byte("Package: a1\n"), name + ".xz": archivetest.Compress(t, ".xz", make([]byte, 1<<20))})
		}, "Packages.xz, decompressed: expected 12 bytes, found 13"},
		{"index of other content than named", func(a *archivetest.Archive, _ *archive.Client) {
			name := "main/binary-amd64/Packages"
			a.PublishIndexes("trixie", map[string][]byte{name: []byte("Package: a1\n"), name + ".xz": archivetest.Compress(t, ".xz", []byte("Package: b1\n"))})
		}, "Packages.xz, decompressed: expected sha256"},
		{"index without an uncompressed form", func(a *archivetest.Archive, _ *archive.Client) {
			a.PublishIndexes("trixie", map[string][]byte{"main/binary-amd64/Packages.xz": archivetest.Compress(t, ".xz", nil)})
		}, "names no main/binary-amd64/Packages"},
		{"index too large", func(a *archivetest.Archive, _ *archive.Client) {
			text := a.Release("trixie", nil) + " " + strings.Repeat("0", 64) + " 99999999999 main/binary-amd64/Packages\n"
			a.Put(releaseURL, a.Sign(text))
		}, "has 99999999999 bytes, at most"},
		{"index named twice", func(a *archivetest.Archive, _ *archive.Client) {
			line := " " + strings.Repeat("0", 64) + " 1 main/binary-amd64/Packages\n"
			a.Put(releaseURL, a.Sign(a.Release("trixie", nil)+line+line))
		}, "main/binary-amd64/Packages is there twice"},
		{"index outside of the suite", func(a *archivetest.Archive, _ *archive.Client) {
			a.Put(releaseURL, a.Sign(a.Release("trixie", nil)+" "+strings.Repeat("0", 64)+" 1 ../../evil\n"))
		}, `path "../../evil" is not allowed`},
		{"negative size", func(a *archivetest.Archive, _ *archive.Client) {
			a.Put(releaseURL, a.Sign(a.Release("trixie", nil)+" "+strings.Repeat("0", 64)+" -1 x\n"))
		}, `size "-1" of x is not a number`},
		{"no date", func(a *archivetest.Archive, _ *archive.Client) {
			a.Put(releaseURL, a.Sign(strings.Replace(a.Release("trixie", nil), "Date:", "Dated:", 1)))
		}, `Date "" is not a date`},
		{"date twice", func(a *archivetest.Archive, _ *archive.Client) {
			a.Put(releaseURL, a.Sign("Date: Sat, 09 Aug 2025 12:00:00 UTC\n"+a.Release("trixie", nil)))
		}, "field Date appears twice"},
		{"a second paragraph", func(a *archivetest.Archive, _ *archive.Client) {
			a.Put(releaseURL, a.Sign(a.Release("trixie", nil)+"\nCodename: sid\n"))
		}, "expected one paragraph"},
		{"older distribution as this one", func(a *archivetest.Archive, _ *archive.Client) {
			a.Put(releaseURL, a.Sign(a.Release("bookworm", nil)))
		}, `expected codename trixie, found "bookworm"`},
		{"index gone", func(a *archivetest.Archive, _ *archive.Client) { a.Put(indexURL, nil) }, "404 Not Found"},
		{"release tampered", func(a *archivetest.Archive, _ *archive.Client) {
			a.Put(releaseURL, bytes.Replace(a.Get(releaseURL), []byte("Origin: Test"), []byte("Origin: Evil"), 1))
		}, "dists/trixie/InRelease: bad signature"},
		{"signed by another key", func(a *archivetest.Archive, _ *archive.Client) {
			a.Key = archivetest.NewKey(t, "Mallory", a.Now.AddDate(-1, 0, 0))
			a.Publish()
		}, "not signed by any key of the keyring"},
		{"unsigned", func(a *archivetest.Archive, _ *archive.Client) {
			a.Put(releaseURL, []byte(a.Release("trixie", nil)))
		}, "expected a signed text"},
		{"text in front", func(a *archivetest.Archive, _ *archive.Client) {
			a.Put(releaseURL, append([]byte("Codename: trixie\n\n"), a.Get(releaseURL)...))
		}, "expected a signed text"},
		{"text behind", func(a *archivetest.Archive, _ *archive.Client) {
			a.Put(releaseURL, append(bytes.Clone(a.Get(releaseURL)), "Codename: trixie\n"...))
		}, "text behind the signature"},
		{"release gone", func(a *archivetest.Archive, _ *archive.Client) { a.Put(releaseURL, nil) }, "404 Not Found: the mirror does not have suite trixie"},
		{"release cut", func(a *archivetest.Archive, _ *archive.Client) {
			a.Put(releaseURL, a.Get(releaseURL)[:200])
		}, "cut off or malformed"},
		{"another suite's release", func(a *archivetest.Archive, _ *archive.Client) {
			a.Put(releaseURL, a.Get("/debian-security/dists/trixie-security/InRelease"))
		}, `expected codename trixie, found "trixie-security"`},
		{"expired", func(a *archivetest.Archive, c *archive.Client) {
			a.ValidUntil = a.Now.Add(time.Hour)
			a.Publish()
			c.Now = func() time.Time { return a.Now.Add(2 * time.Hour) }
		}, "the mirror is stale"},
		{"clock behind", func(a *archivetest.Archive, c *archive.Client) {
			c.Now = func() time.Time { return a.Now.AddDate(0, 0, -2) }
		}, "set the clock"},
		{"no such architecture", func(a *archivetest.Archive, _ *archive.Client) {
			a.Put(releaseURL, a.Sign(a.Release("trixie", nil)))
		}, "names no main/binary-amd64/Packages"},
		{"index entry leads out of the archive", func(a *archivetest.Archive, _ *archive.Client) {
			a.Publish()
			index := "Package: evil\nVersion: 1\nArchitecture: amd64\nFilename: ../../etc/x.deb\nSize: 1\nSHA256: " + strings.Repeat("1", 64) + "\n"
			putIndex(a, index)
		}, `package "evil": filename "../../etc/x.deb" is not a path`},
		{"index entry of another architecture", func(a *archivetest.Archive, _ *archive.Client) {
			putIndex(a, "Package: evil\nVersion: 1\nArchitecture: arm64\nFilename: x.deb\nSize: 1\nSHA256: "+strings.Repeat("1", 64)+"\n")
		}, `package evil is of architecture "arm64"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := newArchive(t)
			c := a.Client()
			tc.spoil(a, c)
			_, _, err := c.Packages(t.Context(), "trixie", "amd64")
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want an error with %q", err, tc.want)
			}
		})
	}
}

// putIndex publishes a properly signed index with this content, uncompressed.
func putIndex(a *archivetest.Archive, index string) {
	a.PublishIndexes("trixie", map[string][]byte{"main/binary-amd64/Packages": []byte(index)})
}

// TestByHash: while a mirror is updated, the plain name may already have the next content; the name by hash does not.
func TestByHash(t *testing.T) {
	a := newArchive(t)
	c := a.Client()
	rel, err := archive.VerifyRelease("InRelease", a.Get(releaseURL), "trixie", c.Keys, a.Now)
	if err != nil {
		t.Fatal(err)
	}
	f, ok := rel.File("main/binary-amd64/Packages.xz")
	if !ok {
		t.Fatal("the release names no index")
	}
	a.Put("/debian/dists/trixie/main/binary-amd64/by-hash/SHA256/"+f.SHA256.String(), a.Get(indexURL))
	a.Put(indexURL, []byte("the next one"))
	if _, _, err := c.Packages(t.Context(), "trixie", "amd64"); err != nil {
		t.Error(err)
	}
}

// TestPackagesAgain: a connection that breaks once is no failure.
func TestPackagesAgain(t *testing.T) {
	a := newArchive(t)
	a.Cut(releaseURL, 100)
	a.Cut(indexURL, 50)
	if list, _, err := a.Client().Packages(t.Context(), "trixie", "amd64"); err != nil || len(list) != 2 {
		t.Errorf("got %d packages, %v", len(list), err)
	}
}

// TestRedirectToFile: a mirror must not make the builder read files of its host.
func TestRedirectToFile(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(http.RedirectHandler("file://"+secret, http.StatusFound))
	defer s.Close()
	body, _, err := archive.NewGetter().Get(t.Context(), s.URL, 0)
	if err == nil {
		body.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "leads to a file: URL") {
		t.Errorf("got %v, want the redirection refused", err)
	}
}

func TestFileMirror(t *testing.T) {
	a := newArchive(t)
	c := a.Client()
	dir := t.TempDir()
	for _, url := range []string{releaseURL, indexURL} {
		file := filepath.Join(dir, url)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, a.Get(url), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c.Mirrors = archive.Mirrors{Main: "file://" + dir + "/debian", Security: "file://" + dir + "/debian-security"}
	if list, _, err := c.Packages(t.Context(), "trixie", "amd64"); err != nil || len(list) != 2 {
		t.Errorf("got %d packages, %v, want 2", len(list), err)
	}
	if _, _, err := c.Packages(t.Context(), "trixie-security", "amd64"); !archive.IsMissing(err) {
		t.Errorf("absent suite: got %v, want a missing file", err)
	}
}

func TestReadKeyringErrors(t *testing.T) {
	for want, dir := range map[string]fstest.MapFS{
		"no *.gpg file":         {"README": {}},
		"read keyring junk.gpg": {"junk.gpg": {Data: []byte("junk")}},
	} {
		if _, err := archive.ReadKeyring(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}

// TestShippedKeys reads the keys that the real locks are verified with.
func TestShippedKeys(t *testing.T) {
	if _, err := archive.ReadKeyring(os.DirFS("../../manifests/keys")); err != nil {
		t.Error(err)
	}
}

func FuzzVerifyRelease(f *testing.F) {
	a := archivetest.New(f)
	a.Add("trixie", archivetest.Deb{Name: "hello"})
	a.Publish()
	good := a.Get(releaseURL)
	keys := archivetest.Keyring(f, a.Key)
	f.Add(good)
	signed, err := archive.VerifyRelease("good", good, "trixie", keys, a.Now)
	if err != nil {
		f.Fatal(err)
	}
	want, _ := signed.File("main/binary-amd64/Packages.xz")
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := archive.VerifyRelease("fuzz", b, "trixie", keys, a.Now)
		if err != nil {
			return
		}
		if got, _ := r.File("main/binary-amd64/Packages.xz"); got != want {
			t.Fatalf("forged: got %v, want %v", got, want)
		}
	})
}

// FuzzParseRelease is about what stands inside a good signature.
func FuzzParseRelease(f *testing.F) {
	a := archivetest.New(f)
	f.Add(a.Release("trixie", map[string][]byte{"main/binary-amd64/Packages": []byte("x")}))
	f.Add("Codename: trixie\nDate: Sat, 9 Aug 2025 12:00:00 UTC\nValid-Until: Sun, 10 Aug 2025 12:00:00 +0000\nSHA256:\n")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := archive.ParseRelease("fuzz", []byte(text), "trixie", a.Now)
		if err != nil {
			return
		}
		if r.Date.After(a.Now.AddDate(0, 0, 1)) {
			t.Errorf("accepted a date of the future: %v", r.Date)
		}
		if f, ok := r.File("main/binary-amd64/Packages"); ok && (f.Size < 0 || f.Path != "main/binary-amd64/Packages") {
			t.Errorf("got %+v", f)
		}
		for _, bad := range []string{"", "/", "..", "../x", "/etc/passwd", "a//b", "a/./b"} {
			if _, ok := r.File(bad); ok {
				t.Errorf("accepted an index at %q", bad)
			}
		}
	})
}
