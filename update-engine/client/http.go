package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/proa-os/proa/update-engine/artifact"
)

// Network says how web servers are reached. The zero value is what the environment says: HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE ...
type Network struct {
	// Proxy is the URL of a proxy for everything (http, https, socks5; user and password in it), or "direct" for none.
	Proxy string `json:"proxy,omitempty"`
	// CA holds certificates in PEM that are trusted besides the system's.
	CA string `json:"ca,omitempty"`
}

// HTTP is a Source that asks web servers, and registries (package artifact).
type HTTP struct {
	client *http.Client
	idle   time.Duration
}

// NewHTTP returns an HTTP source that gives up on a server that sends nothing for the time idle.
func NewHTTP(idle time.Duration) *HTTP { return newHTTP(idle, http.ProxyFromEnvironment, nil) }

// HTTP is NewHTTP by way of n.
func (n Network) HTTP(idle time.Duration) (*HTTP, error) {
	proxy, err := n.proxy()
	if err != nil {
		return nil, err
	}
	if n.CA == "" {
		return newHTTP(idle, proxy, nil), nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // a system without certificates of its own
	}
	if !pool.AppendCertsFromPEM([]byte(n.CA)) {
		return nil, errors.New("the CA file holds no certificate: expected PEM blocks \"CERTIFICATE\"")
	}
	return newHTTP(idle, proxy, &tls.Config{RootCAs: pool}), nil
}

// ReadNetwork makes a Network of a proxy and the name of a CA file; both may be empty. It says whether they can be used.
func ReadNetwork(proxy, caFile string) (Network, error) {
	n := Network{Proxy: proxy}
	if caFile != "" {
		f, err := os.Open(caFile)
		if err != nil {
			return Network{}, fmt.Errorf("read CA file: %w", err)
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, maxCA+1))
		if err != nil {
			return Network{}, fmt.Errorf("read CA file: %w", err)
		}
		if len(b) > maxCA {
			return Network{}, fmt.Errorf("read CA file %s: it has more than %d bytes", caFile, maxCA)
		}
		n.CA = string(b)
		if n.CA == "" {
			return Network{}, fmt.Errorf("read CA file %s: it is empty", caFile)
		}
	}
	if _, err := n.HTTP(time.Second); err != nil {
		return Network{}, fmt.Errorf("reach the network as configured: %w", err)
	}
	return n, nil
}

const maxCA = 1 << 20 // bytes

func (n Network) proxy() (func(*http.Request) (*url.URL, error), error) {
	switch n.Proxy {
	case "":
		return http.ProxyFromEnvironment, nil
	case "direct":
		return nil, nil
	}
	u, err := url.Parse(n.Proxy)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "socks5" {
		// Neither the value nor the parser's error, which quotes it: a password may be in it.
		return nil, errors.New(`proxy: want a URL such as http://proxy.example.org:3128, or "direct"`)
	}
	return http.ProxyURL(u), nil
}

func newHTTP(idle time.Duration, proxy func(*http.Request) (*url.URL, error), t *tls.Config) *HTTP {
	return &HTTP{idle: idle, client: &http.Client{CheckRedirect: redirect, Transport: &http.Transport{
		Proxy:                 proxy,
		DialContext:           (&net.Dialer{Timeout: idle}).DialContext,
		TLSClientConfig:       t,
		TLSHandshakeTimeout:   idle,
		ResponseHeaderTimeout: idle,
		// Nothing unverified is unpacked: what the server sends is what is hashed.
		DisableCompression:     true,
		MaxResponseHeaderBytes: 64 << 10,
	}}}
}

const (
	maxRedirects = 5
	userAgent    = "proa-update"
)

// redirect follows a server to another of its own pages, and to no other host: what a stranger says must not choose whom a machine in
// somebody's network talks to. The way from http to https is open, the one back is not.
func redirect(req *http.Request, via []*http.Request) error {
	from := via[len(via)-1].URL
	switch {
	case len(via) > maxRedirects:
		return fmt.Errorf("more than %d redirects", maxRedirects)
	case req.URL.Scheme != "https" && req.URL.Scheme != from.Scheme:
		return fmt.Errorf("redirect from %s to %s refused", from.Scheme, req.URL.Scheme)
	case req.URL.Hostname() != from.Hostname() || req.URL.Port() != from.Port() && req.URL.Scheme == from.Scheme:
		return fmt.Errorf("redirect from %s to another server, %s, refused: if the repository is there, configure that as server", from.Host, req.URL.Host)
	}
	return nil
}

// Open implements Source.
func (h *HTTP) Open(ctx context.Context, address string, offset int64) (io.ReadCloser, error) {
	body, _, err := h.get(ctx, address, offset, "")
	if err != nil {
		return nil, err
	}
	if _, err := io.CopyN(io.Discard, body, body.skip); err != nil {
		body.Close()
		return nil, fmt.Errorf("skip to byte %d: %w", offset, err)
	}
	return body, nil
}

// Poll implements Poller (RFC 9110, section 13.1.2).
func (h *HTTP) Poll(ctx context.Context, address, tag string) (io.ReadCloser, string, error) {
	body, tag, err := h.get(ctx, address, 0, tag)
	if err != nil {
		return nil, "", err
	}
	return body, tag, nil
}

