package fetch

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/runtime/registry"
)

// Confine gives up what the fetcher does not need, for this process and for good. It refuses to go on as root.
func Confine() error {
	if os.Geteuid() == 0 {
		return errors.New("refuse to talk to a network as root: this command is for pull")
	}
	// The flag belongs to a thread, and there are several by now. Go knows them all only where there is no cgo; with it, this refuses.
	if _, _, err := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); err != 0 {
		return fmt.Errorf("give up privileges: %w", err)
	}
	// It holds credentials, and other processes of its user are not to read them.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("give up privileges: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("give up writing files: %w", err)
	}
	return nil
}

// Serve answers questions until in ends. layout is the directory of what is to be pushed, or nil.
func Serve(ctx context.Context, in io.Reader, out io.Writer, layout *os.Root) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lines := json.NewDecoder(bufio.NewReader(in))
	var o opening
	if err := lines.Decode(&o); err != nil {
		return fmt.Errorf("read endpoints: %w", err)
	}
	s := &server{client: registry.New(o.Endpoints), layout: layout, out: out}
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		var q question
		if err := lines.Decode(&q); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read question: %w", err)
		}
		wg.Go(func() { s.answer(ctx, q) })
	}
}

type server struct {
	client *registry.Client
	layout *os.Root
	mu     sync.Mutex // of out
	out    io.Writer
}

func (s *server) answer(ctx context.Context, q question) {
	w := &sink{s: s, id: q.ID}
	err := s.carryOut(ctx, q, w)
	switch {
	case err == nil:
		err = s.send(q.ID, kindEnd, nil)
	case errors.Is(err, registry.ErrNotFound):
		err = s.send(q.ID, kindNotFound, []byte(err.Error()))
	default:
		err = s.send(q.ID, kindError, []byte(err.Error()))
	}
	if err != nil {
		os.Stdin.Close() // the other side is gone; Serve ends
	}
}

func (s *server) carryOut(ctx context.Context, q question, w io.Writer) error {
	var b []byte
	var err error
	switch q.Op {
	case "manifest":
		b, err = s.client.Manifest(ctx, q.Name)
	case "blob":
		b, err = s.client.Blob(ctx, q.Digest)
	case "referrers":
		b, err = s.client.Referrers(ctx, q.Digest)
	case "copy":
		return s.client.CopyBlob(ctx, q.Digest, q.Offset, q.Size, w)
	case "push":
		if s.layout == nil {
			return errors.New("nothing to push was handed over")
		}
		return s.client.Push(ctx, s.layout, q.Digest, q.Name)
	case "check":
		return s.client.Check(ctx)
	default:
		return fmt.Errorf("unknown question %q", q.Op)
	}
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

// send writes one frame whole.
func (s *server) send(id uint32, kind byte, p []byte) error {
	if kind != kindData && len(p) > maxText {
		p = p[:maxText]
	}
	var h [frameHeader]byte
	putHeader(h[:], id, kind, len(p))
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.out.Write(h[:]); err != nil {
		return err
	}
	_, err := s.out.Write(p)
	return err
}

// sink turns bytes into frames.
type sink struct {
	s  *server
	id uint32
}

func (w *sink) Write(p []byte) (int, error) {
	n := 0
	for len(p) > 0 {
		k := min(len(p), maxFrame)
		if err := w.s.send(w.id, kindData, p[:k]); err != nil {
			return n, err
		}
		n, p = n+k, p[k:]
	}
	return n, nil
}
