package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/proa-os/proa/runtime/image"
)

const (
	step  = 256 << 10 // bytes of progress that make up for failures: a connection may break after each
	tries = 5         // in a row without a byte of progress
)

// CopyBlob writes a blob from offset on to w, the rest of size bytes. Transfers that break are taken up again; what is over
// size is not read. An error of w is final.
func (c *Client) CopyBlob(ctx context.Context, d image.Digest, offset, size int64, w io.Writer) error {
	out := &counter{w: w, at: offset}
	pause := c.pause
	var last error
	for fails := 0; fails < tries; {
		if out.at == size {
			return nil
		}
		for _, p := range c.places {
			if !p.Digests {
				continue
			}
			before := out.at
			err := p.copyBlob(ctx, d, size, out)
			if err == nil {
				return nil
			}
			if out.err != nil {
				return out.err
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if out.at-before >= step {
				fails, pause = 0, c.pause
			}
			if last == nil || !p.Mirror || len(c.places) == 1 {
				last = p.explain(err)
			}
		}
		if !temporary(last) {
			return last
		}
		fails++
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(max(pause, after(last))):
		}
		pause *= 2
	}
	return fmt.Errorf("gave up after %d tries at byte %d of %d: %w", tries, out.at, size, last)
}

// temporary reports whether it may go better next time.
func temporary(err error) bool {
	var t *transport.Error
	if errors.As(err, &t) {
		return t.StatusCode == http.StatusRequestTimeout || t.StatusCode == http.StatusTooManyRequests || t.StatusCode >= 500
	}
	return !errors.Is(err, ErrNotFound) && !final(err) && !strings.Contains(err.Error(), "refuse plain") && !strings.Contains(err.Error(), "certificate")
}

// after is what a busy registry asks for. Headers are not in the error: a status 429 waits some seconds.
func after(err error) time.Duration {
	var t *transport.Error
	if errors.As(err, &t) && t.StatusCode == http.StatusTooManyRequests {
		return 5 * time.Second
	}
	return 0
}

// copyBlob goes on at out.at.
func (p *place) copyBlob(ctx context.Context, d image.Digest, size int64, out *counter) error {
	header := http.Header{}
	if out.at > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-%d", out.at, size-1)) // with an end: some registries know no other
	}
	resp, err := p.get(ctx, "/blobs/"+d.String(), header)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out.at > 0 {
		if err := skip(resp, out.at); err != nil {
			return err
		}
	}
	n, err := io.CopyBuffer(out, io.LimitReader(resp.Body, size-out.at), make([]byte, 256<<10))
	if err == nil && out.at != size {
		err = fmt.Errorf("the answer ends at byte %d of %d (%d read)", out.at, size, n)
	}
	return err
}

// skip brings the answer to a request with a range to byte at: registries without ranges send all.
func skip(resp *http.Response, at int64) error {
	if resp.StatusCode == http.StatusOK {
		_, err := io.CopyN(io.Discard, resp.Body, at)
		return err
	}
	first, _, _ := strings.Cut(strings.TrimPrefix(resp.Header.Get("Content-Range"), "bytes "), "-")
	if n, err := strconv.ParseInt(first, 10, 64); err != nil || n != at {
		return fmt.Errorf("asked for bytes from %d on, the answer is %q", at, resp.Header.Get("Content-Range"))
	}
	return nil
}

// counter knows how far the blob is, and tells errors of w from those of the network.
type counter struct {
	w   io.Writer
	at  int64
	err error
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.at += int64(n)
	c.err = err
	return n, err
}
