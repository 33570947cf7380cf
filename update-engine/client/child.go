package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

const (
	// childIdle is how long the child waits for a silent server.
	childIdle = 30 * time.Second
	// childMute is how long a child may be silent: it connects, shakes hands and waits for a head, each for childIdle at most.
	childMute = 4 * childIdle
)

// A Child is a Source that talks to the network, or reads somebody's stick, in a process of its own, one per file: another user, no groups,
// no capabilities, no way to gain any, an almost empty environment. It reads one line of JSON that says what to fetch and how (no
// argument: a proxy's password is in it, and arguments are for everybody to see), and writes to a pipe one line that says how it went, then
// the bytes. What comes through the pipe is as little trusted as what comes from the network.
type Child struct {
	// Command is the program and its arguments. It must call RunChild.
	Command []string
	// Network is how it reaches web servers.
	Network Network
	// UID and GID are whom it runs as. 0 leaves it what it is, for programs that are not root themselves.
	UID, GID uint32
	// Mute is how long it may be silent before it is killed: a disk that is gone, or who has taken it over, says nothing. 0 means two minutes.
	Mute time.Duration
}

// request is the line that the process reads.
type request struct {
	URL     string  `json:"url"`
	Offset  int64   `json:"offset,omitempty"`
	Tag     string  `json:"tag,omitempty"`
	Network Network `json:"network"`
}

// answer is the line before the bytes.
type answer struct {
	Error     string `json:"error,omitempty"`
	NotFound  bool   `json:"not_found,omitempty"`
	Status    int    `json:"status,omitempty"` // of a server that answered with an error
	Unchanged bool   `json:"unchanged,omitempty"`
	Tag       string `json:"tag,omitempty"`
	Skip      int64  `json:"skip,omitempty"` // bytes before those asked for, of a server that knows no ranges
}

const (
	maxAnswer  = 4096
	maxRequest = 2 << 20 // a bundle of CA certificates is in it
)

// Open implements Source.
func (c *Child) Open(ctx context.Context, url string, offset int64) (io.ReadCloser, error) {
	r, _, err := c.start(ctx, request{URL: url, Offset: offset, Network: c.Network})
	return r, err
}

// Poll implements Poller.
func (c *Child) Poll(ctx context.Context, url, tag string) (io.ReadCloser, string, error) {
	return c.start(ctx, request{URL: url, Tag: tag, Network: c.Network})
}

func (c *Child) start(ctx context.Context, req request) (io.ReadCloser, string, error) {
	in, err := json.Marshal(req)
	if err != nil {
		return nil, "", fmt.Errorf("start fetching process: %w", err)
	}
	mute := c.Mute
	if mute == 0 {
		mute = childMute
	}
	ctx, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, c.Command[0], c.Command[1:]...)
	cmd.Env = environment()
	cmd.Dir = "/"
	cmd.WaitDelay = time.Second // what it has started may hold its pipes open
	cmd.Stdin = bytes.NewReader(append(in, '\n'))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if c.UID != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: c.UID, Gid: c.GID, Groups: []uint32{}}
	}
	var stderr strings.Builder
	cmd.Stderr = &capped{w: &stderr, left: 2000}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		return nil, "", fmt.Errorf("start fetching process: %w", err)
	}
	p := &childPipe{cmd: cmd, cancel: cancel, mute: mute, pipe: out.(*os.File), r: bufio.NewReaderSize(out, 64<<10), stderr: &stderr}
	a, err := p.readAnswer(req)
	if err == nil {
		err = p.drop(a.Skip)
	}
	if err != nil {
		p.Close()
		return nil, "", err
	}
	return p, plainTag(a.Tag), nil
}

