// Package client gets a repository's files: small ones whole, payloads as a stream that survives cuts.
//
// It stands between the network and the verifying code of package tuf and payload, and trusts nothing: lengths are capped, pace is
// watched, a web server is followed to no other host (a registry is, without any secret: that is its protocol, see guard), nothing is stored or unpacked.
// A Source opens a file at an offset. There are three: HTTP, for web servers and registries, in programs of the release desk and the child; Child, which runs the others in an unprivileged process, for the agent, which is root; and
// Folder, for a repository on a disk.
//
// A repository may be on several servers, Server and then Mirrors. They are asked in that order for each file, until one gives what is
// accepted; the one that did is asked first from then on. None is trusted more than another: what is accepted is signed.
//
// A Body asks again where a cut happened (HTTP Range, RFC 9110 section 14), after a growing pause, as often as it takes while there is
// progress and a bounded number of times when there is none; a byte now and then is none, or a server could hold the update
// agent for years. The target's name holds its hash, so what is behind a URL never changes, and whoever reads compares the
// hash at the end. A Body says which servers its bytes came from, and can be asked of one of them alone, so that whoever finds a lie can
// find the liar.
package client

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"
	"time"
)

// A Source opens files of a repository. A file that is not there gives an error that wraps fs.ErrNotExist, at once;
// an offset at or behind the end may be an error.
type Source interface {
	Open(ctx context.Context, url string, offset int64) (io.ReadCloser, error)
}

// A Poller is a Source that can ask whether a file is still the one that had an entity tag (ETag). If so, the error is ErrUnchanged;
// otherwise it returns the file and its tag, which may be empty.
type Poller interface {
	Poll(ctx context.Context, url, tag string) (io.ReadCloser, string, error)
}

// ErrUnchanged is the answer of a server whose file still has the tag that we sent.
var ErrUnchanged = errors.New("not changed")

// A StatusError is the answer of a server that can be reached and does not give a file, for reasons of its own. It may give others.
type StatusError struct {
	Code int // HTTP status
	text string
}

func (e *StatusError) Error() string { return e.text }

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
	return sleep(ctx, min(r.Pause<<min(attempt, 20), r.MaxPause))
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
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
	// Server is the URL that all asked URLs begin with if there are mirrors, Mirrors what may stand in its place.
	Server  string
	Mirrors []string
	// Rate is how many bytes a second are taken on average; 0 means no limit.
	Rate int64
	// PassedOver, if not nil, is told which servers had no use when another one gave a file. From then on that one is asked first.
	PassedOver func(server string, err error)

	mu    sync.Mutex
	good  int // index of the server that gave the last accepted file
	pacer pacer
}

// place is a file on one of the servers.
type place struct {
	server int
	base   string // the server, as it is configured
	url    string
}

// mark says whose a tag is: sent to another server, one that a liar has made up would have it confirm the liar's file.
func (p place) mark() string { return fmt.Sprintf("%.8x ", sha256.Sum256([]byte(p.base))) }

// owned is a tag of this server, for whoever keeps it.
func (p place) owned(tag string) string {
	if tag == "" {
		return ""
	}
	return p.mark() + tag
}

// own is a tag as this server gave it, or nothing.
func (p place) own(tag string) string {
	if own, ok := strings.CutPrefix(tag, p.mark()); ok {
		return own
	}
	return ""
}

// places lists where a file may be, the good server first.
func (c *Client) places(url string) []place {
	base := strings.TrimSuffix(c.Server, "/") + "/"
	rest, ok := strings.CutPrefix(url, base)
	if len(c.Mirrors) == 0 || !ok {
		if c.Server == "" || !ok {
			base = url
		}
		return []place{{0, base, url}}
	}
	list := []place{{0, c.Server, url}}
	for i, m := range c.Mirrors {
		list = append(list, place{i + 1, m, strings.TrimSuffix(m, "/") + "/" + rest})
	}
	c.mu.Lock()
	good := c.good
	c.mu.Unlock()
	return append(append([]place{}, list[good:]...), list[:good]...)
}

// Servers lists the servers that may have a file, in the order in which they are asked.
func (c *Client) Servers(url string) []string {
	var list []string
	for _, p := range c.places(url) {
		list = append(list, p.base)
	}
	return list
}