func (h *HTTP) get(ctx context.Context, address string, offset int64, tag string) (*httpBody, string, error) {
	if artifact.Is(address) {
		return h.fromRegistry(ctx, address, offset, tag)
	}
	header := http.Header{"User-Agent": {userAgent}}
	if offset > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	if tag != "" {
		header.Set("If-None-Match", tag)
	}
	return h.send(ctx, h.client, address, offset, header)
}

// send asks for a file with a header that says from where on, and unless it is which. The tag is what came with it.
func (h *HTTP) send(ctx context.Context, client *http.Client, address string, offset int64, header http.Header) (*httpBody, string, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	req, err := http.NewRequestWithContext(context.WithValue(ctx, bounded{}, true), http.MethodGet, address, nil)
	if err != nil {
		cancel(nil)
		return nil, "", err
	}
	maps.Copy(req.Header, header)
	// Each of its steps has its own time; a registry's token is one of them that has none.
	late := time.AfterFunc(3*h.idle, func() { cancel(fmt.Errorf("the server has not answered within %s%s", 3*h.idle, tryAnother)) })
	res, err := client.Do(req)
	late.Stop()
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		cancel(nil)
		return nil, "", err
	}
	body := &httpBody{body: res.Body, cancel: cancel, ctx: ctx, idle: h.idle}
	if header.Get("If-None-Match") != "" && res.StatusCode == http.StatusNotModified {
		body.Close()
		return nil, "", ErrUnchanged
	}
	body.timer = time.AfterFunc(h.idle, func() { cancel(fmt.Errorf("the server sent nothing for %s%s", h.idle, tryAnother)) })
	if err := body.position(res, offset); err != nil {
		body.Close()
		return nil, "", err
	}
	body.timer.Stop()
	return body, plainTag(res.Header.Get("ETag")), nil
}

// plainTag is an entity tag that can be kept and sent again, or nothing.
func plainTag(tag string) string {
	const longest = 200
	if len(tag) > longest {
		return ""
	}
	for _, b := range []byte(tag) {
		if b < ' ' || b > '~' {
			return ""
		}
	}
	return tag
}

// httpBody ends a read when nothing comes.
type httpBody struct {
	body   io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	idle   time.Duration
	skip   int64 // bytes to drop, of a server that does not know ranges

	waited time.Duration // for the server, since the last look at its pace
	got    int64         // bytes in that time
}

// tryAnother ends what is said of a server that is too slow.
const tryAnother = ": ask another server (mirrors in the configuration)"

// minPace is what a server must send in a second, on average over the idle time: a tenth of the slowest line that is worth it.
const minPace = 1 << 10 // bytes

// position makes the next byte but skip the one at offset, whether the server knows ranges or not.
func (b *httpBody) position(res *http.Response, offset int64) error {
	switch res.StatusCode {
	case http.StatusPartialContent:
		var from int64
		if _, err := fmt.Sscanf(res.Header.Get("Content-Range"), "bytes %d-", &from); err != nil || from != offset {
			return fmt.Errorf("asked for bytes from %d on, got Content-Range %q", offset, res.Header.Get("Content-Range"))
		}
		return nil
	case http.StatusOK:
		b.skip = offset
		return nil
	case http.StatusNotFound, http.StatusGone, http.StatusForbidden: // 403 is how an object store says that it has no such file
		return &absentError{res.StatusCode}
	}
	// res.Status is in the server's words
	return &StatusError{Code: res.StatusCode, text: fmt.Sprintf("server answered %d %s", res.StatusCode, http.StatusText(res.StatusCode))}
}

// absentError says that there is no such file.
type absentError struct{ code int }

func (e *absentError) Error() string {
	return fmt.Sprintf("server answered %d %s: %v", e.code, http.StatusText(e.code), fs.ErrNotExist)
}

func (e *absentError) Unwrap() error { return fs.ErrNotExist }

// Read implements io.Reader.
func (b *httpBody) Read(p []byte) (int, error) {
	b.timer.Reset(b.idle)
	start := time.Now()
	n, err := b.body.Read(p)
	if err == nil {
		if err = b.pace(time.Since(start), int64(n)); err != nil {
			n = 0 // an error that comes with bytes counts as progress
		}
	}
	if err != nil && err != io.EOF {
		if cause := context.Cause(b.ctx); cause != nil {
			err = cause
		}
	}
	// Whoever reads may take its time, only the server may not.
	b.timer.Stop()
	return n, err
}

// pace gives up on a server that sends just enough not to be silent.
func (b *httpBody) pace(took time.Duration, n int64) error {
	b.waited, b.got = b.waited+took, b.got+n
	if b.waited < b.idle {
		return nil
	}
	if float64(b.got) < minPace*b.waited.Seconds() {
		return fmt.Errorf("the server sent %d bytes in %s, expected at least %d a second%s", b.got, b.waited.Round(time.Millisecond), minPace, tryAnother)
	}
	b.waited, b.got = 0, 0
	return nil
}

// Close implements io.Closer.
func (b *httpBody) Close() error {
	if b.timer != nil {
		b.timer.Stop()
	}
	b.cancel(nil)
	return b.body.Close()
}
