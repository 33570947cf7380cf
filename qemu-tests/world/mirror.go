package world

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/proa-os/proa/internal/certtest"
	"github.com/proa-os/proa/update-engine/server"
)

// A Mirror is a repository as update-server gives it, behind https: under a name, with a certificate that nobody but its own authority vouches
// for. Machines find the name by way of a Proxy only.
type Mirror struct {
	CA    []byte          // of the authority, in PEM
	Asked <-chan struct{} // closed by the first request

	server *http.Server
	root   *os.Root
	addr   string
	done   chan error

	mu      sync.Mutex
	answers []Answer
}

// An Answer is what a Mirror has made of a request.
type Answer struct {
	Path   string
	Status int
	Took   time.Duration // until all of it was sent
}

func (a Answer) String() string { return fmt.Sprintf("%s %d", a.Path, a.Status) }

// StartMirror serves the repository in dir as https://name/ until Close.
func StartMirror(name, dir string) (*Mirror, error) {
	ca, certificate, err := certtest.Server(name)
	if err != nil {
		return nil, fmt.Errorf("mirror %s: %w", name, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("mirror %s: %w", name, err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("mirror %s: %w", name, err), root.Close())
	}
	asked := make(chan struct{})
	m := &Mirror{CA: ca, Asked: asked, root: root, addr: l.Addr().String(), done: make(chan error, 1)}
	m.server = &http.Server{Handler: m.handler(server.Handler(root), sync.OnceFunc(func() { close(asked) })), ReadHeaderTimeout: time.Minute}
	go func() {
		m.done <- m.server.Serve(tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{certificate}}))
	}()
	return m, nil
}

// Addr is where the mirror listens on the host.
func (m *Mirror) Addr() string { return m.addr }

// Answers are all so far that have ended.
func (m *Mirror) Answers() []Answer {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.answers)
}

// Close ends the server and the connections it has.
func (m *Mirror) Close() error {
	err := m.server.Close()
	if served := <-m.done; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return errors.Join(err, m.root.Close())
}

func (m *Mirror) handler(files http.Handler, asked func()) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked()
		begin, status := time.Now(), &statusWriter{w, http.StatusOK}
		files.ServeHTTP(status, r)
		m.mu.Lock()
		defer m.mu.Unlock()
		m.answers = append(m.answers, Answer{r.URL.Path, status.code, time.Since(begin)})
	})
}

// statusWriter remembers the status.
type statusWriter struct {
	http.ResponseWriter
	code int
}

func (s *statusWriter) WriteHeader(code int) {
	s.code = code
	s.ResponseWriter.WriteHeader(code)
}
