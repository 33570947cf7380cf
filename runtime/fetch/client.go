package fetch

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/endpoint"
	"github.com/proa-os/proa/runtime/image"
)

// ErrNotFound says that no registry has what was asked for.
var ErrNotFound = errors.New("not found")

// maxDocument bounds what is kept in memory, whatever the fetcher sends.
const maxDocument = 8 << 20

// pipeSize is asked of the kernel for the pipe from the fetcher: fewer switches between the two.
const pipeSize = 1 << 20

// Process says what to execute and as whom.
type Process struct {
	Args     []string // program and arguments, "containerctl fetch"
	UID, GID int      // used by root only: others fetch as themselves
	Layout   *os.File // directory that is to be pushed, or nil
}

// A Client is a running fetcher. Its methods may be called by several goroutines.
type Client struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	enc    *json.Encoder
	stderr tail
	done   chan struct{} // closed when the fetcher says no more

	mu      sync.Mutex
	next    uint32
	pending map[uint32]*answer
	err     error // why it ended
}

type answer struct {
	w      io.Writer
	done   chan error
	failed bool // w could not take more, and who asked knows: the rest is thrown away
}

// Start executes the fetcher. The child has another user, no groups, no capabilities and no way to new ones, an environment of
// proxies only, and of this process's files the pipes.
func Start(ctx context.Context, p Process, list []endpoint.Endpoint) (*Client, error) {
	c := &Client{done: make(chan struct{}), pending: make(map[uint32]*answer)}
	cmd := exec.CommandContext(ctx, p.Args[0], p.Args[1:]...)
	cmd.Env, cmd.Dir = environment(), "/"
	cmd.Stderr = &c.stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(p.UID), Gid: uint32(p.GID), Groups: []uint32{}}
	}
	if p.Layout != nil {
		cmd.ExtraFiles = []*os.File{p.Layout}
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout = w
	_, _ = unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, pipeSize) // a smaller one works too
	err = cmd.Start()
	w.Close()
	if err != nil {
		out.Close()
		return nil, fmt.Errorf("start fetcher: %w", err)
	}
	c.cmd, c.in, c.enc = cmd, in, json.NewEncoder(in)
	go c.read(out)
	if err := c.enc.Encode(opening{list}); err != nil {
		return nil, errors.Join(fmt.Errorf("tell the fetcher its endpoints: %w", err), c.Close())
	}
	return c, nil
}

// Close ends the fetcher.
func (c *Client) Close() error {
	c.in.Close()
	c.cmd.Process.Kill() // it has no state, and may wait for a network
	<-c.done
	return nil
}

// environment is all that the fetcher gets of it: proxies and certificates.
func environment() []string {
	env := []string{"PATH=/usr/bin"}
	for _, n := range []string{"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"} {
		if v, ok := os.LookupEnv(n); ok {
			env = append(env, n+"="+v)
		}
	}
	return env
}

// read hands frames to who asked, until the fetcher ends or breaks the protocol.
func (c *Client) read(out *os.File) {
	r := bufio.NewReaderSize(out, 64<<10)
	buf := make([]byte, maxFrame)
	var err error
	for err == nil {
		var f frame
		if f, err = readFrame(r, buf); err == nil {
			err = c.deliver(f)
		}
	}
	out.Close()
	c.cmd.Process.Kill()
	c.cmd.Wait() // now all it had to say is there
	c.mu.Lock()
	c.err = err
	for _, a := range c.pending {
		if !a.failed {
			a.done <- c.ended()
		}
	}
	clear(c.pending)
	c.mu.Unlock()
	close(c.done)
}

