package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"time"

	"github.com/proa-os/proa/runtime/endpoint"
)

// guard stands below everything that is sent.
type guard struct {
	base     http.RoundTripper
	insecure bool
	stall    time.Duration
}

func newTransport(e endpoint.Endpoint, stall time.Duration) (http.RoundTripper, error) {
	if err := checkProxies(); err != nil {
		return nil, err
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.OnProxyConnectResponse = checkTunnel
	t.DisableCompression = true // a digest is of the bytes as they are sent
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: e.Insecure}
	if len(e.CA) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			return nil, fmt.Errorf("read the system's certificates: %w", err)
		}
		if !pool.AppendCertsFromPEM(e.CA) {
			return nil, fmt.Errorf("certificates for %s: none in PEM format found", e.Name)
		}
		t.TLSClientConfig.RootCAs = pool
	}
	if len(e.Cert) > 0 {
		pair, err := tls.X509KeyPair(e.Cert, e.Key)
		if err != nil {
			return nil, fmt.Errorf("client certificate for %s: %w", e.Name, err)
		}
		t.TLSClientConfig.Certificates = []tls.Certificate{pair}
	}
	return &guard{base: t, insecure: e.Insecure, stall: stall}, nil
}

func (g *guard) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !g.insecure {
		return nil, fmt.Errorf("refuse plain %s to %s: the registry has no TLS; use --tls-verify=false to accept that", r.URL.Scheme, r.URL.Host)
	}
	resp, err := g.impatiently(r)
	if err == nil && (r.Context().Value(bodyKey{}) == nil || resp.StatusCode >= 300) {
		resp.Body = &limited{resp.Body, MaxDocument}
	}
	return resp, err
}

// bodyKey marks the context of requests whose good answer this package bounds itself; all others, those for tokens say, are
// read whole by go-containerregistry.
type bodyKey struct{}

// limited ends an answer that is longer than any honest one.
type limited struct {
	io.ReadCloser
	left int64
}

func (l *limited) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, fmt.Errorf("answer of more than %d bytes", MaxDocument)
	}
	n, err := l.ReadCloser.Read(p[:min(int64(len(p)), l.left)])
	l.left -= int64(n)
	return n, err
}

// checkProxies refuses what net/http would pass over in silence. The value may hold a password: it is not printed.
func checkProxies() error {
	for _, names := range [][2]string{{"HTTP_PROXY", "http_proxy"}, {"HTTPS_PROXY", "https_proxy"}} {
		for _, name := range names {
			value := os.Getenv(name)
			if value == "" {
				continue
			}
			u, err := url.Parse(value)
			if err != nil || u.Scheme == "" || u.Host == "" {
				u, err = url.Parse("http://" + value)
			}
			if err != nil || u.Hostname() == "" || !slices.Contains([]string{"http", "https", "socks5", "socks5h"}, u.Scheme) {
				return fmt.Errorf("%s is no address of a proxy: expected http://[USER:PASSWORD@]HOST:PORT, https:// or socks5://", name)
			}
			break // the second name counts only without the first
		}
	}
	return nil
}

// refusal is a proxy's no to CONNECT.
type refusal struct {
	code int
	text string
}

func (r *refusal) Error() string { return r.text }

// checkTunnel names the proxy, which net/http's error does not.
func checkTunnel(_ context.Context, proxy *url.URL, to *http.Request, answer *http.Response) error {
	if answer.StatusCode == http.StatusOK {
		return nil
	}
	text := fmt.Sprintf("the proxy %s does not let us through to %s: %.80q", proxy.Host, to.URL.Opaque, answer.Status)
	if answer.StatusCode == http.StatusProxyAuthRequired {
		text += ": give its user and password in HTTPS_PROXY (http://USER:PASSWORD@HOST:PORT)"
	}
	return &refusal{answer.StatusCode, text}
}

// final reports whether the proxy would say the same again.
func final(err error) bool {
	var r *refusal
	return errors.As(err, &r) && r.code < 500
}
