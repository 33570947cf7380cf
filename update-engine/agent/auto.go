package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/update-engine/client"
	"github.com/proa-os/proa/update-engine/health"
	"github.com/proa-os/proa/update-engine/install"
	"github.com/proa-os/proa/update-engine/metrics"
	"github.com/proa-os/proa/update-engine/state"
	"github.com/proa-os/proa/update-engine/tuf"
)

// A Clock says which boot this is and how far from the others this machine looks for releases.
type Clock struct {
	Boot   string  // id of the boot
	Jitter float64 // from 0 to 1, the machine's own
}

// Auto is Apply for the timer: it leaves a try and a rollback alone, and writes down when to look again.
func (a *Agent) Auto(ctx context.Context) (*state.Result, error) {
	report, err := a.Status()
	if err != nil {
		return nil, err
	}
	if err := a.broken(); err != nil { // it is not the repository's failure, and nothing to wait longer for
		return nil, err
	}
	r := &state.Result{Running: report.Running, Text: report.Why}
	switch {
	case !a.config().Auto || a.config().Server == "":
		r.Text = fmt.Sprintf("runs %s: it does not update itself, see \"server\" and \"auto\" in /etc/proa/update/config.json", report.Running.Version)
		return r, nil
	case report.Boot.Trying || report.Boot.Leaving || report.Progress != nil:
		return r, nil // the timer comes again
	}
	r, err = a.Apply(ctx, true)
	if errors.Is(err, Busy{}) || errors.As(err, new(GaveWay)) { // the timer comes again
		return &state.Result{Running: report.Running, Text: report.Why}, nil
	}
	outcome := state.Went
	if err != nil {
		outcome = state.LookFailed
		if m, machineErr := a.Store.Machine(); machineErr == nil && m.Check != nil && m.Check.Error == "" {
			outcome = state.InstallFailed
		}
	}
	s, scheduleErr := a.Store.Schedule()
	s = s.After(a.Now(), a.Clock.Boot, outcome, a.config().PollInterval(), a.Clock.Jitter)
	if r != nil && r.AskAgain != nil && r.AskAgain.Before(s.Next) {
		s.Next = r.AskAgain.UTC() // an armed release waits for its window, or for somebody who inhibits
	}
	a.remember(scheduleErr, a.Store.SetSchedule(s))
	a.Log.Info("next look for a newer release", "at", s.Next.Format(time.RFC3339), "failures", s.Failures)
	return r, err
}

// Metrics is the machine in numbers.
func (a *Agent) Metrics() (string, error) {
	r, err := a.Status()
	if err != nil {
		return "", err
	}
	h, err := a.Store.History()
	if err != nil {
		return "", err
	}
	c, err := a.Store.Counters()
	if err != nil {
		return "", err
	}
	c.Fetched += a.fetched.Load()
	return metrics.Text(metrics.Input{Report: r, History: h, Counters: c, Now: a.Now()}), nil
}

// count changes the sums; they are only for people.
func (a *Agent) count(change func(*state.Counters)) {
	fetched := a.fetched.Swap(0)
	err := a.Store.Count(func(c *state.Counters) {
		c.Fetched += fetched
		change(c)
	})
	a.remember(err)
}

// countFailure counts an error by its reason; other is what it is taken for when its kind does not tell.
func (a *Agent) countFailure(err error, other state.Reason) {
	a.count(func(c *state.Counters) { c.Fail(reason(err, other)) })
}

// errConfiguration is wrapped by the errors about what a person must configure first: nothing of it "is configured".
var errConfiguration = errors.New("configured")

// noRoom marks an error about something that is full or cannot be written.
type noRoom struct{ error }

// Unwrap returns the error.
func (e noRoom) Unwrap() error { return e.error }

// reason classifies an error.
func reason(err error, other state.Reason) state.Reason {
	var refusal *tuf.Refusal
	var bad *install.BadRelease
	var mismatch *digest.MismatchError
	var unhealthy *health.Unhealthy
	var timeout interface{ Timeout() bool }
	var room noRoom
	var network *networkError
	switch {
	case errors.As(err, &network):
		return state.ReasonNetwork
	case errors.Is(err, errConfiguration):
		return state.ReasonConfiguration
	case errors.As(err, &refusal) && refusal.Reason != tuf.Missing:
		return state.ReasonMetadata
	case errors.As(err, &bad):
		return state.ReasonRelease
	case errors.As(err, &mismatch):
		return state.ReasonPayload
	case errors.As(err, &unhealthy):
		return state.ReasonHealth
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EROFS) || errors.As(err, &room):
		return state.ReasonSpace
	case errors.As(err, &refusal), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, fs.ErrNotExist), errors.As(err, &timeout):
		return state.ReasonNetwork
	}
	return other
}

// Counted counts what comes from a source.
func (a *Agent) Counted(s client.Source) client.Source {
	if p, ok := s.(client.Poller); ok {
		return countedPoller{counted{s, &a.fetched}, p}
	}
	return counted{s, &a.fetched}
}

type counted struct {
	client.Source
	sum *atomic.Int64
}

// Open implements client.Source.
func (c counted) Open(ctx context.Context, url string, offset int64) (io.ReadCloser, error) {
	r, err := c.Source.Open(ctx, url, offset)
	if err != nil {
		return nil, err
	}
	return countedReader{r, c.sum}, nil
}

type countedPoller struct {
	counted
	poller client.Poller
}

// Poll implements client.Poller.
func (c countedPoller) Poll(ctx context.Context, url, tag string) (io.ReadCloser, string, error) {
	r, tag, err := c.poller.Poll(ctx, url, tag)
	if err != nil {
		return nil, tag, err
	}
	return countedReader{r, c.sum}, tag, nil
}

type countedReader struct {
	io.ReadCloser
	sum *atomic.Int64
}

func (c countedReader) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.sum.Add(int64(n))
	return n, err
}
