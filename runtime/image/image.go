// Package image reads what an image is: the manifest, chosen from an index where there is one, and its configuration.
//
// Both sides of a pull use it: the fetcher to learn what to fetch, and root to learn, from bytes it has verified itself,
// what to unpack. Resolve hands out nothing whose digest it has not compared.
//
// Subset: OCI image-spec 1.1 and the same documents with Docker's media types (schema 2); sha256 digests; images for Linux
// and this machine's architecture. Refused: schema 1, indexes in indexes, documents that are both index and manifest
// (CVE-2021-41190), layers that are encrypted or to be fetched from elsewhere, more than 127 layers.
package image

import (
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/proa-os/proa/internal/digest"
)

// Limits for documents, in bytes, and layers.
const (
	maxDocument = 4 << 20
	maxLayers   = 127
)

// A Digest is a sha256 sum, in JSON and for people "sha256:<64 hexadecimal digits>".
type Digest digest.SHA256

// ParseDigest reads "sha256:...".
func ParseDigest(s string) (Digest, error) {
	hex, ok := strings.CutPrefix(s, "sha256:")
	if !ok {
		return Digest{}, fmt.Errorf("digest %q: want sha256:<64 digits>", s)
	}
	d, err := digest.Parse(hex)
	return Digest(d), err
}

func (d Digest) String() string { return "sha256:" + d.Hex() }

// Hex returns the digits only, the file name in a store.
func (d Digest) Hex() string { return digest.SHA256(d).String() }

// MarshalText makes d a string in JSON.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (d *Digest) UnmarshalText(b []byte) error {
	v, err := ParseDigest(string(b))
	if err == nil {
		*d = v
	}
	return err
}