func (c *Client) deliver(f frame) error {
	switch f.kind {
	case kindData, kindEnd, kindError, kindNotFound:
	default:
		return fmt.Errorf("unknown kind %q of answer", f.kind) // who asked is still pending, and is told
	}
	c.mu.Lock()
	a := c.pending[f.id]
	if a != nil && f.kind != kindData {
		delete(c.pending, f.id)
	}
	c.mu.Unlock()
	if a == nil {
		return fmt.Errorf("an answer to question %d, which was not asked", f.id)
	}
	if a.failed {
		return nil
	}
	if f.kind == kindData {
		if _, err := a.w.Write(f.data); err != nil {
			a.failed = true
			a.done <- err
		}
		return nil
	}
	text := strings.ToValidUTF8(string(f.data), "\ufffd")
	switch f.kind {
	case kindEnd:
		a.done <- nil
	case kindNotFound:
		a.done <- notFound(text)
	default:
		a.done <- errors.New(text)
	}
	return nil
}

// notFound is an error with the fetcher's words that is ErrNotFound.
type notFound string

func (n notFound) Error() string      { return string(n) }
func (notFound) Is(target error) bool { return target == ErrNotFound }

// ended is why nothing comes any more. The caller holds mu.
func (c *Client) ended() error {
	text := strings.TrimSpace(c.stderr.String())
	if errors.Is(c.err, io.EOF) {
		return fmt.Errorf("the fetcher has ended: %s", text)
	}
	return fmt.Errorf("the fetcher has ended: %w %s", c.err, text)
}

// ask sends a question and has its answer written to w.
func (c *Client) ask(ctx context.Context, q question, w io.Writer) error {
	a := &answer{w: w, done: make(chan error, 1)}
	c.mu.Lock()
	if c.err != nil {
		defer c.mu.Unlock()
		return c.ended()
	}
	c.next++
	q.ID = c.next
	c.pending[q.ID] = a
	err := c.enc.Encode(q)
	c.mu.Unlock()
	if err != nil {
		<-c.done // says why
	}
	select {
	case err := <-a.done:
		return err
	case <-ctx.Done():
		// w is the caller's again only when the reader has let go of it: kill the fetcher, nothing else is wanted of it.
		c.cmd.Process.Kill()
		<-a.done
		return context.Cause(ctx)
	}
}

// document asks for something that is kept in memory.
func (c *Client) document(ctx context.Context, q question) ([]byte, error) {
	var b bytes.Buffer
	if err := c.ask(ctx, q, &capped{&b}); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

type capped struct{ b *bytes.Buffer }

func (c *capped) Write(p []byte) (int, error) {
	if c.b.Len()+len(p) > maxDocument {
		return 0, fmt.Errorf("document of more than %d bytes", maxDocument)
	}
	return c.b.Write(p)
}

// Manifest returns the document that a tag or a digest stands for. Nothing is verified.
func (c *Client) Manifest(ctx context.Context, identifier string) ([]byte, error) {
	return c.document(ctx, question{Op: "manifest", Name: identifier})
}

// Document returns a manifest, an index or a small blob. Nothing is verified.
func (c *Client) Document(ctx context.Context, d image.Descriptor) ([]byte, error) {
	if d.MediaType == "" || strings.Contains(d.MediaType, "manifest") || strings.Contains(d.MediaType, "image.index") {
		return c.Manifest(ctx, d.Digest.String())
	}
	return c.document(ctx, question{Op: "blob", Digest: d.Digest})
}

// Referrers returns the index of what refers to a manifest.
func (c *Client) Referrers(ctx context.Context, d image.Digest) ([]byte, error) {
	return c.document(ctx, question{Op: "referrers", Digest: d})
}

// CopyBlob has a blob written to w from offset on. Nothing is verified.
func (c *Client) CopyBlob(ctx context.Context, d image.Descriptor, offset int64, w io.Writer) error {
	return c.ask(ctx, question{Op: "copy", Digest: d.Digest, Size: d.Size, Offset: offset}, w)
}

// Push has an image of the layout uploaded, under a tag.
func (c *Client) Push(ctx context.Context, d image.Digest, tag string) error {
	return c.ask(ctx, question{Op: "push", Digest: d, Name: tag}, io.Discard)
}

// Check has the registry asked whether it takes the credentials.
func (c *Client) Check(ctx context.Context) error {
	return c.ask(ctx, question{Op: "check"}, io.Discard)
}

// tail keeps the first words of the fetcher's standard error.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p[:min(len(p), maxText-len(t.b))]...)
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}
