// Package ref reads the names of images as people type them: "registry:port/path/name:tag" and "...@sha256:<digest>".
//
// A name without a registry means what it means to docker; a name without a tag means "latest". The work is done by
// go-containerregistry's name package. The canonical form is what the store keeps images under.
package ref

import (
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/proa-os/proa/runtime/image"
)

// A Ref is a parsed name.
type Ref struct{ r name.Reference }

// Parse reads a name.
func Parse(s string) (Ref, error) {
	r, err := name.ParseReference(s)
	if err != nil {
		return Ref{}, fmt.Errorf("image name: %w", err)
	}
	if len(r.Name()) > 240 {
		return Ref{}, fmt.Errorf("image name %q: %d bytes, at most 240", s, len(r.Name()))
	}
	return Ref{r}, nil
}

// String returns the canonical form, with registry and tag or digest.
func (r Ref) String() string { return r.r.Name() }

// Digest returns the digest in the name, if there is one.
func (r Ref) Digest() (image.Digest, bool) {
	d, ok := r.r.(name.Digest)
	if !ok {
		return image.Digest{}, false
	}
	v, err := image.ParseDigest(d.DigestStr())
	return v, err == nil
}

// Name returns the parsed form for the registry client. With insecure it may be reached without TLS.
func (r Ref) Name(insecure bool) (name.Reference, error) {
	var opts []name.Option
	if insecure {
		opts = append(opts, name.Insecure)
	}
	return name.ParseReference(r.String(), opts...)
}

// Repository returns the name without tag and digest, with the registry: "docker.io/library/busybox".
func (r Ref) Repository() string {
	repo := r.r.Context().Name()
	if rest, ok := strings.CutPrefix(repo, name.DefaultRegistry+"/"); ok {
		return "docker.io/" + rest
	}
	return repo
}

// Identifier returns the tag, or the digest where the name has one.
func (r Ref) Identifier() string { return r.r.Identifier() }
