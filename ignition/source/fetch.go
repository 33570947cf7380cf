// Package source brings in the resources that a config refers to: other configs, contents of files, certificate authorities.
//
// It stands below packages stage (merged configs) and apply (contents of files). A resource is decompressed (gzip) and then
// verified (sha256, sha512 of the decompressed bytes) while it streams into a Sink; what fails verification is reset, never used
// (Ignition spec 3.6.0, "resource"). The schemes:
//
//	data         RFC 2397
//	http, https  with the config's headers, proxies, certificate authorities and timeouts; headers are not sent to redirects
//	tftp         RFC 1350, blocks of 1428 bytes where the server takes them (RFC 2348)
//	s3, arn      objects of buckets and access points; signed (AWS Signature Version 4) where the machine has a role
//	gs           objects of Google Cloud Storage, with the machine's service account where it has one
//
// A source that is marked as encrypted, by the media type of its data URL (data:application/age;base64,...) or by the fragment #age of
// another URL, is opened with the machine's key (package secret) after it was verified: the hash is of what is fetched.
//
// Azure's blobs are https URLs. Network errors and status 5xx are tried again with a growing pause; any other status is final. Unlike
// upstream, which tries for ever, a total of ten minutes ends it when the config sets no ignition.timeouts.httpTotal (0 is for ever, as in
// the spec): a machine that says what is wrong is better than one that hangs.
package source

import (
	"bytes"
	"cmp"
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
	"net"
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
	Offline bool                                          // refuse whatever needs a network, with ErrNeedNetwork
	AWS     func(context.Context) (AWSKeys, error)        // the machine's role and region; nil: none
	Google  func(context.Context) (string, error)         // an access token of the machine's service account; nil: none
	Azure   func(context.Context) (string, error)         // an access token for blobs; nil: none
	Secrets func(context.Context, []byte) ([]byte, error) // opens what is encrypted; nil: there is no key
	Route   func(address string) string                   // where a connection to host:port goes; nil: there
	// Retrying is told why a source is tried again, and its name without secrets; nil is fine.
	Retrying func(name string, err error)

	client   *http.Client
	total    time.Duration // 0: without end
	deadline time.Duration // until response headers; 0: none
}

// For returns a Fetcher for resources that cfg refers to. It fetches cfg's certificate authorities.
func (f Fetcher) For(ctx context.Context, cfg types.Config) (*Fetcher, error) {
	n := &f
	n.total, n.deadline = defaultTotal, defaultHeaders
	if t := cfg.Ignition.Timeouts.HTTPTotal; t != nil && *t >= 0 {
		n.total = time.Duration(*t) * time.Second
	}
	if t := cfg.Ignition.Timeouts.HTTPResponseHeaders; t != nil && *t >= 0 {
		n.deadline = time.Duration(*t) * time.Second
	}
	authorities := cfg.Ignition.Security.TLS.CertificateAuthorities
	if len(authorities) == 0 {
		n.client = n.newClient(nil, cfg.Ignition.Proxy)
		return n, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("read the system's certificate authorities: %w", err)
	}
	plain, err := f.For(ctx, types.Config{Ignition: types.Ignition{Timeouts: cfg.Ignition.Timeouts, Proxy: cfg.Ignition.Proxy}})
	if err != nil {
		return nil, err
	}
	for i, r := range authorities {
		var pem buffer
		if err := plain.Fetch(ctx, r, &pem); err != nil {
			return nil, &AuthorityError{i, fmt.Errorf("fetch certificate authority: %w", err)}
		}
		if !pool.AppendCertsFromPEM(pem.Bytes()) {
			return nil, &AuthorityError{i, fmt.Errorf("read certificate authority %s: expected PEM certificates, found none", config.Redact(*r.Source))}
		}
	}
	n.client = n.newClient(pool, cfg.Ignition.Proxy)
	return n, nil
}

// An AuthorityError is what is wrong with one of a config's certificate authorities.
type AuthorityError struct {
	Index int
	error
}

// Unwrap returns what is wrong.
func (e *AuthorityError) Unwrap() error { return e.error }

func (f *Fetcher) newClient(pool *x509.CertPool, p types.Proxy) *http.Client {
	// Who waits without end for an answer need not for a connection: another try brings it as well.
	connect := cmp.Or(f.deadline, defaultHeaders)
	dial := net.Dialer{Timeout: connect}
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if f.Route != nil {
				address = f.Route(address)
			}
			return dial.DialContext(ctx, network, address)
		},
		TLSClientConfig:       &tls.Config{RootCAs: pool},
		ResponseHeaderTimeout: f.deadline,
		TLSHandshakeTimeout:   connect,
		DisableCompression:    true, // the hash is of what the config calls the resource
		Proxy:                 proxies(p),
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
	if encrypted(u) {
		return f.fetchSecret(ctx, u, r, sink)
	}
	return f.fetch(ctx, u, r, sink)
}

// secretType is the media type, and secretMark the fragment, of what is encrypted.
const (
	secretType = "application/age"
	secretMark = "age"
)

func encrypted(u *url.URL) bool {
	if u.Scheme != "data" {
		return u.Fragment == secretMark
	}
	kind, _, _ := strings.Cut(u.Opaque, ",")
	kind, _, _ = strings.Cut(kind, ";")
	return strings.EqualFold(kind, secretType)
}

