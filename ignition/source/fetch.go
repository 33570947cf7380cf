// Package source brings bytes in: the machine's config from its platform, and the resources a config refers to.
//
// It stands at the very start of provisioning (the platform's config) and below package apply (contents of files).
// Sources are data, http and https URLs. A resource is decompressed (gzip) and then verified (sha256, sha512 of the
// decompressed bytes) while it streams into a Sink; what fails verification is reset, never used (Ignition spec
// 3.6.0, "resource"). The other schemes of the spec (tftp, s3, arn, gs) are refused.
//
// Network errors and status 5xx are tried again with a growing pause; any other status is final. Unlike upstream, which
// tries for ever, a total of ten minutes ends it when the config sets no ignition.timeouts.httpTotal: a machine that
// says what is wrong is better than one that hangs.
package source

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/coreos/ignition/v2/config/util"
	"github.com/coreos/ignition/v2/config/v3_6/types"
	"github.com/vincent-petithory/dataurl"

	"github.com/proa-os/proa/ignition/config"
	"github.com/proa-os/proa/ignition/retry"
)

// The spec's default for response headers, and this program's for a whole resource.
const (
	defaultHeaders = 10 * time.Second
	defaultTotal   = 10 * time.Minute
)

// ErrNeedNetwork is what an offline Fetcher answers to any source that is not a data URL.
var ErrNeedNetwork = errors.New("needs the network")

// A Sink takes a resource; Reset forgets what was written, because a transfer broke and starts again.
type Sink interface {
	io.Writer
	Reset() error
}

// A Fetcher fetches resources as one config's timeouts and certificate authorities say. Its zero value has the defaults.
type Fetcher struct {
	Offline  bool // refuse whatever needs a network, with ErrNeedNetwork
	client   *http.Client
	total    time.Duration
	deadline time.Duration // until response headers
}

// For returns a Fetcher for resources that cfg refers to. It fetches cfg's certificate authorities.
func (f Fetcher) For(ctx context.Context, cfg types.Config) (*Fetcher, error) {
	n := &Fetcher{Offline: f.Offline, total: defaultTotal, deadline: defaultHeaders}
	if t := cfg.Ignition.Timeouts.HTTPTotal; t != nil && *t > 0 {
		n.total = time.Duration(*t) * time.Second
	}
	if t := cfg.Ignition.Timeouts.HTTPResponseHeaders; t != nil && *t > 0 {
		n.deadline = time.Duration(*t) * time.Second
	}
	authorities := cfg.Ignition.Security.TLS.CertificateAuthorities
	if len(authorities) == 0 {
		n.client = newClient(nil, n.deadline)
		return n, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("read the system's certificate authorities: %w", err)
	}
	plain, err := f.For(ctx, types.Config{Ignition: types.Ignition{Timeouts: cfg.Ignition.Timeouts}})
	if err != nil {
		return nil, err
	}
	for _, r := range authorities {
		var pem buffer
		if err := plain.Fetch(ctx, r, &pem); err != nil {
			return nil, fmt.Errorf("fetch certificate authority: %w", err)
		}
		if !pool.AppendCertsFromPEM(pem.Bytes()) {
			return nil, fmt.Errorf("read certificate authority %s: expected PEM certificates, found none", config.Redact(*r.Source))
		}
	}
	n.client = newClient(pool, n.deadline)
	return n, nil
}

func newClient(pool *x509.CertPool, headers time.Duration) *http.Client {
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig:       &tls.Config{RootCAs: pool},
		ResponseHeaderTimeout: headers,
		TLSHandshakeTimeout:   headers,
		DisableCompression:    true, // the hash is of what the config calls the resource
		Proxy:                 nil,  // the environment does not configure provisioning
	}}
}

// buffer is a Sink in memory.
type buffer struct{ bytes.Buffer }

func (b *buffer) Reset() error {
	b.Buffer.Reset()
	return nil
}

func (b *buffer) Write(p []byte) (int, error) {
	if b.Len()+len(p) > config.MaxSize {
		return 0, fmt.Errorf("expected at most %d bytes, found more", config.MaxSize)
	}
	return b.Buffer.Write(p)
}

