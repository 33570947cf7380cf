package client_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/proa-os/proa/update-engine/artifact"
	"github.com/proa-os/proa/update-engine/client"
)

// A shelf is a registry with one artifact, which some other tool may have pushed. go-containerregistry's own is the judge in package desk.
type shelf struct {
	*httptest.Server
	files  map[string]string // by name
	blobs  map[string]string // by digest
	mu     sync.Mutex
	asked  []string
	wrap   func(http.Handler) http.Handler
	noHead bool // it does not say which manifest a tag stands for
}

func sum(s string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(s))) }

func newShelf(t *testing.T, files map[string]string) *shelf {
	s := &shelf{files: files, wrap: func(h http.Handler) http.Handler { return h }}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.wrap(http.HandlerFunc(s.serve)).ServeHTTP(w, r) }))
	t.Cleanup(s.Close)
	return s
}

func (s *shelf) manifest() string {
	m := artifact.Manifest{SchemaVersion: 2, MediaType: artifact.MediaType}
	s.blobs = map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(s.files)) {
		content := s.files[name]
		s.blobs[sum(content)] = content
		m.Layers = append(m.Layers, artifact.Descriptor{Digest: sum(content), Size: int64(len(content)), Annotations: map[string]string{artifact.TitleKey: name}})
	}
	b, _ := json.Marshal(m)
	return string(b)
}

func (s *shelf) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, r.Method+" "+r.URL.Path)
	blob, isBlob := strings.CutPrefix(r.URL.Path, "/v2/os/updates/blobs/")
	switch {
	case r.URL.Path == "/v2/":
	case r.URL.Path == "/v2/os/updates/manifests/latest":
		m := s.manifest()
		if !s.noHead {
			w.Header().Set("Docker-Content-Digest", sum(m))
		}
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(m))
	case isBlob && s.blobs[blob] != "":
		if strings.HasSuffix(r.Header.Get("Range"), "-") { // as go-containerregistry's
			http.Error(w, "we don't understand your range", http.StatusRequestedRangeNotSatisfiable)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(s.blobs[blob]))
	default:
		http.NotFound(w, r)
	}
}

func (s *shelf) address() string {
	return "oci+http://" + strings.TrimPrefix(s.URL, "http://") + "/os/updates:latest"
}

func TestRegistry(t *testing.T) {
	s := newShelf(t, map[string]string{"metadata/timestamp.json": "now", "targets/a/b": "hello, everybody"})
	for what, source := range sources(t) {
		if got, err := fetch(t, source, s.address()+"/metadata/timestamp.json"); got != "now" || err != nil {
			t.Errorf("%s: got %q, %v", what, got, err)
		}
		r, err := source.Open(t.Context(), s.address()+"/targets/a/b", 7)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if b, err := io.ReadAll(r); string(b) != "everybody" || err != nil {
			t.Errorf("%s: got %q, %v from byte 7 on", what, b, err)
		}
		r.Close()
		for _, missing := range []string{s.address() + "/metadata/2.root.json", strings.Replace(s.address(), ":latest", ":other", 1) + "/metadata/timestamp.json"} {
			if _, err := fetch(t, source, missing); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: %s: got %v, want that it does not exist", what, missing, err)
			}
		}
	}
}

// What has not changed costs a question for the manifest's digest; what has is fetched, although other files are as they were.
func TestRegistryPoll(t *testing.T) {
	s := newShelf(t, map[string]string{"metadata/timestamp.json": "now", "metadata/1.root.json": "root"})
	for what, source := range sources(t) {
		s.files["metadata/timestamp.json"], s.noHead = "now", false
		poll := func(file, tag string) (string, string, error) {
			s.asked = nil
			r, tag, err := source.(client.Poller).Poll(t.Context(), s.address()+"/"+file, tag)
			if err != nil {
				return "", tag, err
			}
			defer r.Close()
			b, err := io.ReadAll(r)
			return string(b), tag, err
		}
		_, tag, err := poll("metadata/timestamp.json", "")
		_, root, _ := poll("metadata/1.root.json", "")
		if err != nil || tag == "" {
			t.Fatalf("%s: got tag %q, %v", what, tag, err)
		}
		if _, _, err := poll("metadata/timestamp.json", tag); !errors.Is(err, client.ErrUnchanged) || len(s.asked) != 2 || s.asked[1] != "HEAD /v2/os/updates/manifests/latest" {
			t.Errorf("%s: got %v and the questions %q", what, err, s.asked)
		}
		if got, _, err := poll("metadata/timestamp.json", `"of another server"`); got != "now" || err != nil {
			t.Errorf("%s: got %q, %v for a tag that is no artifact's", what, got, err)
		}
		s.noHead = true
		if _, _, err := poll("metadata/timestamp.json", tag); !errors.Is(err, client.ErrUnchanged) || len(s.asked) != 3 {
			t.Errorf("%s: a registry that does not say which manifest: got %v and %q", what, err, s.asked)
		}
		s.files["metadata/timestamp.json"], s.noHead = "later", false
		if got, next, err := poll("metadata/timestamp.json", tag); got != "later" || next == tag || err != nil {
			t.Errorf("%s: got %q, tag %q, %v", what, got, next, err)
		}
		if _, _, err := poll("metadata/1.root.json", root); !errors.Is(err, client.ErrUnchanged) {
			t.Errorf("%s: another file changed: got %v", what, err)
		}
	}
}

