// Package artifact is a repository in a container registry: what the machine reads of it and the release desk writes.
//
// All files are one OCI artifact under one tag: an image manifest (image-spec 1.1, "Guidelines for artifact usage") whose layers are the files, each with
// its name in the annotation that ORAS and others use, as in "metadata/timestamp.json". A push moves the tag once everything is there, so whoever
// reads sees the repository of before or the new one. Nothing of this is trusted: who reads gets bytes that TUF metadata vouches for, or refuses.
package artifact

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"net/url"
	"slices"
	"strings"
)

// What stands in the manifest (image-spec 1.1, manifest.md and annotations.md).
const (
	MediaType   = "application/vnd.oci.image.manifest.v1+json"
	Type        = "application/vnd.proa.repository.v1" // artifactType
	FileType    = "application/octet-stream"
	EmptyType   = "application/vnd.oci.empty.v1+json"
	TitleKey    = "org.opencontainers.image.title"
	MaxManifest = 4 << 20 // bytes; what every registry takes (distribution-spec 1.1, "Pushing Manifests")
)

// Empty is the configuration of an artifact that has none (image-spec 1.1, "Guidance for an empty descriptor").
const Empty = "{}"

// An Address is oci://REGISTRY/NAME:TAG or, without TLS, oci+http://REGISTRY/NAME:TAG, and maybe a file below it.
type Address struct {
	Plain    bool   // without TLS
	Registry string // host, or host:port
	Name     string // of the registry's repository
	Tag      string
	File     string // "" for the artifact itself
}

// What distribution-spec 1.1, "Pulling manifests", lets names and tags have, but for what may follow what. Not regular expressions: the agent, which must
// be small, would compile them each time that it starts.
const (
	small   = "abcdefghijklmnopqrstuvwxyz0123456789"
	inName  = small + "._-"
	inTag   = inName + "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	longest = 128
)

func made(s, of string) bool { return s != "" && strings.Trim(s, of) == "" }

func isName(s string) bool {
	for part := range strings.SplitSeq(s, "/") {
		if !made(part, inName) || !made(part[:1], small) || !made(part[len(part)-1:], small) {
			return false
		}
	}
	return true
}

func isTag(s string) bool {
	return made(s, inTag) && len(s) <= longest && s[0] != '.' && s[0] != '-'
}

// isDigest reports whether s leads nowhere but to a blob.
func isDigest(s string) bool {
	hex, ok := strings.CutPrefix(s, "sha256:")
	return ok && len(hex) == 64 && made(hex, "0123456789abcdef")
}

// Is reports whether a URL is one of this package's.
func Is(address string) bool {
	return strings.HasPrefix(address, "oci://") || strings.HasPrefix(address, "oci+http://")
}

// Parse reads an address.
func Parse(address string) (Address, error) {
	u, err := url.Parse(address)
	if err != nil || !Is(address) || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return Address{}, wrong(address)
	}
	name, rest, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), ":")
	tag, file, below := strings.Cut(rest, "/")
	if !isName(name) || !isTag(tag) || below && file != "" && !fs.ValidPath(file) {
		return Address{}, wrong(address)
	}
	return Address{Plain: u.Scheme == "oci+http", Registry: u.Host, Name: name, Tag: tag, File: file}, nil
}

func wrong(address string) error {
	return fmt.Errorf("%q: want oci://REGISTRY/NAME:TAG, as in oci://registry.example.org/os/updates:latest", address)
}

// String is the address as it is written, without the file.
func (a Address) String() string {
	scheme := "oci"
	if a.Plain {
		scheme = "oci+http"
	}
	return fmt.Sprintf("%s://%s/%s:%s", scheme, a.Registry, a.Name, a.Tag)
}

// URL is where the registry has something of the repository: "manifests/TAG", "blobs/DIGEST" (distribution-spec 1.1, "Endpoints").
func (a Address) URL(what string) string {
	scheme := "https"
	if a.Plain {
		scheme = "http"
	}
	return (&url.URL{Scheme: scheme, Host: a.Registry, Path: "/v2/" + a.Name + "/" + what}).String()
}

// A Descriptor is a blob and what it is (image-spec 1.1, descriptor.md).
type Descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// A Manifest is the artifact.
type Manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	ArtifactType  string       `json:"artifactType"`
	Config        Descriptor   `json:"config"`
	Layers        []Descriptor `json:"layers"`
}

// ParseManifest reads a manifest, of whatever artifact type: other tools push with their own.
func ParseManifest(b []byte) (*Manifest, error) {
	m := &Manifest{}
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	if m.SchemaVersion != 2 || m.MediaType != "" && m.MediaType != MediaType {
		return nil, fmt.Errorf("manifest: version %d of type %.100q is no OCI image manifest", m.SchemaVersion, m.MediaType)
	}
	return m, nil
}

// Find is a file's blob. One that is not there is an error that wraps fs.ErrNotExist.
func (m *Manifest) Find(file string) (Descriptor, error) {
	i := slices.IndexFunc(m.Layers, func(d Descriptor) bool { return d.Annotations[TitleKey] == file })
	if i < 0 {
		return Descriptor{}, fmt.Errorf("no layer is called %s: %w", file, fs.ErrNotExist)
	}
	d := m.Layers[i]
	if !isDigest(d.Digest) {
		return Descriptor{}, fmt.Errorf("layer %s: digest %.100q: want sha256: and 64 hexadecimal digits", file, d.Digest)
	}
	return d, nil
}
