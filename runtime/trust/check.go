package trust

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/runtime/image"
	"github.com/proa-os/proa/runtime/ref"
)

// ErrNotTrusted says that the policy does not let an image in.
var ErrNotTrusted = errors.New("not trusted")

const (
	maxSignatures = 64       // looked at, for one image
	maxPayload    = 64 << 10 // bytes of what is signed
	maxBundle     = 1 << 20
)

// A Source finds signatures. Nothing it delivers is trusted. For what is not there its errors are missing ones.
type Source interface {
	Manifest(ctx context.Context, identifier string) ([]byte, error)
	Document(ctx context.Context, d image.Descriptor) ([]byte, error)
	Referrers(ctx context.Context, d image.Digest) ([]byte, error)
}

// A Verdict lets one image in under one name. Only this package makes them.
type Verdict struct {
	repository string
	top        image.Digest
	manifest   image.Digest
	signer     string
	valid      bool
}

// Covers reports whether the verdict is about this image under this name.
func (v Verdict) Covers(r ref.Ref, img *image.Image) bool {
	return v.valid && v.repository == r.Repository() && v.top == img.Top && v.manifest == img.Digest
}

// Signer is the file of the key that signed, "" where none was demanded.
func (v Verdict) Signer() string { return v.signer }

// CheckName refuses names that no signature would help, before anything is asked of a registry.
func (p *Policy) CheckName(r ref.Ref) error {
	rule := p.rule(r.Repository())
	if rule == nil {
		return fmt.Errorf("%s: %w: no rule of the trust policy covers it: add one to a file in %s", r, ErrNotTrusted, AdminDir)
	}
	if rule.Require == Reject {
		return fmt.Errorf("%s: %w: %s rejects the prefix %q", r, ErrNotTrusted, rule.file, rule.Prefix)
	}
	return nil
}

// Check asks whether the image may be unpacked under the name. missing tells an error of src for what is not there from others.
func (p *Policy) Check(ctx context.Context, r ref.Ref, img *image.Image, src Source, missing func(error) bool) (Verdict, error) {
	v := Verdict{repository: r.Repository(), top: img.Top, manifest: img.Digest, valid: true}
	if err := p.CheckName(r); err != nil {
		return Verdict{}, err
	}
	rule := p.rule(r.Repository())
	if rule.Require == Accept {
		return v, nil
	}
	s := &search{rule: rule, repository: r.Repository(), src: src, missing: missing}
	for _, d := range digests(img) {
		signer, err := s.find(ctx, d)
		if err != nil {
			return Verdict{}, fmt.Errorf("%s: look for signatures: %w", r, err)
		}
		if signer != "" {
			v.signer = signer
			return v, nil
		}
	}
	return Verdict{}, fmt.Errorf("%s: %w: %s demands a signature by %s for the prefix %q, and %s", r, ErrNotTrusted, rule.file,
		strings.Join(rule.Keys, " or "), rule.Prefix, s.outcome(img))
}

// digests are what a signature may be on: the index and the image chosen from it.
func digests(img *image.Image) []image.Digest {
	if img.Top == img.Digest {
		return []image.Digest{img.Top}
	}
	return []image.Digest{img.Top, img.Digest}
}

// search looks at signatures of one image until one is good.
type search struct {
	rule       *Rule
	repository string
	src        Source
	missing    func(error) bool
	looked     int
	reasons    []string // why those that were there do not count
}

func (s *search) outcome(img *image.Image) string {
	if len(s.reasons) == 0 {
		return fmt.Sprintf("%s has none: have it signed (cosign sign --key KEY %s@%s), or change the rule", img.Top, s.repository, img.Top)
	}
	return fmt.Sprintf("none of %d on %s counts: %s", len(s.reasons), img.Top, strings.Join(s.reasons, "; "))
}

func (s *search) refuse(format string, args ...any) {
	if len(s.reasons) < 5 {
		s.reasons = append(s.reasons, fmt.Sprintf(format, args...))
	}
}

// find looks for a good signature on a digest, in the tag of cosign and in the referrers.
func (s *search) find(ctx context.Context, d image.Digest) (string, error) {
	b, err := s.src.Manifest(ctx, "sha256-"+d.Hex()+".sig")
	if err == nil {
		signer, err := s.manifest(ctx, b, d)
		if signer != "" || err != nil {
			return signer, err
		}
	} else if !s.missing(err) {
		return "", err
	}
	b, err = s.src.Referrers(ctx, d)
	if err != nil {
		if s.missing(err) {
			return "", nil
		}
		return "", err
	}
	var index struct{ Manifests []image.Descriptor }
	if err := json.Unmarshal(b, &index); err != nil {
		s.refuse("the list of referrers is no index: %v", err)
		return "", nil
	}
	for _, m := range index.Manifests {
		if !strings.Contains(m.ArtifactType, "cosign") && !strings.Contains(m.ArtifactType, "sigstore") && m.ArtifactType != "" {
			continue
		}
		if s.looked++; s.looked > maxSignatures {
			s.refuse("more than %d signatures", maxSignatures)
			return "", nil
		}
		m.MediaType = "" // a manifest, whatever it says
		b, err := s.document(ctx, m, maxBundle)
		if err != nil {
			return "", err
		}
		if signer, err := s.manifest(ctx, b, d); signer != "" || err != nil {
			return signer, err
		}
	}
	return "", nil
}

// document gets a document and compares its digest; nil is one that is not what it should be.
func (s *search) document(ctx context.Context, d image.Descriptor, limit int64) ([]byte, error) {
	if d.Size < 0 || d.Size > limit {
		s.refuse("a signature of %d bytes", d.Size)
		return nil, nil
	}
	b, err := s.src.Document(ctx, d)
	if err != nil {
		if s.missing(err) {
			s.refuse("%s is missing", d.Digest)
			return nil, nil
		}
		return nil, err
	}
	if got := image.Digest(digest.Of(b)); got != d.Digest {
		s.refuse("%s is %s", d.Digest, got)
		return nil, nil
	}
	return b, nil
}

// Media types of layers that hold signatures, and the annotation with the signature of the first.
const (
	simpleSigning       = "application/vnd.dev.cosign.simplesigning.v1+json"
	bundlePrefix        = "application/vnd.dev.sigstore.bundle"
	signatureAnnotation = "dev.cosignproject.cosign/signature"
)

// manifest looks at the layers of a signature manifest. The manifest itself vouches for nothing.
func (s *search) manifest(ctx context.Context, b []byte, d image.Digest) (string, error) {
	if b == nil {
		return "", nil
	}
	var m struct {
		Layers []image.Descriptor `json:"layers"`
	}
	if err := json.Unmarshal(b, &m); err != nil {
		s.refuse("a signature's manifest is no manifest: %v", err)
		return "", nil
	}
	for _, l := range m.Layers {
		var verify func([]byte, image.Descriptor, image.Digest) (string, error)
		limit := int64(maxPayload)
		switch {
		case l.MediaType == simpleSigning:
			verify = s.simple
		case strings.HasPrefix(l.MediaType, bundlePrefix):
			verify, limit = s.bundle, maxBundle
		default:
			continue
		}
		if s.looked++; s.looked > maxSignatures {
			s.refuse("more than %d signatures", maxSignatures)
			return "", nil
		}
		l.MediaType = "application/octet-stream" // a blob, whatever it says
		b, err := s.document(ctx, l, limit)
		if err != nil {
			return "", err
		}
		if b == nil {
			continue
		}
		signer, err := verify(b, l, d)
		if err == nil {
			return signer, nil
		}
		s.refuse("%v", err)
	}
	return "", nil
}
