// Package registry fetches the blobs of an image from a registry into a directory.
//
// It runs as the user proa-fetch, in a process without privileges (see package ctl): it is the only code of the runtime
// that talks to a network. What it stores is not trusted: the store compares every digest again before root unpacks it.
//
//	<dir>/blobs/sha256/<digest>    documents and layers
//
// Each blob is written under its final name only when it is complete and has the promised size and digest; a connection
// that is cut, stalls for a minute or delivers more than promised is an error that names the blob.
//
// TLS is never left silently: go-containerregistry falls back to plain HTTP for private addresses and local names, and this
// package refuses any request without TLS unless Options.Insecure is set, redirects included.
//
// Protocol: opencontainers/distribution-spec 1.1, by go-containerregistry. Anonymous access only.
package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/runtime/image"
	"github.com/proa-os/proa/runtime/ref"
)

const (
	maxDocument = 8 << 20 // bytes of any answer that is no blob
	stall       = time.Minute
)

// Options say what to fetch.
type Options struct {
	Ref      ref.Ref
	Dir      *os.Root              // empty directory
	Insecure bool                  // plain HTTP and any certificate
	Have     map[image.Digest]bool // diffIDs of layers not to fetch
	Progress func(Event)           // may be nil
}

// An Event is progress of one layer, in bytes.
type Event struct {
	Layer image.Digest `json:"layer"`
	Done  int64        `json:"done"`
	Total int64        `json:"total"`
}

type fetcher struct {
	o      Options
	ctx    context.Context
	puller *remote.Puller
}

// Fetch stores the documents of the image for this machine and its missing layers, and returns the digest that the name
// stands for at this moment.
func Fetch(ctx context.Context, o Options) (image.Digest, error) {
	if o.Progress == nil {
		o.Progress = func(Event) {}
	}
	p, err := remote.NewPuller(remote.WithTransport(newTransport(o.Insecure)), remote.WithUserAgent("containerctl"))
	if err != nil {
		return image.Digest{}, err
	}
	f := &fetcher{o: o, ctx: ctx, puller: p}
	if err := o.Dir.MkdirAll("blobs/sha256", 0o755); err != nil {
		return image.Digest{}, err
	}
	top, err := f.top()
	if err != nil {
		return image.Digest{}, fmt.Errorf("pull %s: %w", o.Ref, err)
	}
	img, err := image.Resolve(top, f.document)
	if err != nil {
		return image.Digest{}, fmt.Errorf("pull %s: %w", o.Ref, err)
	}
	for i, l := range img.Layers {
		if o.Have[img.Config.RootFS.DiffIDs[i]] {
			o.Progress(Event{l.Digest, l.Size, l.Size})
			continue
		}
		if err := f.layer(l); err != nil {
			return image.Digest{}, fmt.Errorf("pull %s: layer %s: %w", o.Ref, l.Digest, err)
		}
	}
	return top, nil
}

// top asks what the name stands for and stores that document.
func (f *fetcher) top() (image.Digest, error) {
	name, err := f.o.Ref.Name(f.o.Insecure)
	if err != nil {
		return image.Digest{}, err
	}
	d, err := f.puller.Get(f.ctx, name)
	if err != nil {
		return image.Digest{}, err
	}
	got := image.Digest(digest.Of(d.Manifest))
	if want, ok := f.o.Ref.Digest(); ok && want != got {
		return image.Digest{}, fmt.Errorf("asked for %s, the registry answers with %s", want, got)
	}
	return got, f.write(got, d.Manifest)
}

