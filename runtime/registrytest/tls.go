package registrytest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"time"
)

// StartTLS is StartHandler with TLS: the certificate is for the names, which may be addresses, and for the one it listens at. Its authority
// is made for this registry and stands in CA.
func StartTLS(addr string, names []string, wrap func(http.Handler) http.Handler) (*Registry, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("start registry: %w", err)
	}
	host, _, _ := net.SplitHostPort(l.Addr().String())
	pair, ca, err := certify(append(names, host))
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("start registry: make certificate: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	r := &Registry{Addr: l.Addr().String(), CA: ca, server: newServer(wrap), way: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	r.server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair}}
	go r.server.ServeTLS(l, "", "") // ends with Close
	return r, nil
}

// certify makes an authority, and a server's certificate by it.
func certify(names []string) (pair tls.Certificate, ca []byte, err error) {
	now := time.Now()
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "registrytest"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: root.NotBefore, NotAfter: root.NotAfter, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			leaf.IPAddresses = append(leaf.IPAddresses, ip)
		} else {
			leaf.DNSNames = append(leaf.DNSNames, n)
		}
	}
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pair, nil, err
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pair, nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, root, root, rootKey.Public(), rootKey)
	if err != nil {
		return pair, nil, err
	}
	signed, err := x509.CreateCertificate(rand.Reader, leaf, root, leafKey.Public(), rootKey)
	if err != nil {
		return pair, nil, err
	}
	pair = tls.Certificate{Certificate: [][]byte{signed}, PrivateKey: leafKey}
	return pair, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}