func (c *Client) remember(p place) {
	c.mu.Lock()
	c.good = p.server
	c.mu.Unlock()
}

// Fetch returns a whole file of at most limit bytes.
func (c *Client) Fetch(ctx context.Context, url string, limit int64) ([]byte, error) {
	var content []byte
	err := c.Get(ctx, url, limit, "", func(b []byte, _ string) error {
		content = b
		return nil
	})
	return content, err
}

// Get hands a whole file of at most limit bytes to accept, with its entity tag. If accept refuses it, the next mirror is asked. tag is that of
// a file that the caller has already, from the server that gave it: if its file still has it, it says so, and accept gets nil. It implements tuf.Fetcher.
func (c *Client) Get(ctx context.Context, url string, limit int64, tag string, accept func(b []byte, tag string) error) error {
	places := c.places(url)
	answers := make([]error, len(places))
	for attempt := 1; ; attempt++ {
		missing, again := false, false
		for i, p := range places {
			if answers[i] != nil && !temporary(answers[i]) {
				missing = missing || errors.Is(answers[i], fs.ErrNotExist)
				continue
			}
			if answers[i] = c.get(ctx, p, limit, tag, accept); answers[i] == nil {
				c.passOver(places, answers)
				c.remember(p)
				return nil
			}
			missing = missing || errors.Is(answers[i], fs.ErrNotExist)
			again = again || temporary(answers[i])
		}
		// A server that says that there is no such file is an answer, whoever else cannot be reached.
		if missing || !again || attempt >= c.Retry.Attempts {
			return summary(places, answers)
		}
		if err := c.Retry.wait(ctx, attempt-1); err != nil {
			return fmt.Errorf("%w (%w)", summary(places, answers), err)
		}
	}
}

func (c *Client) passOver(places []place, answers []error) {
	for i, err := range answers {
		if err != nil && c.PassedOver != nil {
			c.PassedOver(places[i].base, err)
		}
	}
}

var errTooLong = errors.New("it is longer than that, so it is not what is asked for: a captive portal, or a server that is no update repository? ask another server")

// refused is what accept has said about a file.
type refused struct{ error }

func (r refused) Unwrap() error { return r.error }

// temporary reports whether asking the same server again may help.
func temporary(err error) bool {
	return !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errTooLong) && !errors.As(err, new(refused))
}

// summary is the error of several servers: of one that says that the file is not there, else of one whose file was refused, else of
// the first; the others' in words only, so that nobody takes them for the answer.
func summary(places []place, answers []error) error {
	if len(answers) == 1 {
		return answers[0]
	}
	main := 0
	for i, err := range answers {
		if errors.Is(err, fs.ErrNotExist) {
			main = i
			break
		}
		if errors.As(err, new(refused)) && !errors.As(answers[main], new(refused)) {
			main = i
		}
	}
	var others []string
	for i, err := range answers {
		if i != main {
			others = append(others, fmt.Sprintf("%s: %v", places[i].url, err))
		}
	}
	return fmt.Errorf("%w (and of the other servers %s)", answers[main], strings.Join(others, "; "))
}

func (c *Client) get(ctx context.Context, p place, limit int64, tag string, accept func([]byte, string) error) error {
	url := p.url
	r, tag, err := c.open(ctx, url, p.own(tag))
	tag = p.owned(tag)
	if errors.Is(err, ErrUnchanged) {
		return judge(accept(nil, tag))
	}
	if err != nil {
		return fmt.Errorf("fetch %s: %w", url, err)
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(c.paced(ctx, r), limit+1))
	if err != nil {
		return fmt.Errorf("fetch %s: %w", url, err)
	}
	if int64(len(b)) > limit {
		return fmt.Errorf("fetch %s: at most %d bytes are taken: %w", url, limit, errTooLong)
	}
	return judge(accept(b, tag))
}

func judge(err error) error {
	if err != nil {
		return refused{err}
	}
	return nil
}

// open opens a file, and finds its tag if the source knows of such.
func (c *Client) open(ctx context.Context, url, tag string) (io.ReadCloser, string, error) {
	if p, ok := c.Source.(Poller); ok {
		return p.Poll(ctx, url, tag)
	}
	r, err := c.Source.Open(ctx, url, 0)
	return r, "", err
}