// fetchSecret opens a resource when all of it is there and verified.
func (f *Fetcher) fetchSecret(ctx context.Context, u *url.URL, r types.Resource, sink Sink) error {
	if u.Scheme != "data" {
		plain := *u
		plain.Fragment = ""
		u = &plain
	}
	var sealed buffer
	if err := f.fetch(ctx, u, r, &sealed); err != nil {
		return err
	}
	if f.Secrets == nil {
		return fmt.Errorf("open %s: expected the key of a machine, found none here", config.Redact(*r.Source))
	}
	plain, err := f.Secrets(ctx, sealed.Bytes())
	if err != nil {
		return err
	}
	_, err = sink.Write(plain)
	return err
}

func (f *Fetcher) fetch(ctx context.Context, u *url.URL, r types.Resource, sink Sink) error {
	if u.Scheme == "data" {
		d, err := dataurl.DecodeString(*r.Source)
		if err != nil {
			return fmt.Errorf("decode data URL: expected RFC 2397, found something else")
		}
		return copyVerified(sink, bytes.NewReader(d.Data), r)
	}
	if f.Offline {
		return fmt.Errorf("fetch %s: %w", config.Redact(*r.Source), ErrNeedNetwork)
	}
	if f.client == nil {
		var err error
		if f, err = f.For(ctx, types.Config{}); err != nil {
			return err
		}
	}
	open, err := f.opener(u, r)
	if err == nil {
		err = f.transfer(ctx, u, r, sink, open)
	}
	if err != nil {
		return fmt.Errorf("fetch %s: %w", config.Redact(*r.Source), err)
	}
	return nil
}

// opener tries once to open a resource; what another try may not have is marked as temporary.
type opener func(ctx context.Context) (io.ReadCloser, error)

func (f *Fetcher) opener(u *url.URL, r types.Resource) (opener, error) {
	switch u.Scheme {
	case "http", "https":
		if f.Azure != nil && u.Scheme == "https" && strings.HasSuffix(u.Hostname(), ".blob.core.windows.net") {
			return f.blob(u, r), nil
		}
		return func(ctx context.Context) (io.ReadCloser, error) { return f.get(ctx, u.String(), configHeaders(r)) }, nil
	case "tftp":
		return func(ctx context.Context) (io.ReadCloser, error) { return f.openTFTP(ctx, u) }, nil
	case "s3", "arn":
		return f.s3(u)
	case "gs":
		return f.bucket(u), nil
	}
	return nil, fmt.Errorf("expected a source of scheme data, http, https, tftp, s3, arn or gs, found %s", u.Scheme)
}

// transfer opens and copies a resource until it has arrived, or an error is final, or the total time is over.
func (f *Fetcher) transfer(ctx context.Context, u *url.URL, r types.Resource, sink Sink, open opener) error {
	first := true
	return retry.Do(ctx, f.total, func(ctx context.Context) (err error) {
		defer func() {
			err = faulty(u, err)
			if f.Retrying != nil && retry.IsTemporary(err) {
				f.Retrying(config.Redact(*r.Source), err)
			}
		}()
		if !first {
			if err := sink.Reset(); err != nil {
				return err
			}
		}
		first = false
		body, err := open(ctx)
		if err != nil {
			return err
		}
		defer body.Close()
		t := &transfer{r: body}
		err = copyVerified(sink, t, r)
		if t.err != nil {
			return retry.Temporary(t.err)
		}
		return err
	})
}

func configHeaders(r types.Resource) http.Header {
	h := http.Header{}
	for _, e := range r.HTTPHeaders {
		if e.Value != nil {
			h.Set(e.Name, *e.Value)
		}
	}
	return h
}

// get opens an http or https URL. The headers are for the server it names and for no other.
func (f *Fetcher) get(ctx context.Context, address string, headers http.Header) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, errors.New("expected a valid URL")
	}
	req.Header = headers.Clone()
	introduce(req.Header)
	client := *f.client
	client.CheckRedirect = func(to *http.Request, via []*http.Request) error {
		for name := range headers {
			to.Header.Del(name)
		}
		to.Header.Del("Referer") // the address, which may hold credentials
		introduce(to.Header)
		if len(via) >= 10 {
			return errors.New("more than 10 redirects")
		}
		return nil
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, retry.Temporary(WithoutURL(err))
	}
	if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusNoContent { // which is an empty resource
		return resp.Body, nil
	}
	err = &StatusError{resp.StatusCode}
	if resp.StatusCode >= 500 {
		err = retry.Temporary(err)
	}
	return nil, errors.Join(err, resp.Body.Close())
}

// Accept is what upstream sends with every request: some servers choose by it which config they give, and of which version.
const Accept = "application/vnd.coreos.ignition+json;version=3.6.0, */*;q=0.1"

// introduce adds to the headers of a request who asks for what, where they do not say it. What a server compresses of itself would have
// another hash.
func introduce(h http.Header) {
	for name, value := range map[string]string{"User-Agent": "ignition", "Accept": Accept, "Accept-Encoding": "identity"} {
		if h.Get(name) == "" {
			h.Set(name, value)
		}
	}
}

// WithoutURL takes the URL, which may hold credentials, out of an error of net/http, and one that a server sends us to.
func WithoutURL(err error) error {
	var e *url.Error
	switch {
	case !errors.As(err, &e):
		return err
	case strings.Contains(e.Err.Error(), "Location header"):
		return errors.New("the server answers with a redirect to what is no URL")
	}
	return e.Err
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
