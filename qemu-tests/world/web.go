package world

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/proa-os/proa/qemu-tests/vm"
)

// Web is a plain web server for the files of a folder, as anybody's: GET, HEAD and ranges, nothing else. Stories make it fail.
type Web struct {
	server *http.Server
	addr   *net.TCPAddr
	done   chan error

	mu       sync.Mutex
	requests []string
	cuts     []cut
	silent   map[string]chan struct{} // by path: what has no answer until its channel is closed
	down     bool
}

// cut breaks one response, or holds it up.
type cut struct {
	suffix string // of the path
	part   string // of the request
	after  int64
	hold   *hold // nil breaks it
}

// A hold is a response that does not go on.
type hold struct {
	reached  chan struct{} // closed when it has come so far
	released chan struct{} // closed when its path has answers again
	silence  func()        // called before reached is closed
	client   context.Context
}

func (h *hold) wait() {
	select {
	case <-h.client.Done():
	case <-h.released:
	}
}

// Serve serves dir on a free port of the loopback interface until Close.
func Serve(dir string) (*Web, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("serve %s: %w", dir, err)
	}
	w := &Web{addr: l.Addr().(*net.TCPAddr), done: make(chan error, 1)}
	w.server = &http.Server{Handler: w.handler(http.FileServer(http.Dir(dir))), ReadHeaderTimeout: time.Minute}
	go func() { w.done <- w.server.Serve(l) }()
	return w, nil
}

// GuestURL is the server's address for a machine, with a slash at the end.
func (w *Web) GuestURL() string { return fmt.Sprintf("http://%s:%d/", vm.HostAddress, w.addr.Port) }

// HostURL is the server's address for the host, with a slash at the end.
func (w *Web) HostURL() string { return fmt.Sprintf("http://127.0.0.1:%d/", w.addr.Port) }

// Requests are all requests so far: "GET /path bytes=0-99", the range only where one was asked for.
func (w *Web) Requests() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.requests...)
}

// Cut breaks the connection of the next response for a path that ends in suffix, after so many bytes of its body.
func (w *Web) Cut(suffix string, after int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cuts = append(w.cuts, cut{suffix: suffix, after: after})
}

// Hold lets the response to the next request in which part occurs, as Requests has it, go on for so many bytes of its body, and then sends
// nothing more of that path, whoever asks for it again, until release is called. The channel is closed when it has come so far.
func (w *Web) Hold(part string, after int64) (reached <-chan struct{}, release func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := &hold{reached: make(chan struct{}), released: make(chan struct{})}
	w.cuts = append(w.cuts, cut{part: part, after: after, hold: h})
	return h.reached, sync.OnceFunc(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		maps.DeleteFunc(w.silent, func(_ string, until chan struct{}) bool { return until == h.released })
		close(h.released)
	})
}

// Down makes the server answer 503 to everything, or not any more.
func (w *Web) Down(down bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = down
}

// Close ends the server and the connections it has.
func (w *Web) Close() error {
	err := w.server.Close()
	if served := <-w.done; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

func (w *Web) handler(files http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		c, silent, down := w.note(r)
		switch {
		case silent != nil:
			(&hold{released: silent, client: r.Context()}).wait()
			panic(http.ErrAbortHandler)
		case down:
			http.Error(rw, "the story has taken this server down", http.StatusServiceUnavailable)
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			http.Error(rw, "this server only has files", http.StatusMethodNotAllowed)
		case c != nil:
			if c.hold != nil {
				c.hold.client = r.Context()
				c.hold.silence = func() { w.keepSilent(r.URL.Path, c.hold.released) }
			}
			files.ServeHTTP(&cutWriter{rw, c.after, c.hold}, r)
		default:
			files.ServeHTTP(rw, r)
		}
	})
}

// note remembers a request and returns what is to become of it.
func (w *Web) note(r *http.Request) (c *cut, silent chan struct{}, down bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	request := strings.TrimSpace(r.Method + " " + r.URL.Path + " " + r.Header.Get("Range"))
	w.requests = append(w.requests, request)
	if silent := w.silent[r.URL.Path]; silent != nil {
		return nil, silent, w.down
	}
	for i, c := range w.cuts {
		if strings.HasSuffix(r.URL.Path, c.suffix) && strings.Contains(request, c.part) {
			w.cuts = append(w.cuts[:i], w.cuts[i+1:]...)
			return &c, nil, w.down
		}
	}
	return nil, nil, w.down
}

func (w *Web) keepSilent(path string, until chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.silent == nil {
		w.silent = map[string]chan struct{}{}
	}
	w.silent[path] = until
}

// cutWriter aborts the response after left more bytes, or holds it up.
type cutWriter struct {
	http.ResponseWriter
	left int64
	hold *hold
}

func (c *cutWriter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	if err != nil {
		return n, err
	}
	if n < len(p) {
		if err := http.NewResponseController(c.ResponseWriter).Flush(); err != nil {
			return n, err
		}
		if c.hold != nil {
			c.hold.silence()
			close(c.hold.reached)
			c.hold.wait()
		}
		panic(http.ErrAbortHandler) // net/http's way to close the connection without ending the body.
	}
	return n, nil
}
