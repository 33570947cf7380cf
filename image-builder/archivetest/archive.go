// Package archivetest makes Debian archives for tests: real packages, real indexes, a real signature, served by a real
// HTTP server. Nothing in it uses the code under test to write.
//
// The server can misbehave in the ways that mirrors and networks do: bytes changed, files gone, connections cut.
package archivetest

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/proa-os/proa/image-builder/archive"
)

// Archive is a pair of archives, main and security, signed by one key.
type Archive struct {
	Key *openpgp.Entity
	// Now is the time of the archive and of its readers.
	Now time.Time
	// ValidUntil is written into the InRelease files if it is set.
	ValidUntil time.Time

	t      testing.TB
	suites map[string]*strings.Builder // paragraphs of each suite's index

	mu       sync.Mutex // guards what the server reads
	files    map[string][]byte
	cuts     map[string]int
	requests []string
}

// New makes an empty archive with a new key.
func New(t testing.TB) *Archive {
	t.Helper()
	now := time.Date(2025, 8, 9, 12, 0, 0, 0, time.UTC)
	return &Archive{
		Key:    NewKey(t, "Test Archive", now.AddDate(-1, 0, 0)),
		Now:    now,
		t:      t,
		suites: make(map[string]*strings.Builder),
		files:  make(map[string][]byte),
		cuts:   make(map[string]int),
	}
}

// NewKey makes a signing key.
func NewKey(t testing.TB, name string, created time.Time) *openpgp.Entity {
	t.Helper()
	key, err := openpgp.NewEntity(name, "", "archive@example.org", &packet.Config{
		Algorithm: packet.PubKeyAlgoEdDSA,
		Time:      func() time.Time { return created },
	})
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Keyring is the public half of keys, as read from a directory.
func Keyring(t testing.TB, keys ...*openpgp.Entity) archive.Keyring {
	t.Helper()
	k, err := archive.ReadKeyring(fstest.MapFS{"test.gpg": {Data: PublicKeys(t, keys...)}})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// PublicKeys is the content of a keyring file.
func PublicKeys(t testing.TB, keys ...*openpgp.Entity) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, key := range keys {
		if err := key.Serialize(&b); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// Add puts a package into a suite and returns its URL path.
func (a *Archive) Add(suite string, d Deb) string {
	a.t.Helper()
	d = d.withDefaults()
	if d.Compression == "" {
		d.Compression = "none"
	}
	body := d.Build(a.t)
	version := d.Version[strings.IndexByte(d.Version, ':')+1:]
	name := fmt.Sprintf("pool/main/%s/%s_%s_%s.deb", d.Name, d.Name, version, d.Arch)
	if a.suites[suite] == nil {
		a.suites[suite] = new(strings.Builder)
	}
	fmt.Fprintf(a.suites[suite], "%sFilename: %s\nSize: %d\nSHA256: %x\n\n", d.Paragraph(), name, len(body), sha256.Sum256(body))
	url := base(suite) + name
	a.files[url] = body
	return url
}

// Publish writes the indexes of all suites, signed.
func (a *Archive) Publish() {
	a.t.Helper()
	for suite, index := range a.suites {
		dir := base(suite) + "dists/" + suite + "/"
		plain := []byte(index.String())
		packed := Compress(a.t, ".xz", plain)
		a.files[dir+"main/binary-amd64/Packages.xz"] = packed
		a.Put(dir+"InRelease", a.Sign(a.Release(suite, map[string][]byte{
			"main/binary-amd64/Packages":    plain,
			"main/binary-amd64/Packages.xz": packed,
		})))
	}
}

// Release is the text of a Release file for the given indexes.
func (a *Archive) Release(suite string, indexes map[string][]byte) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Origin: Test\nSuite: stable\nCodename: %s\nDate: %s\n", suite, a.Now.Format(time.RFC1123))
	if !a.ValidUntil.IsZero() {
		fmt.Fprintf(&b, "Valid-Until: %s\n", a.ValidUntil.Format(time.RFC1123))
	}
	b.WriteString("Architectures: amd64\nComponents: main\nSHA256:\n")
	for name, body := range indexes {
		fmt.Fprintf(&b, " %x %8d %s\n", sha256.Sum256(body), len(body), name)
	}
	return b.String()
}

// Sign clearsigns a text with the archive's key.
func (a *Archive) Sign(text string) []byte {
	a.t.Helper()
	var b bytes.Buffer
	w, err := clearsign.Encode(&b, a.Key.PrivateKey, &packet.Config{Time: func() time.Time { return a.Now }})
	if err != nil {
		a.t.Fatal(err)
	}
	if _, err := w.Write([]byte(text)); err != nil {
		a.t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		a.t.Fatal(err)
	}
	return append(b.Bytes(), '\n')
}

// Serve starts a server and returns its mirrors. It ends with the test.
func (a *Archive) Serve() archive.Mirrors {
	s := httptest.NewServer(http.HandlerFunc(a.serve))
	a.t.Cleanup(s.Close)
	return archive.Mirrors{Main: s.URL + "/debian", Security: s.URL + "/debian-security"}
}

// Client is a reader of the archive at the archive's time, trusting its key.
func (a *Archive) Client() *archive.Client {
	return &archive.Client{
		Mirrors: a.Serve(),
		Keys:    Keyring(a.t, a.Key),
		Getter:  archive.NewGetter(),
		Now:     func() time.Time { return a.Now },
	}
}

func (a *Archive) serve(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	body, ok := a.files[r.URL.Path]
	cut, cutting := a.cuts[r.URL.Path]
	delete(a.cuts, r.URL.Path)
	a.requests = append(a.requests, r.URL.Path+" "+r.Header.Get("Range"))
	a.mu.Unlock()
	switch {
	case !ok:
		http.NotFound(w, r)
	case cutting:
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		w.Write(body[:cut])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	default:
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	}
}

// Get returns a served file, by URL path.
func (a *Archive) Get(url string) []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.files[url]
}

// Put replaces a served file; nil removes it.
func (a *Archive) Put(url string, body []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if body == nil {
		delete(a.files, url)
		return
	}
	a.files[url] = body
}

// Cut makes the next request of the file break off after n bytes.
func (a *Archive) Cut(url string, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cuts[url] = n
}

// Requests lists what was asked for so far: "path range".
func (a *Archive) Requests() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]string(nil), a.requests...)
}

func base(suite string) string {
	if archive.Of(suite) == archive.Security {
		return "/debian-security/"
	}
	return "/debian/"
}
