package world

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
)

// A Signer signs images as cosign does with a key.
type Signer struct{ key *ecdsa.PrivateKey }

// NewSigner makes a key.
func NewSigner() (*Signer, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return &Signer{k}, err
}

// PublicPEM is what a machine's policy names.
func (s *Signer) PublicPEM() (string, error) {
	b, err := x509.MarshalPKIXPublicKey(s.key.Public())
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: b})), err
}

// Sign puts a signature beside an image, whose name is without a tag: under cosign's tag for beside, over what says that the image digest is
// repository's. All digests are "sha256:...". An honest signer's beside and digest are the same.
func (r *Registry) Sign(s *Signer, image, beside, repository, digest string) error {
	payload := fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},"type":"cosign container image signature"},"optional":null}`, repository, digest)
	sum := sha256.Sum256(payload)
	signature, err := s.key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		return fmt.Errorf("sign %s: %w", image, err)
	}
	img, err := mutate.Append(empty.Image, mutate.Addendum{
		Layer:       static.NewLayer(payload, "application/vnd.dev.cosign.simplesigning.v1+json"),
		Annotations: map[string]string{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(signature)},
	})
	if err != nil {
		return fmt.Errorf("sign %s: %w", image, err)
	}
	ref, err := name.ParseReference(r.Addr+"/"+image+":"+strings.Replace(beside, ":", "-", 1)+".sig", name.Insecure)
	if err != nil {
		return err
	}
	if err := remote.Write(ref, img); err != nil {
		return fmt.Errorf("sign %s: %w", image, err)
	}
	return nil
}

// tamper answers with another byte in the middle of blobs of the repository lab/tampered.
func tamper(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.HasPrefix(r.URL.Path, "/v2/lab/tampered/blobs/") {
			w = &flipper{ResponseWriter: w, at: 200}
		}
		h.ServeHTTP(w, r)
	})
}

// A flipper changes one byte of an answer.
type flipper struct {
	http.ResponseWriter
	at int // bytes from here
}

func (f *flipper) Write(b []byte) (int, error) {
	if f.at >= 0 && f.at < len(b) {
		b = append([]byte{}, b...)
		b[f.at] ^= 1
	}
	f.at -= len(b)
	return f.ResponseWriter.Write(b)
}
