// Package archivetest makes Debian archives for tests: real packages, real indexes, a real signature, served by a real
// HTTP server. Nothing in it uses the code under test to write.
//
// The server can misbehave in the ways that mirrors and networks do: bytes changed, files gone, connections cut.
package archivetest

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"

	"github.com/proa-os/proa/image-builder/archive"
)

// Archive is a pair of archives, main and security, signed by one key.
type Archive struct {
	Key *openpgp.Entity
	// Arches are the architectures that Publish makes indexes for: amd64, unless changed.
	Arches []string
	// Now is the time of the archive and of its readers.
	Now time.Time
	// ValidUntil is written into the InRelease files if it is set.
	ValidUntil time.Time

	t      testing.TB
	suites map[string][]entry

	mu       sync.Mutex // guards what the server reads
	files    map[string][]byte
	cuts     map[string]cut
	requests []string
}

// entry is a paragraph of a suite's index.
type entry struct{ arch, text string }

// cut is where an answer stops: the connection breaks, or it stays open and nothing more comes.
type cut struct {
	after int
	hold  bool
}

// New makes an empty archive with a new key.
func New(t testing.TB) *Archive {
	t.Helper()
	now := time.Date(2025, 8, 9, 12, 0, 0, 0, time.UTC)
	return &Archive{
		Key:    NewKey(t, "Test Archive", now.AddDate(-1, 0, 0)),
		Now:    now,
		Arches: []string{"amd64"},
		t:      t,
		suites: make(map[string][]entry),
		files:  make(map[string][]byte),
		cuts:   make(map[string]cut),
	}
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
	text := fmt.Sprintf("%sFilename: %s\nSize: %d\nSHA256: %x\n\n", d.Paragraph(), name, len(body), sha256.Sum256(body))
	a.suites[suite] = append(a.suites[suite], entry{d.Arch, text})
	url := base(suite) + name
	a.files[url] = body
	return url
}

// Publish writes the indexes of all suites, signed.
func (a *Archive) Publish() {
	a.t.Helper()
	for suite, entries := range a.suites {
		indexes := make(map[string][]byte)
		for _, arch := range a.Arches {
			var plain bytes.Buffer
			for _, e := range entries {
				if e.arch == arch || e.arch == "all" {
					plain.WriteString(e.text)
				}
			}
			name := "main/binary-" + arch + "/Packages"
			indexes[name] = plain.Bytes()
			indexes[name+".xz"] = Compress(a.t, ".xz", plain.Bytes())
		}
		a.PublishIndexes(suite, indexes)
	}
}

// PublishIndexes writes indexes, by their path below dists/SUITE, and the signed text that names them. As at Debian's mirrors,
// an uncompressed index is named but not there if a compressed one is.
func (a *Archive) PublishIndexes(suite string, indexes map[string][]byte) {
	a.t.Helper()
	dir := base(suite) + "dists/" + suite + "/"
	for name, body := range indexes {
		if indexes[name+".xz"] == nil {
			a.Put(dir+name, body)
		}
	}
	a.Put(dir+"InRelease", a.Sign(a.Release(suite, indexes)))
}

// Release is the text of a Release file for the given indexes.
func (a *Archive) Release(suite string, indexes map[string][]byte) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Origin: Test\nSuite: stable\nCodename: %s\nDate: %s\n", suite, a.Now.Format(time.RFC1123))
	if !a.ValidUntil.IsZero() {
		fmt.Fprintf(&b, "Valid-Until: %s\n", a.ValidUntil.Format(time.RFC1123))
	}
	fmt.Fprintf(&b, "Architectures: %s\nComponents: main\nSHA256:\n", strings.Join(a.Arches, " "))
	for _, name := range slices.Sorted(maps.Keys(indexes)) {
		fmt.Fprintf(&b, " %x %8d %s\n", sha256.Sum256(indexes[name]), len(indexes[name]), name)
	}
	return b.String()
}

// Sign clearsigns a text with the archive's key.
func (a *Archive) Sign(text string) []byte {
	a.t.Helper()
	return Clearsign(a.t, text, Signature{Key: a.Key, Time: a.Now})
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
	c, cutting := a.cuts[r.URL.Path]
	delete(a.cuts, r.URL.Path)
	a.requests = append(a.requests, r.URL.Path+" "+r.Header.Get("Range"))
	a.mu.Unlock()
	switch {
	case !ok:
		http.NotFound(w, r)
	case cutting:
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		w.Write(body[:c.after])
		w.(http.Flusher).Flush()
		if c.hold {
			<-r.Context().Done()
		}
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
func (a *Archive) Cut(url string, n int) { a.cutNext(url, cut{after: n}) }

// Hold makes the next request of the file stop after n bytes and go on only when the reader hangs up.
func (a *Archive) Hold(url string, n int) { a.cutNext(url, cut{after: n, hold: true}) }

func (a *Archive) cutNext(url string, c cut) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cuts[url] = c
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
