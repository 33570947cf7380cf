// Package client gets a repository's files: small ones whole, payloads as a stream that survives cuts.
//
// It stands between the network and the verifying code of package tuf and payload, and trusts nothing: lengths are capped, nothing is
// followed, stored or unpacked. A Source opens a file at an offset. There are three: HTTP, for programs of the
// release desk and the child; Child, which runs HTTP in an unprivileged process, for the agent, which is root; and Folder, for a
// repository on a disk.
//
// A Stream asks again where a cut happened (HTTP Range, RFC 9110 section 14), after a growing pause, as often as it takes while there is
// progress and a bounded number of times when there is none; a byte now and then is none, or a server could hold the update
// agent for years. The target's name holds its hash, so what is behind a
// URL never changes, and whoever reads compares the hash at the end.
package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"
)

// A Source opens files of a repository. A file that is not there gives an error that wraps fs.ErrNotExist, at once;
// an offset at or behind the end may be an error.
type Source interface {
	Open(ctx context.Context, url string, offset int64) (io.ReadCloser, error)
}

// Retry says how often and how fast to ask again.
type Retry struct {
	Attempts int           // without progress, the first included
	Pause    time.Duration // before the second attempt; it doubles up to MaxPause
	MaxPause time.Duration
}

// DefaultRetry returns the agent's patience: about a minute without a byte.
func DefaultRetry() Retry {
	return Retry{Attempts: 7, Pause: time.Second, MaxPause: 16 * time.Second}
}

func (r Retry) wait(ctx context.Context, attempt int) error {
	pause := min(r.Pause<<min(attempt, 20), r.MaxPause)
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A Client fetches from one Source.
type Client struct {
	Source Source
	Retry  Retry
}

// Fetch returns a whole file of at most limit bytes. It implements tuf.Fetcher.
func (c *Client) Fetch(ctx context.Context, url string, limit int64) ([]byte, error) {
	for attempt := 1; ; attempt++ {
		b, err := c.fetch(ctx, url, limit)
		if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, errTooLong) || attempt >= c.Retry.Attempts {
			return b, err
		}
		if waitErr := c.Retry.wait(ctx, attempt-1); waitErr != nil {
			return nil, fmt.Errorf("%w (%w)", err, waitErr)
		}
	}
}

var errTooLong = errors.New("it is longer than that")

func (c *Client) fetch(ctx context.Context, url string, limit int64) ([]byte, error) {
	r, err := c.Source.Open(ctx, url, 0)
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", url, err)
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", url, err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("fetch %s: at most %d bytes are taken: %w", url, limit, errTooLong)
	}
	return b, nil
}

// Stream returns the size bytes behind url. Cuts show as pauses; the error comes when the attempts are used up.
// notify, if not nil, is told of each cut.
func (c *Client) Stream(ctx context.Context, url string, size int64, notify func(at int64, err error)) io.ReadCloser {
	return &stream{c: c, ctx: ctx, url: url, size: size, notify: notify}
}

// progress is how many bytes are worth another attempt.
const progress = 64 << 10

type stream struct {
	c       *Client
	ctx     context.Context
	url     string
	size    int64
	off     int64
	mark    int64 // off at the last progress
	attempt int   // since then
	r       io.ReadCloser
	notify  func(int64, error)
}

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	for {
		if s.off == s.size {
			return 0, io.EOF
		}
		n, err := s.read(p)
		if n > 0 {
			s.off += int64(n)
			if s.off-s.mark >= progress {
				s.mark, s.attempt = s.off, 0
			}
			return n, nil // an error with it comes again with the next read
		}
		if err == nil {
			continue
		}
		s.Close()
		if s.attempt++; s.attempt >= s.c.Retry.Attempts || errors.Is(err, fs.ErrNotExist) {
			return 0, fmt.Errorf("download %s: at byte %d of %d, after %d attempts: %w", s.url, s.off, s.size, s.attempt, err)
		}
		if s.notify != nil {
			s.notify(s.off, err)
		}
		if waitErr := s.c.Retry.wait(s.ctx, s.attempt-1); waitErr != nil {
			return 0, fmt.Errorf("download %s: at byte %d of %d: %w", s.url, s.off, s.size, waitErr)
		}
	}
}

func (s *stream) read(p []byte) (int, error) {
	if s.r == nil {
		r, err := s.c.Source.Open(s.ctx, s.url, s.off)
		if err != nil {
			return 0, err
		}
		s.r = r
	}
	n, err := s.r.Read(p[:min(int64(len(p)), s.size-s.off)])
	if err == io.EOF {
		err = fmt.Errorf("cut by the server: %w", io.ErrUnexpectedEOF)
	}
	return n, err
}

// Close ends the stream.
func (s *stream) Close() error {
	if s.r == nil {
		return nil
	}
	err := s.r.Close()
	s.r = nil
	return err
}
