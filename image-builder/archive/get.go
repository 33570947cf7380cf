package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"time"

	"github.com/proa-os/proa/internal/digest"
)

// A StatusError is an HTTP answer other than the wanted one. For file:// a missing file is 404 too.
type StatusError struct {
	URL  string
	Code int
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("get %s: server answered %d %s", e.URL, e.Code, http.StatusText(e.Code))
}

// IsMissing reports whether err says that the mirror does not have the file.
func IsMissing(err error) bool {
	var s *StatusError
	return errors.As(err, &s) && (s.Code == http.StatusNotFound || s.Code == http.StatusGone)
}

// Transient reports whether trying again can help: not if the server has said no, nor if it has sent wrong bytes, nor if a file of
// this host is in the way.
func Transient(err error) bool {
	var status *StatusError
	if errors.As(err, &status) {
		return status.Code >= 500 || status.Code == http.StatusTooManyRequests
	}
	var mismatch *digest.MismatchError
	var path *fs.PathError
	return !errors.As(err, &mismatch) && !errors.As(err, &path)
}

// Getter gets files from mirrors. Its zero value is not usable; call NewGetter.
type Getter struct {
	http  *http.Client
	stall time.Duration // a body that yields nothing for so long is given up
}

// NewGetter returns a Getter for http, https (with the proxy of the environment) and file URLs.
func NewGetter() *Getter {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.ResponseHeaderTimeout = 60 * time.Second
	t.DisableCompression = true
	t.RegisterProtocol("file", http.NewFileTransport(http.Dir("/")))
	return &Getter{http: &http.Client{Transport: t, CheckRedirect: checkRedirect}, stall: 60 * time.Second}
}

// checkRedirect lets a mirror lead to another server, not to files of this host.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if req.URL.Scheme == "file" {
		return fmt.Errorf("%s leads to a file: URL", via[0].URL)
	}
	if len(via) >= 10 {
		return errors.New("it leads on more than 10 times")
	}
	return nil
}

// Get returns the content of url from offset on, in bytes. start is where the body really begins: a server may ignore the
// request and begin at 0. The body fails when it stalls, and must be closed.
func (g *Getter) Get(ctx context.Context, url string, offset int64) (body io.ReadCloser, start int64, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		cancel(nil)
		return nil, 0, fmt.Errorf("get %s: %w", url, err)
	}
	req.Header.Set("User-Agent", "proa-image-builder")
	if offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	resp, err := g.http.Do(req)
	if err != nil {
		cancel(nil)
		return nil, 0, err // names method and URL
	}
	switch {
	case resp.StatusCode == http.StatusOK:
	case resp.StatusCode == http.StatusPartialContent && offset > 0:
		var first int64
		if _, err := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-", &first); err != nil || first != offset {
			resp.Body.Close()
			cancel(nil)
			return nil, 0, fmt.Errorf("get %s: asked for offset %d, server answered Content-Range %q", url, offset, resp.Header.Get("Content-Range"))
		}
		start = offset
	default:
		resp.Body.Close()
		cancel(nil)
		return nil, 0, &StatusError{URL: url, Code: resp.StatusCode}
	}
	b := &response{ReadCloser: resp.Body, ctx: ctx, cancel: cancel, stall: g.stall, url: url}
	b.timer = time.AfterFunc(g.stall, func() { cancel(fmt.Errorf("no byte came for %v", g.stall)) })
	return b, start, nil
}

// response cancels its request when no byte comes for the time stall.
type response struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	stall  time.Duration
	url    string
}

func (b *response) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.timer.Reset(b.stall)
	}
	if err != nil && err != io.EOF {
		if cause := context.Cause(b.ctx); cause != nil {
			err = cause
		}
		err = fmt.Errorf("get %s: %w", b.url, err)
	}
	return n, err
}

func (b *response) Close() error {
	b.timer.Stop()
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}
