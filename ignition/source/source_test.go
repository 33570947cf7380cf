package source

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/ignition/v2/config/v3_6/types"

	"github.com/proa-os/proa/ignition/secret"
)

func resource(source string) types.Resource { return types.Resource{Source: &source} }

func withHash(r types.Resource, content string) types.Resource {
	sum := sha256.Sum256([]byte(content))
	hash := "sha256-" + hex.EncodeToString(sum[:])
	r.Verification.Hash = &hash
	return r
}

func zipped(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func fetch(t *testing.T, cfg types.Config, r types.Resource) (string, error) {
	t.Helper()
	f, err := Fetcher{}.For(t.Context(), cfg)
	if err != nil {
		return "", err
	}
	var b buffer
	err = f.Fetch(t.Context(), r, &b)
	return b.String(), err
}

// A server that fails, then cuts the transfer, then serves it: the resource arrives once and whole.
func TestFetchTriesAgain(t *testing.T) {
	var calls int
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch calls++; calls {
		case 1:
			w.WriteHeader(http.StatusServiceUnavailable)
		case 2:
			w.Header().Set("Content-Length", "100")
			w.Write([]byte("half"))
		default:
			w.Write([]byte("whole"))
		}
	}))
	defer srv.Close()
	got, err := fetch(t, types.Config{}, withHash(resource(srv.URL), "whole"))
	if err != nil || got != "whole" || calls != 3 {
		t.Errorf("got %q, %v after %d calls", got, err, calls)
	}
}

// A server that takes a request and never answers is asked again when the time for response headers is over.
func TestFetchLeavesWhoHangs(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1) == 1 {
			<-r.Context().Done() // until the client leaves
			return
		}
		w.Write([]byte("whole"))
	}))
	defer srv.Close()
	second := 1
	cfg := types.Config{Ignition: types.Ignition{Timeouts: types.Timeouts{HTTPResponseHeaders: &second}}}
	if got, err := fetch(t, cfg, resource(srv.URL)); err != nil || got != "whole" || calls.Load() != 2 {
		t.Errorf("got %q, %v after %d calls", got, err, calls.Load())
	}
}

func TestFetchErrors(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/gone":
			w.WriteHeader(http.StatusNotFound)
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case "/rude":
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			io.WriteString(conn, "HTTP/1.1 403 \x1b[2J all is well\r\nContent-Length: 0\r\n\r\n")
			conn.Close()
		default:
			w.Write([]byte("some content"))
		}
	}))
	defer srv.Close()
	gz := "gzip"
	tests := []struct {
		name string
		r    types.Resource
		want string
	}{
		{"not found", resource(strings.Replace(srv.URL, "http://", "http://user:pw@", 1) + "/gone?token=1"), "fetch " + srv.URL + "/gone: expected status 200, found 404 Not Found"},
		{"a reason of the server's own", resource(srv.URL + "/rude"), "fetch " + srv.URL + "/rude: expected status 200, found 403 Forbidden"},
		{"wrong hash", withHash(resource(srv.URL+"/x"), "other"), "fetch " + srv.URL + "/x: verify: expected hash d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa, found 290f493c44f5d63d06b374d0a5abd292fae38b92cab2fae5efefe1b0e9347f56"},
		{"not gzip", types.Resource{Source: resource(srv.URL + "/x").Source, Compression: &gz}, "fetch " + srv.URL + "/x: decompress: expected gzip: gzip: invalid header"},
		{"unknown scheme", resource("ftp://h/x"), "fetch a ftp: URL: expected a source of scheme data, http, https, tftp, s3, arn or gs, found ftp"},
		{"bad data", resource("data:;base64,secret!"), "decode data URL: expected RFC 2397, found something else"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := fetch(t, types.Config{}, tt.r)
			if err == nil || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
			if strings.HasPrefix(tt.name, "wrong") && got != "" {
				t.Errorf("unverified content is left: %q", got)
			}
		})
	}
}