// document serves image.Resolve: manifests by the manifest address, the configuration as a blob.
func (f *fetcher) document(d image.Descriptor) ([]byte, error) {
	if b, err := f.o.Dir.ReadFile(blob(d.Digest)); err == nil {
		return b, nil
	}
	var b []byte
	if strings.Contains(d.MediaType, "manifest") || strings.Contains(d.MediaType, "image.index") {
		name, err := f.o.Ref.Name(f.o.Insecure)
		if err != nil {
			return nil, err
		}
		m, err := f.puller.Get(f.ctx, name.Context().Digest(d.Digest.String()))
		if err != nil {
			return nil, err
		}
		b = m.Manifest
	} else {
		r, err := f.open(d)
		if err != nil {
			return nil, err
		}
		defer r.Close()
		if b, err = io.ReadAll(io.LimitReader(r, maxDocument)); err != nil {
			return nil, err
		}
	}
	return b, f.write(d.Digest, b)
}

func (f *fetcher) open(d image.Descriptor) (io.ReadCloser, error) {
	name, err := f.o.Ref.Name(f.o.Insecure)
	if err != nil {
		return nil, err
	}
	l, err := f.puller.Layer(context.WithValue(f.ctx, blobKey{}, true), name.Context().Digest(d.Digest.String()))
	if err != nil {
		return nil, err
	}
	return l.Compressed()
}

func (f *fetcher) layer(d image.Descriptor) error {
	if _, err := f.o.Dir.Stat(blob(d.Digest)); err == nil {
		return nil // an image may hold a layer twice
	}
	// Ends the transfer when no byte comes for a while.
	ctx, cancel := context.WithCancelCause(f.ctx)
	defer cancel(nil)
	timer := time.AfterFunc(stall, func() { cancel(fmt.Errorf("no data for %v", stall)) })
	defer timer.Stop()
	g := *f
	g.ctx = ctx
	r, err := g.open(d)
	if err != nil {
		return err
	}
	defer r.Close()
	partial := blob(d.Digest) + ".part"
	w, err := f.o.Dir.OpenFile(partial, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer w.Close()
	in := &progress{r: digest.NewReader("blob", r, d.Size, digest.SHA256(d.Digest)), event: Event{Layer: d.Digest, Total: d.Size}, report: f.o.Progress, timer: timer}
	if _, err := io.CopyBuffer(w, in, make([]byte, 256<<10)); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return errors.Join(err, f.o.Dir.Remove(partial))
	}
	if err := w.Close(); err != nil {
		return err
	}
	return f.o.Dir.Rename(partial, blob(d.Digest))
}

type progress struct {
	r      io.Reader
	event  Event
	report func(Event)
	timer  *time.Timer
}

func (p *progress) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	if n > 0 {
		p.timer.Reset(stall)
		p.event.Done += int64(n)
	}
	if n > 0 || err == io.EOF {
		p.report(p.event)
	}
	return n, err
}

// WriteTo and ReadFrom are absent on purpose: io.Copy must come through Read.

func blob(d image.Digest) string { return "blobs/sha256/" + d.Hex() }

func (f *fetcher) write(d image.Digest, b []byte) error {
	err := f.o.Dir.WriteFile(blob(d), b, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// transport guards every request of the client.
type transport struct {
	base     http.RoundTripper
	insecure bool
}

func newTransport(insecure bool) http.RoundTripper {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.ResponseHeaderTimeout = stall
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: insecure}
	return &transport{base: t, insecure: insecure}
}

func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !t.insecure {
		return nil, fmt.Errorf("refuse plain %s to %s: the registry has no TLS; use --tls-verify=false to accept that", r.URL.Scheme, r.URL.Host)
	}
	resp, err := t.base.RoundTrip(r)
	if err == nil && r.Context().Value(blobKey{}) == nil {
		resp.Body = &limited{resp.Body, maxDocument}
	}
	return resp, err
}

// blobKey marks the context of requests whose answer is a blob, redirected ones too: those are bounded by the promised size.
type blobKey struct{}

// limited ends an answer that is longer than any honest one.
type limited struct {
	io.ReadCloser
	left int64
}

func (l *limited) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, fmt.Errorf("answer of more than %d bytes", maxDocument)
	}
	n, err := l.ReadCloser.Read(p[:min(int64(len(p)), l.left)])
	l.left -= int64(n)
	return n, err
}