// Registries ask everybody for a token, and send those who want a blob to other servers.
func TestRegistryWithTokensAndRedirects(t *testing.T) {
	s := newShelf(t, map[string]string{"targets/x": "hello"})
	away := newMirror(t, func(w http.ResponseWriter, r *http.Request) {
		if auth := r.Header.Get("Authorization"); auth != "" {
			t.Errorf("the other server was told %q", auth)
		}
		hello(w, r)
	})
	s.wrap = func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path == "/token":
				if r.URL.Query().Get("scope") != "repository:os/updates:pull" || r.Header.Get("Authorization") != "" {
					t.Errorf("asked for a token with %s, %v", r.URL, r.Header)
				}
				io.WriteString(w, `{"token":"everybody"}`)
			case r.Header.Get("Authorization") != "Bearer everybody":
				w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="here"`, s.URL))
				w.WriteHeader(http.StatusUnauthorized)
			case strings.Contains(r.URL.Path, "/blobs/"):
				http.Redirect(w, r, away.URL+"/elsewhere", http.StatusTemporaryRedirect)
			default:
				h.ServeHTTP(w, r)
			}
		})
	}
	for what, source := range sources(t) {
		if got, err := fetch(t, source, s.address()+"/targets/x"); got != "hello" || err != nil {
			t.Errorf("%s: got %q, %v", what, got, err)
		}
	}
	if away.asked.Load() != 2 {
		t.Errorf("the other server was asked %d times, want once by each", away.asked.Load())
	}
}

func TestHostileRegistry(t *testing.T) {
	plain := newShelf(t, map[string]string{"targets/x": "hello"})
	secure, ca := tlsServer(t, nil)
	inTLS := "oci://" + strings.TrimPrefix(secure.URL, "https://") + "/os/updates:latest/targets/x"
	tests := []struct {
		what, address string
		wrap          func(w http.ResponseWriter, r *http.Request) bool // whether it has answered
		want          string
	}{
		{what: "no TLS", address: strings.Replace(plain.address(), "oci+http", "oci", 1) + "/targets/x", want: "a registry without TLS is oci+http://"},
		{what: "private", wrap: func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+plain.URL+`/token"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}, want: "machines have no name and password"},
		{what: "endless token", wrap: func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/token" {
				w.Header().Set("WWW-Authenticate", `Bearer realm="`+plain.URL+`/token"`)
				w.WriteHeader(http.StatusUnauthorized)
				return true
			}
			return endless(w, r)
		}, want: "exceeds 65536 byte limit"},
		{what: "token that would be posted on", wrap: func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPost {
				t.Error("something was posted")
			}
			if r.URL.Path == "/token" {
				io.WriteString(w, `{"token":"x","refresh_token":"everything"}`)
			} else {
				w.Header().Set("WWW-Authenticate", `Bearer realm="`+plain.URL+`/token"`)
				w.WriteHeader(http.StatusUnauthorized)
			}
			return true
		}, want: "whoever reads sends nothing"},
		{what: "challenge with control sequences", wrap: func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("WWW-Authenticate", "Bearer service=\"\u009b31m\u202e\"")
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}, want: "malformed www-authenticate"},
		{what: "denied", wrap: func(w http.ResponseWriter, r *http.Request) bool {
			if strings.Contains(r.URL.Path, "/manifests/") {
				w.WriteHeader(http.StatusForbidden)
				return true
			}
			return false
		}, want: "make it public"},
		{what: "blob that is not there", wrap: func(w http.ResponseWriter, r *http.Request) bool {
			if strings.Contains(r.URL.Path, "/blobs/") {
				w.WriteHeader(http.StatusForbidden) // as a store whose signed address has expired
				return true
			}
			return false
		}, want: "does not give a file that is in its manifest"},
		{what: "endless manifest", wrap: func(w http.ResponseWriter, r *http.Request) bool {
			return strings.Contains(r.URL.Path, "/manifests/") && endless(w, r)
		}, want: "manifest of more than 1048576 bytes"},
		{what: "error page", wrap: func(w http.ResponseWriter, r *http.Request) bool {
			http.Error(w, "\x1b]0;owned\x07", http.StatusInternalServerError)
			return true
		}, want: "answered 500 Internal Server Error"},
		{what: "index", wrap: tells(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json"}`), want: "is no OCI image manifest"},
		{what: "digest that leads elsewhere", wrap: tells(`{"schemaVersion":2,"layers":[{"digest":"../../../x","annotations":{"org.opencontainers.image.title":"targets/x"}}]}`), want: "want sha256:"},
		{what: "redirects in a circle", wrap: func(w http.ResponseWriter, r *http.Request) bool {
			if strings.Contains(r.URL.Path, "/blobs/") {
				http.Redirect(w, r, r.URL.Path, http.StatusFound)
				return true
			}
			return false
		}, want: "more than 5 redirects"},
		{what: "TLS to nowhere", address: inTLS, wrap: nil, want: "plain http to"},
	}
	secure.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/blobs/") {
			http.Redirect(w, r, plain.URL+r.URL.Path, http.StatusFound)
			return
		}
		plain.serve(w, r)
	})
	for _, test := range tests {
		plain.wrap = func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if test.wrap == nil || !test.wrap(w, r) {
					h.ServeHTTP(w, r)
				}
			})
		}
		if test.address == "" {
			test.address = plain.address() + "/targets/x"
		}
		for what, source := range through(t, client.Network{CA: ca}) {
			got, err := fetch(t, source, test.address)
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.ContainsAny(err.Error(), "\x1b\u009b\u202e") || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s, %s: got %q, %q, want an error with %q, and not that there is no such file", test.what, what, got, err, test.want)
			}
		}
	}
}

