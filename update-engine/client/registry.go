package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/proa-os/proa/update-engine/artifact"
)

// fromRegistry is get for a file of an artifact. Its tag is the manifest's digest and the file's: of a registry, which need not know If-None-Match,
// it is asked which manifest the tag stands for. A registry may send whoever asks to other servers, for tokens and blobs: that is the protocol, and why
// nothing secret is ever in a request.
func (h *HTTP) fromRegistry(ctx context.Context, address string, offset int64, tag string) (*httpBody, string, error) {
	a, err := artifact.Parse(address)
	if err != nil {
		return nil, "", err
	}
	r, err := h.connect(ctx, a)
	if err != nil {
		return nil, "", err
	}
	manifest, file, _ := strings.Cut(tag, " ")
	if tag != "" && r.is(ctx, manifest) {
		return nil, "", ErrUnchanged
	}
	blob, manifest, err := r.find(ctx, a.File)
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", a, err)
	}
	if blob.Digest == file {
		return nil, "", ErrUnchanged
	}
	body, _, err := h.send(ctx, r.client, a.URL("blobs/"+blob.Digest), offset, ranges(offset, blob.Size))
	if errors.Is(err, fs.ErrNotExist) { // it is: the manifest says so
		err = &StatusError{Code: http.StatusNotFound, text: fmt.Sprintf("the registry does not give a file that is in its manifest: %v", err)}
	}
	return body, manifest + " " + blob.Digest, err
}

// ranges has an end: some registries know no other.
func ranges(offset, size int64) http.Header {
	if offset <= 0 || size <= offset {
		return nil
	}
	return http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", offset, size-1)}}
}

// registry is one that has said how it wants to be asked.
type registry struct {
	h       *HTTP
	address artifact.Address
	client  *http.Client
}

// connect finds that out, and gets a token for anybody where the registry wants one (distribution-spec's token authentication).
func (h *HTTP) connect(ctx context.Context, a artifact.Address) (*registry, error) {
	var opts []name.Option
	if a.Plain {
		opts = append(opts, name.Insecure)
	}
	of, err := name.NewRegistry(a.Registry, opts...)
	if err != nil {
		return nil, err
	}
	shaking, cancel := context.WithTimeoutCause(ctx, h.idle, fmt.Errorf("the registry has not let us in within %s%s", h.idle, tryAnother))
	defer cancel()
	way := transport.NewUserAgent(guard{base: h.client.Transport, plain: a.Plain}, userAgent)
	way, err = transport.NewWithContext(shaking, of, authn.Anonymous, way, []string{of.Repo(a.Name).Scope(transport.PullScope)})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a, refusal(shaking, err))
	}
	return &registry{h, a, &http.Client{Transport: way, CheckRedirect: few}}, nil
}

// refusal is an error without the registry's own words, and with what to do.
func refusal(ctx context.Context, err error) error {
	const private = ": it is private or does not exist; machines have no name and password, make it public"
	said, library, absent := (*StatusError)(nil), (*transport.Error)(nil), (*absentError)(nil)
	switch {
	case errors.As(err, &library):
		said = &StatusError{library.StatusCode, fmt.Sprintf("registry answered %d %s", library.StatusCode, http.StatusText(library.StatusCode))}
	case errors.As(err, &absent) && absent.code != http.StatusForbidden:
		return err
	case absent != nil:
		said = &StatusError{absent.code, absent.Error()}
	case !errors.As(err, &said):
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return fmt.Errorf("%.500s", Printable(err.Error())) // the library quotes the registry
	}
	if said.Code == http.StatusUnauthorized || said.Code == http.StatusForbidden {
		return &StatusError{said.Code, said.text + private}
	}
	return said
}

// few bounds redirects; guard says where they may lead.
func few(_ *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return fmt.Errorf("more than %d redirects", maxRedirects)
	}
	return nil
}

// is reports whether the tag stands for a manifest. A registry that does not say so is asked for the manifest.
func (r *registry) is(ctx context.Context, digest string) bool {
	ctx, cancel := context.WithTimeout(ctx, r.h.idle)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, r.address.URL("manifests/"+r.address.Tag), nil)
	if err != nil {
		return false
	}
	req.Header.Set("Accept", artifact.MediaType)
	res, err := r.client.Do(req)
	if err != nil {
		return false
	}
	res.Body.Close()
	return res.StatusCode == http.StatusOK && digest != "" && res.Header.Get("Docker-Content-Digest") == digest
}

// find reads the manifest that the tag stands for, and returns a file's blob and the manifest's digest.
func (r *registry) find(ctx context.Context, file string) (artifact.Descriptor, string, error) {
	body, _, err := r.h.send(ctx, r.client, r.address.URL("manifests/"+r.address.Tag), 0, http.Header{"Accept": {artifact.MediaType}})
	if err != nil {
		return artifact.Descriptor{}, "", refusal(ctx, err)
	}
	defer body.Close()
	return artifact.Find(body, file)
}

// guard stands below everything that is sent to a registry and to whom it refers us: TLS is not left, though the library would do that for private
// addresses; who only reads sends nothing, though the library would post what a registry tells it; and what the library reads whole has an end.
type guard struct {
	base  http.RoundTripper
	plain bool
	write bool
}

// bounded marks the context of requests whose answer is bounded by whoever reads it.
type bounded struct{}

const maxWords = 1 << 20 // bytes of a token or an error

// Registry is the way to a registry for whoever writes to it.
func (h *HTTP) Registry(a artifact.Address) http.RoundTripper {
	return guard{h.client.Transport, a.Plain, true}
}

// Close ends the connections that nobody uses.
func (h *HTTP) Close() { h.client.CloseIdleConnections() }

// RoundTrip implements http.RoundTripper.
func (g guard) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := g.refuses(r); err != nil {
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, err
	}
	res, err := g.base.RoundTrip(r)
	if err == nil && (r.Context().Value(bounded{}) == nil || res.StatusCode >= 300) {
		res.Body = http.MaxBytesReader(nil, res.Body, maxWords)
	}
	return res, err
}

func (g guard) refuses(r *http.Request) error {
	switch {
	case r.URL.Scheme != "https" && !g.plain:
		return fmt.Errorf("plain %s to %s refused: a registry without TLS is oci+http:// in the configuration", r.URL.Scheme, r.URL.Host)
	case !g.write && r.Method != http.MethodGet && r.Method != http.MethodHead:
		return fmt.Errorf("%s to %s refused: whoever reads sends nothing", r.Method, r.URL.Host)
	}
	return nil
}
