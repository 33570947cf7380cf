// Package artifact is a repository in a container registry: what the machine reads of it and the release desk writes.
//
// All files are one OCI artifact under one tag: an image manifest (image-spec 1.1, "Guidelines for artifact usage") whose layers are the files, each with
// its name in the annotation that ORAS and others use, as in "metadata/timestamp.json". A push moves the tag once everything is there, so whoever
// reads sees the repository of before or the new one. Nothing of this is trusted: who reads gets bytes that TUF metadata vouches for, or refuses.
//
// Refused are addresses without a tag, with a user or with dots that lead elsewhere; manifests above MaxManifest, indexes, and digests that are not sha256.
package artifact

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"strings"
)

// What stands in the manifest (image-spec 1.1, manifest.md and annotations.md).
const (
	MediaType   = "application/vnd.oci.image.manifest.v1+json"
	Type        = "application/vnd.proa.repository.v1" // artifactType
	FileType    = "application/octet-stream"
	EmptyType   = "application/vnd.oci.empty.v1+json"
	TitleKey    = "org.opencontainers.image.title"
	MaxManifest = 1 << 20 // bytes: some thousand files. Each is read through to the file that is wanted; registries take four times as much
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
	if err == nil && u.Host == "docker.io" {
		return Address{}, fmt.Errorf("%q: that is a web site; its registry is index.docker.io", address)
	}
	if err != nil || u.User != nil { // neither is quoted: a password may be in it
		return Address{}, errors.New("want an address without user and password, as in " + example)
	}
	if !Is(address) || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" {
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
	return fmt.Errorf("%q: want oci://REGISTRY/NAME:TAG, as in %s", address, example)
}

const example = "oci://registry.example.org/os/updates:latest"

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

// Find reads a manifest, of whatever artifact type, as other tools push with their own, and returns the blob of a file and the manifest's digest. A file
// that is not there is an error that wraps fs.ErrNotExist. It keeps no more than one layer in memory: who sends the manifest may be anybody.
func Find(r io.Reader, file string) (blob Descriptor, digest string, err error) {
	sum := sha256.New()
	limited := &io.LimitedReader{R: r, N: MaxManifest + 1}
	all := io.TeeReader(limited, sum)
	found, err := find(json.NewDecoder(all), file)
	if err == nil {
		_, err = io.Copy(io.Discard, all)
	}
	switch {
	case limited.N <= 0:
		return Descriptor{}, "", fmt.Errorf("manifest of more than %d bytes", MaxManifest)
	case err != nil:
		return Descriptor{}, "", fmt.Errorf("manifest: %w", err)
	case found == nil:
		return Descriptor{}, "", fmt.Errorf("manifest: no layer is called %s: %w", file, fs.ErrNotExist)
	case !isDigest(found.Digest):
		return Descriptor{}, "", fmt.Errorf("manifest: digest %.100q of layer %s: want sha256: and 64 hexadecimal digits", found.Digest, file)
	}
	return Descriptor{Digest: found.Digest, Size: found.Size}, fmt.Sprintf("sha256:%x", sum.Sum(nil)), nil
}

// layer is a Descriptor as far as it is read.
type layer struct {
	Digest      string `json:"digest"`
	Size        int64  `json:"size"`
	Annotations struct {
		Title string `json:"org.opencontainers.image.title"`
	} `json:"annotations"`
}

func find(d *json.Decoder, file string) (found *layer, err error) {
	var version int
	var mediaType string
	if err := next(d, json.Delim('{')); err != nil {
		return nil, err
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, err
		}
		switch key {
		case "schemaVersion":
			err = d.Decode(&version)
		case "mediaType":
			err = d.Decode(&mediaType)
		case "layers":
			found, err = findLayer(d, file)
		default:
			err = d.Decode(new(json.RawMessage))
		}
		if err != nil {
			return nil, err
		}
	}
	if err := next(d, json.Delim('}')); err != nil {
		return nil, err
	}
	if version != 2 || mediaType != "" && mediaType != MediaType {
		return nil, fmt.Errorf("version %d of type %.100q is no OCI image manifest", version, mediaType)
	}
	return found, nil
}

// findLayer reads all layers.
func findLayer(d *json.Decoder, file string) (found *layer, err error) {
	if err := next(d, json.Delim('[')); err != nil {
		return nil, err
	}
	for d.More() {
		var l layer
		if err := d.Decode(&l); err != nil {
			return nil, err
		}
		if found == nil && l.Annotations.Title == file {
			found = &l
		}
	}
	return found, next(d, json.Delim(']'))
}

func next(d *json.Decoder, want json.Delim) error {
	got, err := d.Token()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err == nil && got != want {
		err = fmt.Errorf("found %.100q, want %s", fmt.Sprint(got), want)
	}
	return err
}