// A registry that greets for ever is not listened to for ever, and gives its files.
func TestEndlessGreeting(t *testing.T) {
	s := newShelf(t, map[string]string{"targets/x": "hello"})
	s.wrap = func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v2/" || !endless(w, r) {
				h.ServeHTTP(w, r)
			}
		})
	}
	for what, source := range sources(t) {
		if got, err := fetch(t, source, s.address()+"/targets/x"); got != "hello" || err != nil {
			t.Errorf("%s: got %q, %v", what, got, err)
		}
	}
}

// endless answers for ever.
func endless(w http.ResponseWriter, r *http.Request) bool {
	for r.Context().Err() == nil {
		if _, err := w.Write(bytes.Repeat([]byte(" "), 1<<16)); err != nil {
			break
		}
	}
	return true
}

// tells answers every question for a manifest.
func tells(manifest string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/manifests/") {
			io.WriteString(w, manifest)
			return true
		}
		return false
	}
}

// A registry that is silent at any of its steps is given up, as any server is.
func TestSilentRegistry(t *testing.T) {
	for _, silent := range []string{"/v2/", "/v2/os/updates/manifests/latest", "/v2/os/updates/blobs/" + sum("hello"), "/token"} {
		s := newShelf(t, map[string]string{"targets/x": "hello"})
		var asked atomic.Int32
		s.wrap = func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if silent == "/token" && strings.Contains(r.URL.Path, "/manifests/") { // the first answer wants none
					w.Header().Set("WWW-Authenticate", `Bearer realm="`+s.URL+`/token"`)
					w.WriteHeader(http.StatusUnauthorized)
					return
				}
				if silent == "/token" && r.URL.Path == "/v2/" {
					w.Header().Set("WWW-Authenticate", `Bearer realm="`+s.URL+`/token"`)
					w.WriteHeader(http.StatusUnauthorized)
					return
				}
				if silent == "/token" && r.URL.Path == "/token" && asked.Add(1) == 1 {
					io.WriteString(w, `{"token":"x"}`)
					return
				}
				if r.URL.Path == "/token" { // it begins, and does not go on
					io.WriteString(w, "{")
					w.(http.Flusher).Flush()
				}
				if r.URL.Path != silent {
					h.ServeHTTP(w, r)
					return
				}
				asked.Add(1)
				<-r.Context().Done()
			})
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		if _, err := (&client.Client{Source: client.NewHTTP(100 * time.Millisecond), Retry: once()}).Fetch(ctx, s.address()+"/targets/x", 10); err == nil || ctx.Err() != nil || asked.Load() == 0 {
			t.Errorf("silent at %s: got %v, asked there %d times", silent, err, asked.Load())
		}
		cancel()
	}
}
