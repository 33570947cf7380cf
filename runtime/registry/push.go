package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/proa-os/proa/runtime/endpoint"
	"github.com/proa-os/proa/runtime/image"
)

// Push uploads the image whose manifest has digest d from an OCI layout, and gives it a tag. It goes to the last endpoint, the
// image's own: mirrors are read only. A blob that is there already is not sent.
func (c *Client) Push(ctx context.Context, layout *os.Root, d image.Digest, tag string) error {
	own := c.places[len(c.places)-1]
	p := &place{Endpoint: own.Endpoint, stall: own.stall}
	if err := p.push(ctx, layout, d, tag); err != nil {
		return p.explain(err)
	}
	return nil
}

func (p *place) push(ctx context.Context, layout *os.Root, d image.Digest, tag string) error {
	if _, err := p.connect(ctx, transport.PushScope); err != nil {
		return err
	}
	b, err := layout.ReadFile("blobs/sha256/" + d.Hex())
	if err != nil {
		return err
	}
	var m struct {
		MediaType string             `json:"mediaType"`
		Config    image.Descriptor   `json:"config"`
		Layers    []image.Descriptor `json:"layers"`
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return fmt.Errorf("manifest %s: %w", d, err)
	}
	if m.MediaType == "" {
		m.MediaType = "application/vnd.oci.image.manifest.v1+json"
	}
	sent := make(map[image.Digest]bool)
	for _, l := range append([]image.Descriptor{m.Config}, m.Layers...) {
		if sent[l.Digest] {
			continue
		}
		sent[l.Digest] = true
		if err := p.pushBlob(ctx, layout, l); err != nil {
			return fmt.Errorf("blob %s: %w", l.Digest, err)
		}
	}
	resp, err := p.do(ctx, http.MethodPut, p.repository()+"/manifests/"+tag, http.Header{"Content-Type": {m.MediaType}}, bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return transport.CheckError(resp, http.StatusCreated, http.StatusOK, http.StatusAccepted)
}

// pushBlob sends one blob whole (distribution-spec, "POST then PUT").
func (p *place) pushBlob(ctx context.Context, layout *os.Root, l image.Descriptor) error {
	resp, err := p.do(ctx, http.MethodHead, p.repository()+"/blobs/"+l.Digest.String(), nil, nil, 0)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	if resp, err = p.do(ctx, http.MethodPost, p.repository()+"/blobs/uploads/", nil, nil, 0); err != nil {
		return err
	}
	err = transport.CheckError(resp, http.StatusAccepted)
	resp.Body.Close()
	if err != nil {
		return err
	}
	to, err := resp.Request.URL.Parse(resp.Header.Get("Location"))
	if err != nil || resp.Header.Get("Location") == "" {
		return fmt.Errorf("the registry says not where to upload to: %q %v", resp.Header.Get("Location"), err)
	}
	query := to.Query()
	query.Set("digest", l.Digest.String())
	to.RawQuery = query.Encode()
	f, err := layout.Open("blobs/sha256/" + l.Digest.Hex())
	if err != nil {
		return err
	}
	defer f.Close()
	if resp, err = p.do(ctx, http.MethodPut, to.String(), http.Header{"Content-Type": {"application/octet-stream"}}, f, l.Size); err != nil {
		return err
	}
	defer resp.Body.Close()
	return transport.CheckError(resp, http.StatusCreated, http.StatusOK, http.StatusNoContent)
}

func (p *place) do(ctx context.Context, method, address string, header http.Header, body io.Reader, size int64) (*http.Response, error) {
	client, err := p.connect(ctx, transport.PushScope)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, address, body)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	req.ContentLength = size
	return client.Do(req)
}

// Check asks the registry whether it takes the credentials.
func (c *Client) Check(ctx context.Context) error {
	p := c.places[len(c.places)-1]
	if p.Auth == (endpoint.Auth{}) {
		return errors.New("no credentials")
	}
	client, err := p.connect(ctx, transport.PullScope)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.base(), nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return transport.CheckError(resp, http.StatusOK)
}
