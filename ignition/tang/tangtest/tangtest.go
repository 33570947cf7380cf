// Package tangtest is a tang server for tests: it has keys, advertises them and does its part of the exchange, as tangd(8) does. A test can
// have it do all of that wrong.
package tangtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"strings"

	"github.com/proa-os/proa/ignition/jose"
)

// A Server has a signing key and an exchange key. It is an http.Handler.
type Server struct {
	sign     *ecdsa.PrivateKey
	exchange []byte // the secret half
	public   jose.Key
	signer   jose.Key

	// Recovered counts exchanges that were answered with 200.
	Recovered chan struct{}
}

// New makes keys on a curve: P-521 is tangd's.
func New(curve elliptic.Curve) (*Server, error) {
	s := &Server{Recovered: make(chan struct{}, 1000)}
	var err error
	if s.sign, err = ecdsa.GenerateKey(curve, rand.Reader); err != nil {
		return nil, err
	}
	n, err := rand.Int(rand.Reader, new(big.Int).Sub(curve.Params().N, big.NewInt(1)))
	if err != nil {
		return nil, err
	}
	s.exchange = n.Add(n, big.NewInt(1)).Bytes()
	x, y := curve.ScalarBaseMult(s.exchange)
	s.public = jose.Point{Curve: curve, X: x, Y: y}.Key()
	s.public.Alg, s.public.KeyOps = "ECMR", []string{"deriveKey"}
	s.signer = jose.Point{Curve: curve, X: s.sign.X, Y: s.sign.Y}.Key()
	s.signer.Alg, s.signer.KeyOps = s.alg(), []string{"verify"}
	return s, nil
}

func (s *Server) alg() string {
	if s.sign.Curve == elliptic.P256() {
		return "ES256"
	}
	return "ES512"
}

// Thumbprint is that of the signing key.
func (s *Server) Thumbprint() string { return s.signer.Thumbprint() }

// Signer is the signing key's public half.
func (s *Server) Signer() jose.Key { return s.signer }

// Advertisement signs the keys.
func (s *Server) Advertisement() []byte {
	return s.Advertise(jose.Set{Keys: []jose.Key{s.signer, s.public}})
}

// Advertise signs any keys.
func (s *Server) Advertise(set jose.Set) []byte {
	payload, err := json.Marshal(set)
	if err != nil {
		panic(err) // strings
	}
	protected := jose.Encode([]byte(`{"alg":"` + s.alg() + `","cty":"jwk-set+json"}`))
	body := jose.Encode(payload)
	return fmt.Appendf(nil, `{"payload":"%s","protected":"%s","signature":"%s"}`, body, protected, jose.Encode(s.signature(protected+"."+body)))
}

func (s *Server) signature(text string) []byte {
	sum := sha512.Sum512([]byte(text))
	digest := sum[:]
	if s.alg() == "ES256" {
		short := sha256.Sum256([]byte(text))
		digest = short[:]
	}
	r, v, err := ecdsa.Sign(rand.Reader, s.sign, digest)
	if err != nil {
		panic(err) // no randomness
	}
	size := (s.sign.Params().BitSize + 7) / 8
	return append(r.FillBytes(make([]byte, size)), v.FillBytes(make([]byte, size))...)
}

// ServeHTTP answers as tangd does.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	at := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	name := at[len(at)-1]
	switch {
	case r.Method == "GET" && (name == "adv" || len(at) > 1 && at[len(at)-2] == "adv" && s.signer.Is(name)):
		w.Header().Set("Content-Type", "application/jose+json")
		_, _ = w.Write(s.Advertisement())
	case r.Method == "POST" && len(at) > 1 && at[len(at)-2] == "rec" && s.public.Is(name):
		var k jose.Key
		if err := json.NewDecoder(r.Body).Decode(&k); err != nil || k.Alg != "ECMR" {
			http.Error(w, "no key of an exchange", http.StatusBadRequest)
			return
		}
		p, err := k.Point()
		if err != nil || p.Params().Name != s.public.Curve {
			http.Error(w, "no point", http.StatusBadRequest)
			return
		}
		x, y := p.ScalarMult(p.X, p.Y, s.exchange)
		answer := jose.Point{Curve: p.Curve, X: x, Y: y}.Key()
		answer.Alg, answer.KeyOps = "ECMR", []string{"deriveKey"}
		w.Header().Set("Content-Type", "application/jwk+json")
		s.Recovered <- struct{}{}
		_ = json.NewEncoder(w).Encode(answer)
	default:
		http.NotFound(w, r)
	}
}
