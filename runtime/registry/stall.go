package registry

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

// least is how many bytes of an answer must come while it is waited for as long as a registry may be silent.
const least = 16 << 10

// impatiently gives a request up whose registry is silent: that takes nothing more of an upload, or answers nothing, or stops in an answer.
func (g *guard) impatiently(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(r.Context())
	timer := time.AfterFunc(g.stall, func() { cancel(fmt.Errorf("no data for %v", g.stall)) })
	r = r.WithContext(ctx)
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = &upload{r.Body, timer, g.stall}
	}
	resp, err := g.base.RoundTrip(r)
	timer.Stop()
	if err != nil {
		err = because(ctx, err)
		cancel(nil)
		return nil, err
	}
	resp.Body = &answer{ReadCloser: resp.Body, ctx: ctx, cancel: cancel, timer: timer, stall: g.stall}
	return resp, nil
}

// because is the reason for an error of a request, which HTTP/2 does not tell.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// upload puts the end off with whatever is sent, as long as the timer runs.
type upload struct {
	io.ReadCloser
	timer *time.Timer
	stall time.Duration
}

func (u *upload) Read(p []byte) (int, error) {
	if u.timer.Stop() {
		u.timer.Reset(u.stall)
	}
	return u.ReadCloser.Read(p)
}

// answer counts the time in which it is waited for, and not that in which its reader is at work. It has no WriteTo: io.Copy must come
// through Read.
type answer struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	stall  time.Duration
	waited time.Duration
	got    int
}

func (a *answer) Read(p []byte) (int, error) {
	begin := time.Now()
	a.timer.Reset(a.stall - a.waited)
	n, err := a.ReadCloser.Read(p)
	a.timer.Stop()
	a.waited += time.Since(begin)
	if a.got += n; a.got >= least {
		a.waited, a.got = 0, 0
	}
	if err != nil && err != io.EOF {
		err = because(a.ctx, err)
	}
	return n, err
}

func (a *answer) Close() error {
	a.timer.Stop()
	defer a.cancel(nil)
	return a.ReadCloser.Close()
}