// environment keeps only how to reach the network.
func environment() []string {
	var env []string
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

type childPipe struct {
	cmd    *exec.Cmd
	cancel context.CancelFunc
	mute   time.Duration
	pipe   *os.File
	r      *bufio.Reader // of pipe
	stderr *strings.Builder
	waited bool
}

func (p *childPipe) readAnswer(req request) (a answer, err error) {
	p.wind()
	line, err := p.r.ReadSlice('\n')
	if err == nil && len(line) > maxAnswer {
		err = errTooLong
	}
	if err != nil {
		if err != io.EOF { // at the end it has its own words; before it, it would be waited for in vain
			p.cancel()
		}
		return a, fmt.Errorf("fetching process said nothing useful: %w", errors.Join(p.late(err), p.wait()))
	}
	if err := json.Unmarshal(line, &a); err != nil {
		return a, fmt.Errorf("fetching process: %w", err)
	}
	switch {
	case a.Unchanged && req.Tag != "":
		return a, ErrUnchanged
	case a.NotFound:
		return a, fmt.Errorf("%.500s: %w", Printable(a.Error), fs.ErrNotExist)
	case a.Error != "" && a.Status >= 100 && a.Status <= 999:
		return a, &StatusError{Code: a.Status, text: fmt.Sprintf("%.500s", Printable(a.Error))}
	case a.Error != "" || a.Unchanged:
		return a, fmt.Errorf("%.500s", Printable(a.Error))
	case a.Skip < 0 || a.Skip > req.Offset:
		return a, fmt.Errorf("fetching process would skip %d bytes to reach byte %d", a.Skip, req.Offset)
	}
	return a, nil
}

// drop reads past bytes that nobody asked for: here and not in the child, which would be silent meanwhile.
func (p *childPipe) drop(n int64) error {
	if _, err := io.CopyN(io.Discard, p, n); err != nil {
		return fmt.Errorf("skip to byte %d: %w", n, err)
	}
	return nil
}

// wind sets the time by which the child must have said something.
func (p *childPipe) wind() { _ = p.pipe.SetReadDeadline(time.Now().Add(p.mute)) }

// late kills a child that was silent for too long, and says so.
func (p *childPipe) late(err error) error {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	p.cancel()
	return fmt.Errorf("the fetching process was silent for %s: %w", p.mute, err)
}

// Read implements io.Reader. The end of the pipe is the end of the file only if the process says so by its exit code.
func (p *childPipe) Read(b []byte) (int, error) {
	p.wind()
	n, err := p.r.Read(b)
	if err == io.EOF {
		if waitErr := p.wait(); waitErr != nil {
			err = waitErr
		}
	}
	return n, p.late(err)
}

// wait waits for the end of a child that has closed its pipe or was killed.
func (p *childPipe) wait() error {
	if p.waited {
		return nil
	}
	p.waited = true
	defer time.AfterFunc(p.mute, p.cancel).Stop()
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("fetching process: %w: %s", err, Printable(strings.TrimSpace(p.stderr.String())))
	}
	return nil
}

// Printable takes out what a server or a process could do to the terminal of whoever reads an error.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) && r != utf8.RuneError {
			return r
		}
		return '?'
	}, s)
}

// Close ends the process.
func (p *childPipe) Close() error {
	p.cancel()
	_ = p.wait() // it was killed
	return nil
}

// capped drops what is too much.
type capped struct {
	w    io.Writer
	left int
}

func (c *capped) Write(p []byte) (int, error) {
	keep := p[:min(len(p), c.left)]
	c.left -= len(keep)
	if _, err := c.w.Write(keep); err != nil {
		return 0, err
	}
	return len(p), nil
}

// RunChild is the process on the other side: it reads a request from in and writes the file that it asks for to w.
func RunChild(ctx context.Context, in io.Reader, w io.Writer) error {
	if err := noNewPrivileges(); err != nil {
		return err
	}
	var req request
	if err := json.NewDecoder(io.LimitReader(in, maxRequest)).Decode(&req); err != nil {
		return fmt.Errorf("read what to fetch from standard input: %w (people use updatectl)", err)
	}
	r, good, err := fetchFor(ctx, req)
	if err != nil {
		a := answer{Error: err.Error(), NotFound: errors.Is(err, fs.ErrNotExist), Unchanged: errors.Is(err, ErrUnchanged)}
		if status := (*StatusError)(nil); errors.As(err, &status) {
			a.Status = status.Code
		}
		return say(w, a)
	}
	defer r.Close()
	if err := say(w, good); err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return err
}

func fetchFor(ctx context.Context, req request) (io.ReadCloser, answer, error) {
	if strings.HasPrefix(req.URL, "file:") {
		r, err := Folder{}.Open(ctx, req.URL, req.Offset)
		return r, answer{}, err
	}
	h, err := req.Network.HTTP(childIdle)
	if err != nil {
		return nil, answer{}, err
	}
	body, tag, err := h.get(ctx, req.URL, req.Offset, req.Tag)
	if err != nil {
		return nil, answer{}, err
	}
	return body, answer{Tag: tag, Skip: body.skip}, nil
}

// noNewPrivileges makes it impossible that a set-user-id program gives back what this process has given up. The flag belongs to
// a thread and the Go runtime has several by now, so the one that has it executes this program again, unless the service's unit
// (NoNewPrivileges=) had it set from the start.
func noNewPrivileges() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	on, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	if err != nil {
		return fmt.Errorf("give up privileges: %w", err)
	}
	if on == 1 {
		return nil
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("give up privileges: %w", err)
	}
	return fmt.Errorf("give up privileges: %w", syscall.Exec("/proc/self/exe", os.Args, os.Environ()))
}

func say(w io.Writer, a answer) error {
	if len(a.Error) > 500 {
		a.Error = a.Error[:500]
	}
	b, err := json.Marshal(a)
	if err != nil {
		return err
	}
	_, err = w.Write(append(b, '\n'))
	return err
}
