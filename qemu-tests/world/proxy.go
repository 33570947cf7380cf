package world

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/proa-os/proa/qemu-tests/vm"
)

// A Proxy makes tunnels (CONNECT, RFC 9110 section 9.3.6) to the hosts that it knows, and nothing else.
type Proxy struct {
	hosts  map[string]string // addresses by "host:port"
	server *http.Server
	addr   *net.TCPAddr
	done   chan error

	mu      sync.Mutex
	asked   []string
	tunnels map[net.Conn]bool // both ends of those that are open
}

// StartProxy serves on a free port of the loopback interface until Close. hosts says which address a "host:port" has.
func StartProxy(hosts map[string]string) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start proxy: %w", err)
	}
	p := &Proxy{hosts: hosts, addr: l.Addr().(*net.TCPAddr), done: make(chan error, 1), tunnels: map[net.Conn]bool{}}
	p.server = &http.Server{Handler: http.HandlerFunc(p.serve), ReadHeaderTimeout: time.Minute}
	go func() { p.done <- p.server.Serve(l) }()
	return p, nil
}

// GuestURL is the proxy's address for a machine.
func (p *Proxy) GuestURL() string { return fmt.Sprintf("http://%s:%d", vm.HostAddress, p.addr.Port) }

// HostURL is the proxy's address for the host.
func (p *Proxy) HostURL() string { return "http://" + p.addr.String() }

// Asked are all tunnels so far that somebody has asked for: "host:port", and what the answer was, as a number.
func (p *Proxy) Asked() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.asked)
}

// Close ends the proxy and its tunnels.
func (p *Proxy) Close() error {
	err := p.server.Close()
	if served := <-p.done; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.tunnels {
		c.Close()
	}
	return err
}

func (p *Proxy) serve(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect {
		http.Error(w, "this proxy only has tunnels", http.StatusMethodNotAllowed)
		return
	}
	to, err := p.dial(r.Host)
	if err != nil {
		p.note(r, http.StatusBadGateway)
		http.Error(w, "nobody is there", http.StatusBadGateway)
		return
	}
	p.note(r, http.StatusOK)
	w.WriteHeader(http.StatusOK)
	from, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		to.Close()
		return
	}
	end := p.open(from, to)
	go func() {
		defer end()
		_, _ = io.Copy(to, buffered)
	}()
	defer end()
	_, _ = io.Copy(from, to)
}

func (p *Proxy) dial(host string) (net.Conn, error) {
	addr, ok := p.hosts[host]
	if !ok {
		return nil, fmt.Errorf("host %s is not known", host)
	}
	return net.Dial("tcp", addr)
}

// open remembers a tunnel and returns how to end it.
func (p *Proxy) open(ends ...net.Conn) (end func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range ends {
		p.tunnels[c] = true
	}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, c := range ends {
			c.Close()
			delete(p.tunnels, c)
		}
	}
}

func (p *Proxy) note(r *http.Request, status int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, fmt.Sprintf("%s %d", r.Host, status))
}
