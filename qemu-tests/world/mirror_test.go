package world

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// A client with the authority and the proxy gets files and knows when they have not changed; without the one it trusts nobody, without
// the other it finds nobody.
func TestMirrorByProxy(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "metadata"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "metadata/timestamp.json"), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	mirror, err := StartMirror("mirror.example", dir)
	if err != nil {
		t.Fatal(err)
	}
	defer mirror.Close()
	proxy, err := StartProxy(map[string]string{"mirror.example:443": mirror.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	by, err := url.Parse(proxy.HostURL())
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(mirror.CA) {
		t.Fatal("the authority has no certificate")
	}
	ask := func(transport *http.Transport, address, tag string) (string, string) {
		defer transport.CloseIdleConnections()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("If-None-Match", tag)
		res, err := transport.RoundTrip(req)
		if err != nil {
			return "error", ""
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Error(err)
		}
		return fmt.Sprintf("%d %s", res.StatusCode, b), res.Header.Get("ETag")
	}
	good := func() *http.Transport {
		return &http.Transport{Proxy: http.ProxyURL(by), TLSClientConfig: &tls.Config{RootCAs: pool}}
	}
	const file = "https://mirror.example/metadata/timestamp.json"
	got, tag := ask(good(), file, "")
	if got != "200 {}" || tag == "" {
		t.Errorf("got %q with tag %q", got, tag)
	}
	if got, _ := ask(good(), file, tag); got != "304 " {
		t.Errorf("unchanged: got %q", got)
	}
	if got, _ := ask(&http.Transport{Proxy: http.ProxyURL(by)}, file, ""); got != "error" {
		t.Errorf("without the authority: got %q", got)
	}
	if got, _ := ask(good(), "https://dead.example/metadata/timestamp.json", ""); got != "error" {
		t.Errorf("a dead server: got %q", got)
	}
	var answers []string
	for _, a := range mirror.Answers() {
		answers = append(answers, a.String())
	}
	if want := []string{"/metadata/timestamp.json 200", "/metadata/timestamp.json 304"}; !slices.Equal(answers, want) {
		t.Errorf("got answers %q, want %q", answers, want)
	}
	if err := proxy.Close(); err != nil {
		t.Error(err)
	}
	want := []string{"mirror.example:443 200", "mirror.example:443 200", "mirror.example:443 200", "dead.example:443 502"}
	if got := proxy.Asked(); !slices.Equal(got, want) {
		t.Errorf("got tunnels %q, want %q", got, want)
	}
}