func TestFetchGzip(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write(zipped(t, "text")) }))
	defer srv.Close()
	r := withHash(resource(srv.URL), "text") // the hash is of the decompressed bytes
	gz := "gzip"
	r.Compression = &gz
	if got, err := fetch(t, types.Config{}, r); err != nil || got != "text" {
		t.Errorf("got %q, %v", got, err)
	}
}

// Headers go to the server that the config names and to no other.
func TestHeadersStopAtRedirects(t *testing.T) {
	var seen []string
	handler := func(name string, then http.HandlerFunc) *httptest.Server {
		return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			seen = append(seen, name+"="+r.Header.Get("X-Token"))
			then(w, r)
		}))
	}
	second := handler("second", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("ok")) })
	defer second.Close()
	first := handler("first", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, second.URL, http.StatusFound)
	})
	defer first.Close()
	r := resource(first.URL)
	token := "hunter2"
	r.HTTPHeaders = types.HTTPHeaders{{Name: "X-Token", Value: &token}}
	if _, err := fetch(t, types.Config{}, r); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(seen, " "); got != "first=hunter2 second=" {
		t.Errorf("got %s", got)
	}
}

// Neither the server behind a redirect nor an error learns the address that was asked for, or the one that the server names.
func TestRedirectsKeepAddresses(t *testing.T) {
	var referer []string
	second := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { referer = r.Header["Referer"] }))
	defer second.Close()
	first := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		to := second.URL
		if r.URL.Path == "/odd" {
			to = "http://[hunter2"
		}
		w.Header().Set("Location", to)
		w.WriteHeader(http.StatusFound)
	}))
	defer first.Close()
	one := 1
	cfg := types.Config{Ignition: types.Ignition{Timeouts: types.Timeouts{HTTPTotal: &one}}}
	if _, err := fetch(t, cfg, resource(first.URL+"/?token=hunter2")); err != nil || referer != nil {
		t.Errorf("got %v, the next server is told %q", err, referer)
	}
	_, err := fetch(t, cfg, resource(first.URL+"/odd"))
	if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "a redirect to what is no URL") {
		t.Errorf("got %v", err)
	}
}

// A server is told what an Ignition config of which version is, as upstream tells it, also behind a redirect; a config's own headers win.
func TestIntroducesItself(t *testing.T) {
	var seen []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.Header.Get("Accept")+"|"+r.Header.Get("Accept-Encoding")+"|"+r.Header.Get("User-Agent"))
		if r.URL.Path == "/there" {
			http.Redirect(w, r, "/", http.StatusFound)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	defer server.Close()
	text := "text/plain"
	own := resource(server.URL + "/there")
	own.HTTPHeaders = types.HTTPHeaders{{Name: "accept", Value: &text}}
	for _, r := range []types.Resource{resource(server.URL), own} {
		if got, err := fetch(t, types.Config{}, withHash(r, "")); err != nil || got != "" {
			t.Errorf("status 204: got %q, %v, want an empty resource", got, err)
		}
	}
	const usual = "application/vnd.coreos.ignition+json;version=3.6.0, */*;q=0.1|identity|ignition"
	if want := []string{usual, "text/plain|identity|ignition", usual}; !slices.Equal(seen, want) {
		t.Errorf("got  %q\nwant %q", seen, want)
	}
}

func TestCertificateAuthorities(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("private")) }))
	defer srv.Close()
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	total := 1
	cfg := types.Config{Ignition: types.Ignition{Timeouts: types.Timeouts{HTTPTotal: &total}}}
	if _, err := fetch(t, cfg, resource(srv.URL)); err == nil || !strings.Contains(err.Error(), "gave up after 1s") {
		t.Errorf("unknown authority: got %v", err)
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	cfg.Ignition.Security.TLS.CertificateAuthorities = []types.Resource{resource("data:;base64," + base64.StdEncoding.EncodeToString(ca))}
	if got, err := fetch(t, cfg, resource(srv.URL)); err != nil || got != "private" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestOffline(t *testing.T) {
	f := Fetcher{Offline: true}
	if err := f.Fetch(t.Context(), resource("http://example.com/"), &buffer{}); !errors.Is(err, ErrNeedNetwork) {
		t.Errorf("got %v", err)
	}
	if err := f.Fetch(t.Context(), resource("data:,x"), &buffer{}); err != nil {
		t.Errorf("got %v", err)
	}
}

type refuse struct{}

func (refuse) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("connection refused")
}

