package registrytest

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"

	"github.com/proa-os/proa/internal/certtest"
)

// StartTLS is StartHandler with TLS: the certificate is for the names, which may be addresses, and for the one it listens at. Its authority
// is made for this registry and stands in CA.
func StartTLS(addr string, names []string, wrap func(http.Handler) http.Handler) (*Registry, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("start registry: %w", err)
	}
	host, _, _ := net.SplitHostPort(l.Addr().String())
	ca, pair, err := certtest.Server(append(names, host)...)
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("start registry: %w", err)
	}
	r := &Registry{Addr: l.Addr().String(), CA: ca, server: newServer(wrap), way: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: certtest.Pool(ca)}}}
	r.server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair}}
	go r.server.ServeTLS(l, "", "") // ends with Close
	return r, nil
}