// A Descriptor points at a blob (image-spec descriptor.md).
type Descriptor struct {
	MediaType string    `json:"mediaType"`
	Digest    Digest    `json:"digest"`
	Size      int64     `json:"size"` // bytes
	Platform  *Platform `json:"platform,omitempty"`
	URLs      []string  `json:"urls,omitempty"`

	ArtifactType string            `json:"artifactType,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
}

// zstdAnnotation marks, in an index, the variant of an image whose layers are zstd: containers/image's name for it.
const zstdAnnotation = "io.github.containers.compression.zstd"

// A Platform is what an image runs on.
type Platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Variant      string `json:"variant,omitempty"`
}

func (p Platform) String() string {
	return strings.TrimSuffix(p.OS+"/"+p.Architecture+"/"+p.Variant, "/")
}

// Config is the image configuration (image-spec config.md), with Docker's health check.
type Config struct {
	Platform
	Created *time.Time `json:"created,omitempty"`
	Config  struct {
		User         string
		Env          []string
		Entrypoint   []string
		Cmd          []string
		WorkingDir   string
		StopSignal   string
		Labels       map[string]string
		Volumes      map[string]struct{}
		ExposedPorts map[string]struct{} // 80/tcp; without a protocol it is tcp
		Healthcheck  *Healthcheck
	} `json:"config"`
	RootFS struct {
		DiffIDs []Digest `json:"diff_ids"`
	} `json:"rootfs"`
}

// Healthcheck is HEALTHCHECK of a Dockerfile; durations are nanoseconds.
type Healthcheck struct {
	Test        []string // NONE, or CMD and the program, or CMD-SHELL and a command line
	Interval    time.Duration
	Timeout     time.Duration
	Retries     int
	StartPeriod time.Duration
}

// An Image is one image for this machine, verified.
type Image struct {
	Digest Digest       // of the manifest; of the index where that was asked for see Top
	Top    Digest       // what the name stood for
	Layers []Descriptor // of the blobs, lowest first; their diffIDs are Config.RootFS.DiffIDs
	Config Config
	Docs   []Doc // index, manifest and configuration as they were read
}

// A Doc is one of the documents of an image.
type Doc struct {
	Digest Digest
	Data   []byte
}

// Size returns the bytes of all layers as they are fetched.
func (i *Image) Size() int64 {
	var n int64
	for _, l := range i.Layers {
		n += l.Size
	}
	return n
}

// Get reads a document. d.Size is -1 where it is not known; the reader must stop at maxDocument by itself then.
type Get func(d Descriptor) ([]byte, error)

// document holds the fields of an index and of a manifest.
type document struct {
	SchemaVersion int          `json:"schemaVersion"`
	Manifests     []Descriptor `json:"manifests"`
	Config        *Descriptor  `json:"config"`
	Layers        []Descriptor `json:"layers"`
}

// Resolve reads the image for this machine that top stands for.
func Resolve(top Digest, get Get) (*Image, error) {
	return resolve(top, get, Platform{OS: "linux", Architecture: runtime.GOARCH})
}

func resolve(top Digest, get Get, want Platform) (*Image, error) {
	img := &Image{Top: top, Digest: top}
	doc, err := img.document(Descriptor{Digest: top, Size: -1}, get)
	if err != nil {
		return nil, err
	}
	if doc.Manifests != nil {
		d, err := choose(doc.Manifests, want)
		if err != nil {
			return nil, fmt.Errorf("index %s: %w", top, err)
		}
		if doc, err = img.document(d, get); err != nil {
			return nil, err
		}
		if doc.Manifests != nil {
			return nil, fmt.Errorf("index %s: holds the index %s: indexes in indexes are not supported", top, d.Digest)
		}
		img.Digest = d.Digest
	}
	if err := img.manifest(doc, get, want); err != nil {
		return nil, fmt.Errorf("manifest %s: %w", img.Digest, err)
	}
	return img, nil
}

// read gets a document, verifies it and keeps it.
func (i *Image) read(d Descriptor, get Get) ([]byte, error) {
	if d.Size > maxDocument {
		return nil, fmt.Errorf("document %s: %d bytes, at most %d", d.Digest, d.Size, maxDocument)
	}
	b, err := get(d)
	if err != nil {
		return nil, err
	}
	size := d.Size
	if size < 0 {
		size = int64(len(b))
	}
	if got := Digest(digest.Of(b)); got != d.Digest || size != int64(len(b)) || size > maxDocument {
		return nil, &digest.MismatchError{Name: "document " + d.Digest.String(), WantSize: size, GotSize: int64(len(b)),
			WantSum: digest.SHA256(d.Digest), GotSum: digest.SHA256(got)}
	}
	i.Docs = append(i.Docs, Doc{d.Digest, b})
	return b, nil
}

func (i *Image) document(d Descriptor, get Get) (*document, error) {
	b, err := i.read(d, get)
	if err != nil {
		return nil, err
	}
	var doc document
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, fmt.Errorf("document %s: %w", d.Digest, err)
	}
	if doc.SchemaVersion != 2 {
		return nil, fmt.Errorf("document %s: schema version %d, want 2: the image is too old or no image", d.Digest, doc.SchemaVersion)
	}
	if (doc.Manifests != nil) == (doc.Config != nil || doc.Layers != nil) {
		return nil, fmt.Errorf("document %s: neither an index nor a manifest, or both", d.Digest)
	}
	return &doc, nil
}

// choose takes the first image for the platform, of those without a variant if there is one: a variant may need a
// processor this one is not. Of two that are alike the one with zstd layers counts more: it takes half the processor time.
func choose(list []Descriptor, want Platform) (Descriptor, error) {
	var found *Descriptor
	var have []string
	for i, d := range list {
		if d.Platform == nil {
			continue
		}
		have = append(have, d.Platform.String())
		if d.Platform.OS != want.OS || d.Platform.Architecture != want.Architecture {
			continue
		}
		if found == nil || rank(d) > rank(*found) {
			found = &list[i]
		}
	}
	if found == nil {
		return Descriptor{}, fmt.Errorf("no image for %s, only for %s", want, strings.Join(have, ", "))
	}
	return *found, nil
}

func rank(d Descriptor) int {
	n := 0
	if d.Platform.Variant == "" {
		n += 2
	}
	if d.Annotations[zstdAnnotation] == "true" {
		n++
	}
	return n
}

func (i *Image) manifest(doc *document, get Get, want Platform) error {
	if doc.Config == nil {
		return fmt.Errorf("no configuration")
	}
	if len(doc.Layers) > maxLayers {
		return fmt.Errorf("%d layers, at most %d", len(doc.Layers), maxLayers)
	}
	for n, l := range doc.Layers {
		switch {
		case len(l.URLs) > 0 || strings.Contains(l.MediaType, "foreign") || strings.Contains(l.MediaType, "nondistributable"):
			return fmt.Errorf("layer %d (%s): is to be fetched from elsewhere, which is not supported", n, l.MediaType)
		case strings.Contains(l.MediaType, "encrypted") || !strings.Contains(l.MediaType, "tar"):
			return fmt.Errorf("layer %d: media type %q is not supported", n, l.MediaType)
		case l.Size < 0:
			return fmt.Errorf("layer %d: size %d", n, l.Size)
		}
	}
	i.Layers = doc.Layers
	b, err := i.read(*doc.Config, get)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &i.Config); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	c := &i.Config
	if c.OS != want.OS || c.Architecture != want.Architecture {
		return fmt.Errorf("the image is for %s, this machine is %s", c.Platform, want)
	}
	if len(c.RootFS.DiffIDs) != len(doc.Layers) {
		return fmt.Errorf("%d layers, but %d diffIDs in the configuration", len(doc.Layers), len(c.RootFS.DiffIDs))
	}
	return nil
}
