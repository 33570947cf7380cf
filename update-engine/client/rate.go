package client

import (
	"context"
	"io"
	"sync"
	"time"
)

// pacer spaces out bytes. It holds back the reader; the server is held back by its full connection.
type pacer struct {
	mu   sync.Mutex
	free time.Time // when what was taken is paid for
}

// wait returns when n more bytes may be taken at rate bytes a second.
func (p *pacer) wait(ctx context.Context, n int, rate int64) error {
	p.mu.Lock()
	now := time.Now()
	if p.free.Before(now) {
		p.free = now
	}
	p.free = p.free.Add(time.Duration(float64(n) / float64(rate) * float64(time.Second)))
	d := p.free.Sub(now)
	p.mu.Unlock()
	return sleep(ctx, d)
}

// paced is r at the client's rate.
func (c *Client) paced(ctx context.Context, r io.Reader) io.Reader {
	if c.Rate <= 0 {
		return r
	}
	return &pacedReader{ctx: ctx, c: c, r: r}
}

type pacedReader struct {
	ctx context.Context
	c   *Client
	r   io.Reader
}

// Read implements io.Reader, in pieces of about a tenth of a second.
func (p *pacedReader) Read(b []byte) (int, error) {
	piece := int(max(p.c.Rate/10, 512))
	n, err := p.r.Read(b[:min(len(b), piece)])
	if n > 0 {
		if waitErr := p.c.pacer.wait(p.ctx, n, p.c.Rate); waitErr != nil {
			return 0, waitErr
		}
	}
	return n, err
}