// Config is a config.Fetch: it fetches a config that another one refers to.
func (f Fetcher) Config(ctx context.Context, r types.Resource, sofar types.Config) ([]byte, error) {
	n, err := f.For(ctx, sofar)
	if err != nil {
		return nil, err
	}
	var b buffer
	if err := n.Fetch(ctx, r, &b); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// Fetch writes the decompressed and verified resource to sink. After an error sink holds nothing of use.
func (f *Fetcher) Fetch(ctx context.Context, r types.Resource, sink Sink) error {
	if util.NilOrEmpty(r.Source) {
		return nil // the spec's empty source: an empty resource
	}
	u, err := url.Parse(*r.Source)
	if err != nil {
		return fmt.Errorf("parse source: expected a URL")
	}
	switch u.Scheme {
	case "data":
		d, err := dataurl.DecodeString(*r.Source)
		if err != nil {
			return fmt.Errorf("decode data URL: expected RFC 2397, found something else")
		}
		return copyVerified(sink, bytes.NewReader(d.Data), r)
	case "http", "https":
		if f.Offline {
			return fmt.Errorf("fetch %s: %w", config.Redact(*r.Source), ErrNeedNetwork)
		}
		return f.retry(ctx, u, r, sink)
	}
	return fmt.Errorf("fetch: %s sources are not supported by this release", u.Scheme)
}

func (f *Fetcher) retry(ctx context.Context, u *url.URL, r types.Resource, sink Sink) error {
	if f.client == nil {
		f = &Fetcher{client: newClient(nil, defaultHeaders), total: defaultTotal, deadline: defaultHeaders}
	}
	first := true
	err := retry.Do(ctx, f.total, func(ctx context.Context) error {
		if !first {
			if err := sink.Reset(); err != nil {
				return err
			}
		}
		first = false
		return f.get(ctx, u, r, sink)
	})
	if err != nil {
		return fmt.Errorf("fetch %s: %w", config.Redact(u.String()), err)
	}
	return nil
}

func (f *Fetcher) get(ctx context.Context, u *url.URL, r types.Resource, sink Sink) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return errors.New("expected a valid URL")
	}
	req.Header.Set("User-Agent", "ignition")
	client := *f.client
	client.CheckRedirect = func(to *http.Request, via []*http.Request) error {
		for _, h := range r.HTTPHeaders { // they are for the server the config names
			to.Header.Del(h.Name)
		}
		if len(via) >= 10 {
			return errors.New("more than 10 redirects")
		}
		return nil
	}
	for _, h := range r.HTTPHeaders {
		if h.Value != nil {
			req.Header.Set(h.Name, *h.Value)
		}
	}
	resp, err := client.Do(req)
	if err != nil {
		return retry.Temporary(WithoutURL(err))
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode >= 500:
		return retry.Temporary(fmt.Errorf("expected status 200, found %s", resp.Status))
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("expected status 200, found %s", resp.Status)
	}
	body := &transfer{r: resp.Body}
	err = copyVerified(sink, body, r)
	if body.err != nil {
		return retry.Temporary(body.err)
	}
	return err
}

// WithoutURL takes the URL, which may hold credentials, out of an error of net/http.
func WithoutURL(err error) error {
	var e *url.Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

// transfer remembers whether reading, not what was read, is at fault.
type transfer struct {
	r   io.Reader
	err error
}

func (t *transfer) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	if err != nil && err != io.EOF {
		t.err = err
	}
	return n, err
}

// copyVerified decompresses and verifies body into sink.
func copyVerified(sink Sink, body io.Reader, r types.Resource) error {
	if util.NotEmpty(r.Compression) {
		z, err := gzip.NewReader(body)
		if err != nil {
			return fmt.Errorf("decompress: expected gzip: %w", err)
		}
		body = z
	}
	h, want, err := hasher(r.Verification)
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.MultiWriter(sink, h), body); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); want != "" && got != want {
		if err := sink.Reset(); err != nil {
			return err
		}
		return &HashError{Want: want, Got: got}
	}
	return nil
}

// A HashError says that a resource is not the one the config means.
type HashError struct{ Want, Got string }

func (e *HashError) Error() string {
	return fmt.Sprintf("verify: expected hash %s, found %s", e.Want, e.Got)
}

func hasher(v types.Verification) (hash.Hash, string, error) {
	name, sum, err := v.HashParts()
	if err != nil {
		return nil, "", fmt.Errorf("parse hash: %w", err)
	}
	switch name {
	case "sha512":
		return sha512.New(), strings.ToLower(sum), nil
	case "sha256":
		return sha256.New(), strings.ToLower(sum), nil
	case "":
		return sha256.New(), "", nil
	}
	return nil, "", fmt.Errorf("parse hash: expected sha512 or sha256, found %q", name)
}