// A dead server ends provisioning after the total timeout, with the reason.
func TestGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &Fetcher{client: &http.Client{Transport: refuse{}}, total: defaultTotal}
		start := time.Now()
		err := f.Fetch(t.Context(), resource("http://h/x"), &buffer{})
		want := "fetch http://h/x: gave up after 10m0s: connection refused"
		if err == nil || err.Error() != want || time.Since(start) != defaultTotal {
			t.Errorf("got %v after %s", err, time.Since(start))
		}
	})
}

// A config's 0 is no limit (spec: ignition.timeouts), and nothing is this program's.
func TestTimeouts(t *testing.T) {
	zero, five := 0, 5
	for _, tt := range []struct {
		seconds        *int
		total, headers time.Duration
	}{{nil, 10 * time.Minute, 10 * time.Second}, {&five, 5 * time.Second, 5 * time.Second}, {&zero, 0, 0}} {
		f, err := Fetcher{}.For(t.Context(), types.Config{Ignition: types.Ignition{Timeouts: types.Timeouts{HTTPTotal: tt.seconds, HTTPResponseHeaders: tt.seconds}}})
		if err != nil {
			t.Fatal(err)
		}
		transport := f.client.Transport.(*http.Transport)
		if f.total != tt.total || transport.ResponseHeaderTimeout != tt.headers || transport.TLSHandshakeTimeout == 0 {
			t.Errorf("got %s, %s for headers, %s for TLS, want %s and %s", f.total, transport.ResponseHeaderTimeout, transport.TLSHandshakeTimeout, tt.total, tt.headers)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		start := time.Now()
		err := (&Fetcher{client: &http.Client{Transport: refuse{}}}).Fetch(ctx, resource("http://h/x"), &buffer{})
		if err == nil || err.Error() != "fetch http://h/x: gave up: connection refused" || time.Since(start) != 24*time.Hour {
			t.Errorf("got %v after %s", err, time.Since(start))
		}
	})
}

// What is marked as encrypted is opened with the machine's key, after its hash was compared; without a key nothing of it is used.
func TestSecrets(t *testing.T) {
	k, err := secret.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := secret.Encrypt([]byte("hunter2"), k.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, sealed) }))
	defer server.Close()
	data := "data:application/age;base64," + base64.StdEncoding.EncodeToString([]byte(sealed))
	sum := sha256.Sum256([]byte(sealed))
	hash, wrong := "sha256-"+hex.EncodeToString(sum[:]), "sha256-"+strings.Repeat("0", 64)
	open := func(_ context.Context, b []byte) ([]byte, error) { return k.Decrypt(b) }
	for _, tt := range []struct {
		source string
		hash   *string
		open   func(context.Context, []byte) ([]byte, error)
		want   string
		err    string
	}{
		{data, &hash, open, "hunter2", ""},
		{server.URL + "/x#age", &hash, open, "hunter2", ""},
		{server.URL + "/x#other", nil, open, sealed, ""},
		{server.URL + "/x#age", &wrong, open, "", "verify: expected hash"},
		{data, nil, nil, "", "expected the key of a machine"},
		{"data:application/age,hunter2", nil, open, "", "expected an age file"},
	} {
		var b buffer
		err := (&Fetcher{Secrets: tt.open}).Fetch(t.Context(), types.Resource{Source: &tt.source, Verification: types.Verification{Hash: tt.hash}}, &b)
		if tt.err == "" && (err != nil || b.String() != tt.want) || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err) || b.Len() > 0 || strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("%.40s: got %q, %v", tt.source, b.String(), err)
		}
	}
}
