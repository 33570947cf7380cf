package registrytest

import (
	"encoding/base64"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// A Proxy is a proxy on a loopback port that leads names to where the test has them, and remembers what it was asked for.
type Proxy struct {
	Addr     string            // host:port it listens on
	Routes   map[string]string // host:port asked for, to host:port; anything else is refused with 403
	User     string            // with Password: who may use it; "" is anybody
	Password string
	server   *http.Server
	mu       sync.Mutex
	asked    []string
}

// Start serves on a free port of loopback.
func (p *Proxy) Start() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("start proxy: %w", err)
	}
	p.Addr = l.Addr().String()
	p.server = &http.Server{Handler: p, ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: time.Minute}
	go p.server.Serve(l) // ends with Close
	return nil
}

// Close stops it. Tunnels end with their ends.
func (p *Proxy) Close() error { return p.server.Close() }

// Asked returns "CONNECT HOST:PORT" or "GET URL" for each request since the last time, sorted, once each.
func (p *Proxy) Asked() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.asked
	p.asked = nil
	slices.Sort(list)
	return slices.Compact(list)
}

func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.asked = append(p.asked, r.Method+" "+r.RequestURI)
	p.mu.Unlock()
	if want := "Basic " + base64.StdEncoding.EncodeToString([]byte(p.User+":"+p.Password)); p.User != "" && r.Header.Get("Proxy-Authorization") != want {
		w.Header().Set("Proxy-Authenticate", `Basic realm="proxy"`)
		http.Error(w, "who are you?", http.StatusProxyAuthRequired)
		return
	}
	host := r.Host
	if r.URL.Host != "" {
		host = r.URL.Host
	}
	to, ok := p.Routes[host]
	if !ok {
		http.Error(w, "no way there", http.StatusForbidden)
		return
	}
	if r.Method == http.MethodConnect {
		tunnel(w, to)
		return
	}
	r.URL.Host, r.RequestURI = to, ""
	resp, err := new(http.Transport).RoundTrip(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	for k, v := range resp.Header {
		w.Header()[k] = v
	}
	w.WriteHeader(resp.StatusCode)
	io.Copy(w, resp.Body)
}

// tunnel joins the two connections until both are at their ends.
func tunnel(w http.ResponseWriter, to string) {
	there, err := net.Dial("tcp", to)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer there.Close()
	here, buffered, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer here.Close()
	fmt.Fprint(here, "HTTP/1.1 200 OK\r\n\r\n")
	go func() {
		io.Copy(there, buffered)
		there.Close()
	}()
	io.Copy(here, there)
}
