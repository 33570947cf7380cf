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
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/ignition/v2/config/v3_6/types"
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

func TestFetchErrors(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/gone":
			w.WriteHeader(http.StatusNotFound)
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
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
		{"wrong hash", withHash(resource(srv.URL+"/x"), "other"), "fetch " + srv.URL + "/x: verify: expected hash d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa, found 290f493c44f5d63d06b374d0a5abd292fae38b92cab2fae5efefe1b0e9347f56"},
		{"not gzip", types.Resource{Source: resource(srv.URL + "/x").Source, Compression: &gz}, "fetch " + srv.URL + "/x: decompress: expected gzip: gzip: invalid header"},
		{"tftp", resource("tftp://h/x"), "fetch: tftp sources are not supported by this release"},
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
		want := "fetch http://h/x: gave up after 10m0s: fetch http://h/x: connection refused (temporary)"
		if err == nil || err.Error() != want || time.Since(start) != defaultTotal {
			t.Errorf("got %v after %s", err, time.Since(start))
		}
	})
}

func TestPlatformArgument(t *testing.T) {
	tests := []struct{ line, want, err string }{
		{"quiet ignition.platform.id=qemu x=y\n", "qemu", ""},
		{"ignition.platform.id=qemu ignition.platform.id=qemu", "qemu", ""},
		{"ignition.platform.id=", "", "read the kernel command line: expected ignition.platform.id=, found none; add it"},
		{"ignition.platform.id=qemu ignition.platform.id=aws", "", `read the kernel command line: expected one ignition.platform.id=, found "qemu" and "aws"; remove one of them`},
	}
	for _, tt := range tests {
		got, err := PlatformArgument(tt.line)
		if got != tt.want || (err == nil) != (tt.err == "") || err != nil && err.Error() != tt.err {
			t.Errorf("%s: got %q, %v", tt.line, got, err)
		}
	}
	want := `find platform "aws": expected file or qemu; set the kernel argument ignition.platform.id= to one of them`
	if _, err := Lookup("aws"); err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}

func TestQEMU(t *testing.T) {
	dir := t.TempDir()
	sys, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Close()
	p, err := Lookup("qemu")
	if err != nil {
		t.Fatal(err)
	}
	var loaded []string
	m := &Machine{Sys: sys, Load: func(_ context.Context, module string) error {
		loaded = append(loaded, module)
		return nil
	}}
	if _, _, err := p.Config(t.Context(), m); err == nil || !strings.Contains(err.Error(), "is this machine QEMU?") {
		t.Errorf("no device: got %v", err)
	}
	m.Load = func(context.Context, string) error {
		return sys.MkdirAll("firmware/qemu_fw_cfg/by_name/opt", 0o755)
	}
	if _, _, err := p.Config(t.Context(), m); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no config: got %v", err)
	}
	// As the kernel lays it out: by_name holds links into by_key.
	for _, err := range []error{
		sys.MkdirAll("firmware/qemu_fw_cfg/by_name/opt/com.coreos", 0o755),
		sys.MkdirAll("firmware/qemu_fw_cfg/by_key/32", 0o755),
		sys.Symlink("../../../by_key/32", "firmware/qemu_fw_cfg/by_name/opt/com.coreos/config"),
		sys.WriteFile("firmware/qemu_fw_cfg/by_key/32/raw", []byte("{}"), 0o400),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	name, raw, err := p.Config(t.Context(), m)
	if name != "fw_cfg opt/com.coreos/config" || string(raw) != "{}" || err != nil {
		t.Errorf("got %q, %q, %v", name, raw, err)
	}
	if strings.Join(loaded, " ") != "qemu_fw_cfg" {
		t.Errorf("loaded %v", loaded)
	}
}
