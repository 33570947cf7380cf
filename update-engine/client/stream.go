package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
)

// Stream returns the size bytes behind url. Cuts show as pauses; the error comes when the attempts are used up.
// notify, if not nil, is told of each cut.
func (c *Client) Stream(ctx context.Context, url string, size int64, notify func(at int64, err error)) *Body {
	return c.StreamFrom(ctx, url, 0, size, notify)
}

// StreamFrom is Stream from byte from on: it returns the last size-from bytes.
func (c *Client) StreamFrom(ctx context.Context, url string, from, size int64, notify func(at int64, err error)) *Body {
	return &Body{c: c, ctx: ctx, url: url, places: c.places(url), size: size, off: from, mark: from, notify: notify}
}

// StreamOnly is StreamFrom, but asks only one of Servers.
func (c *Client) StreamOnly(ctx context.Context, server, url string, from, size int64, notify func(at int64, err error)) *Body {
	b := c.StreamFrom(ctx, url, from, size, notify)
	b.places = slices.DeleteFunc(b.places, func(p place) bool { return p.base != server })
	return b
}

// progress is how many bytes are worth another attempt.
const progress = 64 << 10

// A Body is a file that is read, in one go or several.
type Body struct {
	c       *Client
	ctx     context.Context
	url     string
	places  []place
	at      int // index of the place that is read
	size    int64
	off     int64
	mark    int64 // off at the last progress
	failed  int   // times since then
	missing int   // places in a row that do not have the file
	refusal error // the last StatusError since then
	from    []string
	r       io.ReadCloser
	paced   io.Reader
	notify  func(int64, error)
}

// Read implements io.Reader.
func (s *Body) Read(p []byte) (int, error) {
	if len(s.places) == 0 {
		return 0, fmt.Errorf("download %s: no such server", s.url)
	}
	for {
		if s.off == s.size {
			return 0, io.EOF
		}
		n, err := s.read(p)
		if n > 0 {
			s.off += int64(n)
			s.missing, s.refusal = 0, nil
			if base := s.places[s.at].base; !slices.Contains(s.from, base) {
				s.from = append(s.from, base)
			}
			if s.off-s.mark >= progress {
				s.mark, s.failed = s.off, 0
				s.c.remember(s.places[s.at])
			}
			return n, nil // an error with it comes again with the next read
		}
		if err == nil {
			continue
		}
		s.Close()
		if err := s.next(err); err != nil {
			return 0, err
		}
	}
}

// Servers returns whom the bytes so far came from.
func (s *Body) Servers() []string { return slices.Clone(s.from) }

// next turns to the next server, after a pause when all have failed.
func (s *Body) next(err error) error {
	s.failed++
	if errors.Is(err, fs.ErrNotExist) {
		s.missing++
	} else {
		s.missing = 0
	}
	if status := (*StatusError)(nil); errors.As(err, &status) {
		s.refusal = status
	}
	if s.failed >= s.c.Retry.Attempts*len(s.places) || s.missing >= len(s.places) {
		if s.refusal != nil && !errors.Is(err, s.refusal) {
			err = fmt.Errorf("%w (and before that: %w)", err, s.refusal) // the answer of one counts, whoever else cannot be reached
		}
		return fmt.Errorf("download %s: at byte %d of %d, after %d attempts: %w", s.places[s.at].url, s.off, s.size, s.failed, err)
	}
	if s.notify != nil {
		s.notify(s.off, err)
	}
	s.at = (s.at + 1) % len(s.places)
	if s.failed%len(s.places) != 0 {
		return nil
	}
	if waitErr := s.c.Retry.wait(s.ctx, s.failed/len(s.places)-1); waitErr != nil {
		return fmt.Errorf("download %s: at byte %d of %d: %w", s.url, s.off, s.size, waitErr)
	}
	return nil
}

func (s *Body) read(p []byte) (int, error) {
	if s.r == nil {
		r, err := s.c.Source.Open(s.ctx, s.places[s.at].url, s.off)
		if err != nil {
			return 0, err
		}
		s.r, s.paced = r, s.c.paced(s.ctx, r)
	}
	n, err := s.paced.Read(p[:min(int64(len(p)), s.size-s.off)])
	if err == io.EOF {
		err = fmt.Errorf("cut by the server: %w", io.ErrUnexpectedEOF)
	}
	return n, err
}

// Close implements io.Closer.
func (s *Body) Close() error {
	if s.r == nil {
		return nil
	}
	err := s.r.Close()
	s.r = nil
	return err
}
