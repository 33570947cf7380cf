package trust

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/proa-os/proa/runtime/image"
	"github.com/proa-os/proa/runtime/ref"
)

// parseKey reads one public key (PKIX in PEM, as cosign writes cosign.pub).
func parseKey(b []byte) (crypto.PublicKey, error) {
	block, rest := pem.Decode(b)
	if block == nil {
		return nil, errors.New("no PEM block: want a public key as in cosign.pub")
	}
	if block.Type != "PUBLIC KEY" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("PEM block %q: want one PUBLIC KEY and nothing else", block.Type)
	}
	k, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	switch k := k.(type) {
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P224() {
			return nil, errors.New("curve P-224 is too weak")
		}
		return k, nil
	case *rsa.PublicKey:
		if k.N.BitLen() < 2048 {
			return nil, fmt.Errorf("RSA key of %d bits, want at least 2048", k.N.BitLen())
		}
		return k, nil
	case ed25519.PublicKey:
		return k, nil
	}
	return nil, fmt.Errorf("key of kind %T is not supported", k)
}

// verified reports whether the key made the signature of message.
func verified(k crypto.PublicKey, message, signature []byte) bool {
	sum := sha256.Sum256(message)
	switch k := k.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(k, sum[:], signature)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(k, crypto.SHA256, sum[:], signature) == nil
	case ed25519.PublicKey:
		return ed25519.Verify(k, message, signature)
	}
	return false
}

// signer returns the key of the rule that made the signature.
func (s *search) signer(message, signature []byte) (string, error) {
	for _, k := range s.rule.keys {
		if verified(k.public, message, signature) {
			return k.file, nil
		}
	}
	return "", errors.New("a signature is by another key, or of something else")
}

// simple verifies a simple-signing payload. Only after its signature is anything in it looked at.
func (s *search) simple(payload []byte, l image.Descriptor, d image.Digest) (string, error) {
	signature, err := base64.StdEncoding.DecodeString(l.Annotations[signatureAnnotation])
	if err != nil || len(signature) == 0 {
		return "", errors.New("a signature without its annotation")
	}
	signer, err := s.signer(payload, signature)
	if err != nil {
		return "", err
	}
	var p struct {
		Critical struct {
			Type  string `json:"type"`
			Image struct {
				Digest string `json:"docker-manifest-digest"`
			} `json:"image"`
			Identity struct {
				Reference string `json:"docker-reference"`
			} `json:"identity"`
		} `json:"critical"`
	}
	if err := json.Unmarshal(payload, &p); err != nil {
		return "", fmt.Errorf("a signed payload that is no JSON: %w", err)
	}
	c := p.Critical
	switch {
	case c.Type != "cosign container image signature" && c.Type != "atomic container signature":
		return "", fmt.Errorf("a signature of type %.60q", c.Type)
	case c.Image.Digest != d.String():
		return "", fmt.Errorf("a signature of another image, %.80q", c.Image.Digest)
	}
	return signer, s.identity(c.Identity.Reference)
}

// identity compares what a signature was made for with what is pulled.
func (s *search) identity(reference string) error {
	if s.rule.Identity == "any" {
		return nil
	}
	const next = `if that is meant to be, say identity = "any" in the rule`
	if reference == "" {
		return errors.New("a signature that names no repository: " + next)
	}
	r, err := ref.Parse(reference)
	if err != nil {
		return fmt.Errorf("a signature for %.100q, which is no image name", reference)
	}
	if r.Repository() != s.repository {
		return fmt.Errorf("a signature for %.100q, not for %s: %s", reference, s.repository, next)
	}
	return nil
}

// bundle verifies a sigstore bundle with a DSSE envelope around an in-toto statement.
func (s *search) bundle(b []byte, _ image.Descriptor, d image.Digest) (string, error) {
	var o struct {
		Envelope *struct {
			PayloadType string `json:"payloadType"`
			Payload     []byte `json:"payload"`
			Signatures  []struct {
				Sig []byte `json:"sig"`
			} `json:"signatures"`
		} `json:"dsseEnvelope"`
	}
	if err := json.Unmarshal(b, &o); err != nil {
		return "", fmt.Errorf("a bundle that is no JSON: %w", err)
	}
	if o.Envelope == nil || o.Envelope.PayloadType != "application/vnd.in-toto+json" || len(o.Envelope.Signatures) != 1 {
		return "", errors.New("a bundle without an in-toto statement with one signature")
	}
	message := fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(o.Envelope.PayloadType), o.Envelope.PayloadType, len(o.Envelope.Payload), o.Envelope.Payload)
	signer, err := s.signer(message, o.Envelope.Signatures[0].Sig)
	if err != nil {
		return "", err
	}
	var st struct {
		Type      string `json:"_type"`
		Predicate string `json:"predicateType"`
		Subject   []struct {
			Digest map[string]string `json:"digest"`
		} `json:"subject"`
	}
	if err := json.Unmarshal(o.Envelope.Payload, &st); err != nil {
		return "", fmt.Errorf("a signed statement that is no JSON: %w", err)
	}
	// Attestations (SBOM, provenance) are signed with the same keys and say nothing about running the image.
	if st.Type != "https://in-toto.io/Statement/v1" && st.Type != "https://in-toto.io/Statement/v0.1" || st.Predicate != "https://sigstore.dev/cosign/sign/v1" {
		return "", fmt.Errorf("a statement of type %.80q, not a signature", st.Predicate)
	}
	for _, sub := range st.Subject {
		if sub.Digest["sha256"] == d.Hex() {
			return signer, s.identity("")
		}
	}
	return "", errors.New("a bundle for another image")
}
