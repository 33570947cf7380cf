package client

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// HTTP is a Source that asks web servers.
type HTTP struct {
	client *http.Client
	idle   time.Duration
}

// NewHTTP returns an HTTP source that gives up on a server that sends nothing for the time idle.
func NewHTTP(idle time.Duration) *HTTP {
	return &HTTP{idle: idle, client: &http.Client{Transport: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: idle}).DialContext,
		TLSHandshakeTimeout:   idle,
		ResponseHeaderTimeout: idle,
		// Nothing unverified is unpacked: what the server sends is what is hashed.
		DisableCompression:     true,
		MaxResponseHeaderBytes: 64 << 10,
	}}}
}

// Open implements Source.
func (h *HTTP) Open(ctx context.Context, address string, offset int64) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	req.Header.Set("User-Agent", "proa-update")
	if offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	res, err := h.client.Do(req)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	body := &httpBody{body: res.Body, cancel: cancel, ctx: ctx, idle: h.idle}
	body.timer = time.AfterFunc(h.idle, func() { cancel(fmt.Errorf("the server sent nothing for %s", h.idle)) })
	if err := body.position(res, offset); err != nil {
		body.Close()
		return nil, err
	}
	body.timer.Stop()
	return body, nil
}

// httpBody ends a read when nothing comes.
type httpBody struct {
	body   io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	idle   time.Duration

	waited time.Duration // for the server, since the last look at its pace
	got    int64         // bytes in that time
}

// minPace is what a server must send in a second, on average over the idle time: a tenth of the slowest line that is worth it.
const minPace = 1 << 10 // bytes

// position makes the next byte the one at offset, whether the server knows ranges or not.
func (b *httpBody) position(res *http.Response, offset int64) error {
	switch res.StatusCode {
	case http.StatusPartialContent:
		var from int64
		if _, err := fmt.Sscanf(res.Header.Get("Content-Range"), "bytes %d-", &from); err != nil || from != offset {
			return fmt.Errorf("asked for bytes from %d on, got Content-Range %q", offset, res.Header.Get("Content-Range"))
		}
		return nil
	case http.StatusOK:
		if _, err := io.CopyN(io.Discard, b, offset); err != nil {
			return fmt.Errorf("skip to byte %d: %w", offset, err)
		}
		return nil
	case http.StatusNotFound, http.StatusGone:
		return fmt.Errorf("server answered %d %s: %w", res.StatusCode, http.StatusText(res.StatusCode), fs.ErrNotExist)
	}
	return fmt.Errorf("server answered %d %s", res.StatusCode, http.StatusText(res.StatusCode)) // res.Status is in the server's words
}

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
		return fmt.Errorf("the server sent %d bytes in %s, expected at least %d a second", b.got, b.waited.Round(time.Millisecond), minPace)
	}
	b.waited, b.got = 0, 0
	return nil
}

// Close implements io.Closer.
func (b *httpBody) Close() error {
	b.timer.Stop()
	b.cancel(nil)
	return b.body.Close()
}

// Folder is a Source of file:// URLs.
type Folder struct{}

// Open implements Source.
func (Folder) Open(_ context.Context, address string, offset int64) (io.ReadCloser, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "file" {
		return nil, fmt.Errorf("%s: expected a file:// URL", address)
	}
	f, err := os.Open(filepath.FromSlash(u.Path))
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// FolderURL is the URL of a folder for the Folder source.
func FolderURL(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return (&url.URL{Scheme: "file", Path: strings.TrimSuffix(filepath.ToSlash(abs), "/")}).String(), nil
}
