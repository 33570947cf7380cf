// Package registry talks to registries: documents, blobs, referrers, and uploads.
//
// It runs as the user proa-fetch, in a process without privileges (see package fetch): it is the only code of the runtime
// that talks to a network. It verifies nothing and stores nothing: what it hands on is compared by root's side with the digest
// asked for, before anything is unpacked.
//
// An image may be at several endpoints, mirrors first; each question goes to one after the other until one answers. A blob whose
// transfer breaks off or stalls is taken up again where it broke, with a Range header, at the same endpoint or the next. No request waits for
// ever: of every answer, and every upload, something must go on within a minute.
//
// TLS is never left silently: go-containerregistry falls back to plain HTTP for private addresses and local names, and this
// package refuses any request without TLS unless the endpoint is marked insecure, redirects included.
//
// HTTP_PROXY, HTTPS_PROXY and NO_PROXY mean what net/http makes of them: through a proxy TLS goes by CONNECT, end to end, so a proxy sees
// names of hosts and no credentials but its own; addresses of loopback are always asked directly. A proxy that cannot be understood is an
// error: net/http would go around it.
//
// Protocol: opencontainers/distribution-spec 1.1; authentication (basic, bearer tokens) by go-containerregistry.
package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/proa-os/proa/runtime/endpoint"
	"github.com/proa-os/proa/runtime/image"
)

const (
	// MaxDocument bounds any answer that is no blob, in bytes.
	MaxDocument = 8 << 20
	patience    = time.Minute
	agent       = "containerctl"
)

// manifestTypes is what Accept names.
const manifestTypes = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, " +
	"application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"

// ErrNotFound says that no endpoint has what was asked for.
var ErrNotFound = errors.New("not found")

// A Client asks the endpoints of one repository. It may be used by several goroutines.
type Client struct {
	places []*place
	pause  time.Duration // before the second try of a blob; then it doubles
}

// New makes a client. Nothing is asked yet.
func New(list []endpoint.Endpoint) *Client {
	c := &Client{pause: 300 * time.Millisecond}
	for _, e := range list {
		c.places = append(c.places, &place{Endpoint: e, stall: patience})
	}
	return c
}

// place is an endpoint with its connections and its token for pulling.
type place struct {
	endpoint.Endpoint
	stall  time.Duration // how long it may be silent
	mu     sync.Mutex
	client *http.Client
}

// Manifest returns the document a tag or a digest stands for.
func (c *Client) Manifest(ctx context.Context, identifier string) ([]byte, error) {
	return c.document(ctx, identifier, "/manifests/"+identifier, manifestTypes)
}

// Blob returns a small blob.
func (c *Client) Blob(ctx context.Context, d image.Digest) ([]byte, error) {
	return c.document(ctx, d.String(), "/blobs/"+d.String(), "")
}

// Referrers returns the index of what refers to a manifest (distribution-spec, "listing referrers"): of the API, or where
// a registry has none, of the tag that stands in for it.
func (c *Client) Referrers(ctx context.Context, d image.Digest) ([]byte, error) {
	b, err := c.document(ctx, d.String(), "/referrers/"+d.String(), manifestTypes)
	if errors.Is(err, ErrNotFound) {
		return c.document(ctx, d.String(), "/manifests/sha256-"+d.Hex(), manifestTypes)
	}
	return b, err
}

// document asks all endpoints, and once more where that may help.
func (c *Client) document(ctx context.Context, identifier, path, accept string) ([]byte, error) {
	b, err := c.documentOnce(ctx, identifier, path, accept)
	if err == nil || !temporary(err) {
		return b, err
	}
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-time.After(max(c.pause, after(err))):
	}
	return c.documentOnce(ctx, identifier, path, accept)
}

func (c *Client) documentOnce(ctx context.Context, identifier, path, accept string) ([]byte, error) {
	var errs []error
	for _, p := range c.places {
		if !p.serves(identifier) {
			continue
		}
		b, err := p.document(ctx, path, accept)
		if err == nil {
			return b, nil
		}
		errs = append(errs, p.explain(err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, joinErrors(errs)
}

// joinErrors is ErrNotFound only if that is what every endpoint said: one that could not be asked may have it.
func joinErrors(errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	for _, err := range errs {
		if !errors.Is(err, ErrNotFound) {
			texts := make([]string, len(errs))
			for i, e := range errs {
				texts[i] = e.Error()
			}
			return errors.New(strings.Join(texts, "; "))
		}
	}
	return errors.Join(errs...)
}

func (p *place) serves(identifier string) bool {
	if strings.HasPrefix(identifier, "sha256:") {
		return p.Digests
	}
	return p.Tags
}

// explain adds where it was and what to do next.
func (p *place) explain(err error) error {
	host, _, _ := strings.Cut(p.Name, "/")
	var t *transport.Error
	if errors.As(err, &t) && (t.StatusCode == http.StatusUnauthorized || t.StatusCode == http.StatusForbidden) {
		return fmt.Errorf("%s: %w: it is private or does not exist; to name yourself: containerctl login %s", p.Name, err, host)
	}
	return fmt.Errorf("%s: %w", p.Name, err)
}

func (p *place) document(ctx context.Context, path, accept string) ([]byte, error) {
	resp, err := p.get(ctx, path, http.Header{"Accept": {accept}})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, MaxDocument+1))
	if err == nil && len(b) > MaxDocument {
		err = fmt.Errorf("answer of more than %d bytes", MaxDocument)
	}
	return b, err
}

// get sends a request below the repository; an answer of another status than 200 or 206 is an error.
func (p *place) get(ctx context.Context, path string, header http.Header) (*http.Response, error) {
	client, err := p.connect(ctx, transport.PullScope)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(context.WithValue(ctx, bodyKey{}, true), http.MethodGet, p.repository()+path, nil)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		if v[0] != "" {
			req.Header[k] = v
		}
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if err := transport.CheckError(resp, http.StatusOK, http.StatusPartialContent); err != nil {
		resp.Body.Close()
		if resp.StatusCode == http.StatusNotFound {
			return nil, fmt.Errorf("%w: %w", ErrNotFound, err)
		}
		return nil, err
	}
	return resp, nil
}

// base is the start of every address. The transport of connect changes https where the registry speaks plain HTTP.
func (p *place) base() string {
	host, _, _ := strings.Cut(p.Name, "/")
	if host == "docker.io" {
		host = name.DefaultRegistry
	}
	return "https://" + host + "/v2/"
}

// repository is the start of addresses below the repository.
func (p *place) repository() string {
	_, repo, _ := strings.Cut(p.Name, "/")
	return p.base() + repo
}

// connect finds out how the registry wants to be spoken to, once, and gets a token.
func (p *place) connect(ctx context.Context, scope string) (*http.Client, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.client != nil {
		return p.client, nil
	}
	var opts []name.Option
	if p.Insecure {
		opts = append(opts, name.Insecure)
	}
	repo, err := name.NewRepository(p.Name, opts...)
	if err != nil {
		return nil, err
	}
	guarded, err := newTransport(p.Endpoint, p.stall)
	if err != nil {
		return nil, err
	}
	auth := authn.FromConfig(authn.AuthConfig{Username: p.Auth.Username, Password: p.Auth.Password, IdentityToken: p.Auth.Token})
	rt, err := transport.NewWithContext(ctx, repo.Registry, auth, transport.NewUserAgent(guarded, agent), []string{repo.Scope(scope)})
	if err != nil {
		return nil, err
	}
	p.client = &http.Client{Transport: rt}
	return p.client, nil
}
