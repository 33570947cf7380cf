// Package archive reads and writes images as files: OCI layouts, as a directory or a tar archive, and docker's archives.
//
// What it writes is both at once: an OCI layout (oci-layout, index.json, blobs/) with docker's manifest.json beside it, so
// that docker load, podman load, skopeo (oci-archive, docker-archive) and crane read it. The layers stay as they are compressed, so
// digests and signatures stay as well.
//
// What it reads comes from strangers. An archive is indexed once, by names and places of its regular files; nothing is unpacked
// here. A docker archive has no manifest with digests: one is made from the files, and the diffIDs in its configuration,
// which the image's ID is the digest of, hold when the layers are unpacked.
//
// Subset: image-spec image-layout.md 1.0; docker's manifest.json (image format 1.2 and later) with plain or compressed layers,
// links between layers included. Refused: archives that are compressed as a whole, nested indexes, legacy "repositories" files.
package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/runtime/image"
)

const (
	maxDocument = 8 << 20
	maxFiles    = 100_000
	maxImages   = 1000
)

// Media types of what is made from a docker archive.
const (
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	indexType    = "application/vnd.oci.image.index.v1+json"
	configType   = "application/vnd.oci.image.config.v1+json"
	layerType    = "application/vnd.oci.image.layer.v1.tar"
)

// Annotations with names of images in index.json.
const (
	refName       = "org.opencontainers.image.ref.name"
	containerName = "io.containerd.image.name"
)

// ErrMissing says that the archive has not what was asked for.
var ErrMissing = errors.New("not in the archive")

// An Entry is one image of an archive.
type Entry struct {
	Top   image.Digest
	Names []string // as they stand there, whole names or tags; may be empty
}

// A Reader is an open archive. It is a source for package store and for package trust.
type Reader struct {
	Images []Entry
	open   func(name string) (*io.SectionReader, error) // regular files
	made   map[image.Digest][]byte                      // documents that are not in the archive
	alias  map[image.Digest]string                      // files of a docker archive
	close  func() error
}

// Close closes the archive.
func (r *Reader) Close() error { return r.close() }

// Open opens a directory or an archive.
func Open(name string) (*Reader, error) {
	st, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	r := &Reader{made: make(map[image.Digest][]byte), alias: make(map[image.Digest]string)}
	if st.IsDir() {
		err = r.directory(name)
	} else {
		err = r.tar(name)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	if _, err = r.open("index.json"); err == nil {
		err = r.layout()
	} else if _, merr := r.open("manifest.json"); merr == nil {
		err = r.docker()
	} else {
		err = errors.New("neither index.json (OCI layout) nor manifest.json (docker archive) in it")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read %s: %w", name, err), r.close())
	}
	return r, nil
}

// directory serves files of a directory; links that lead out of it are not followed.
func (r *Reader) directory(name string) error {
	root, err := os.OpenRoot(name)
	if err != nil {
		return err
	}
	var files []*os.File
	r.close = func() error {
		for _, f := range files {
			f.Close()
		}
		return root.Close()
	}
	r.open = func(name string) (*io.SectionReader, error) {
		st, err := root.Stat(name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, ErrMissing)
		}
		if !st.Mode().IsRegular() {
			return nil, fmt.Errorf("%s is no regular file", name)
		}
		f, err := root.Open(name)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
		return io.NewSectionReader(f, 0, st.Size()), nil
	}
	return nil
}

// place is where a file lies in a tar archive, or what it is a link to.
type place struct {
	at, size int64
	link     string
}

// tar finds the files of an archive.
func (r *Reader) tar(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	r.close = f.Close
	files := make(map[string]place)
	tr := tar.NewReader(f)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			f.Close()
			return fmt.Errorf("%w: is it a tar archive, and not compressed?", err)
		}
		if len(files) >= maxFiles || len(h.Name) > 1024 || len(h.Linkname) > 1024 {
			f.Close()
			return errors.New("too many or too long names")
		}
		clean := path.Clean("/" + h.Name)[1:]
		switch h.Typeflag {
		case tar.TypeReg:
			at, err := f.Seek(0, io.SeekCurrent)
			if err != nil {
				f.Close()
				return err
			}
			files[clean] = place{at: at, size: h.Size}
		case tar.TypeSymlink:
			files[clean] = place{link: path.Join("/", path.Dir(clean), h.Linkname)[1:]}
		case tar.TypeLink:
			files[clean] = place{link: path.Clean("/" + h.Linkname)[1:]}
		}
	}
	r.open = func(name string) (*io.SectionReader, error) {
		p, ok := files[path.Clean("/" + name)[1:]]
		if ok && p.link != "" {
			p, ok = files[p.link]
		}
		if !ok || p.link != "" {
			return nil, fmt.Errorf("%s: %w", name, ErrMissing)
		}
		return io.NewSectionReader(f, p.at, p.size), nil
	}
	return nil
}

func (r *Reader) read(name string) ([]byte, error) {
	s, err := r.open(name)
	if err != nil {
		return nil, err
	}
	if s.Size() > maxDocument {
		return nil, fmt.Errorf("%s: %d bytes, at most %d", name, s.Size(), maxDocument)
	}
	return io.ReadAll(s)
}

// index is index.json.
type index struct {
	SchemaVersion int                `json:"schemaVersion"`
	MediaType     string             `json:"mediaType"`
	Manifests     []image.Descriptor `json:"manifests"`
}

// layout reads index.json.
func (r *Reader) layout() error {
	b, err := r.read("index.json")
	if err != nil {
		return err
	}
	var x index
	if err := json.Unmarshal(b, &x); err != nil {
		return fmt.Errorf("index.json: %w", err)
	}
	if len(x.Manifests) > maxImages {
		return fmt.Errorf("index.json: %d images, at most %d", len(x.Manifests), maxImages)
	}
	byDigest := make(map[image.Digest]int)
	for _, m := range x.Manifests {
		n, ok := byDigest[m.Digest]
		if !ok {
			n = len(r.Images)
			byDigest[m.Digest] = n
			r.Images = append(r.Images, Entry{Top: m.Digest})
		}
		for _, key := range []string{containerName, refName} {
			if v := m.Annotations[key]; v != "" {
				r.Images[n].Names = append(r.Images[n].Names, v)
				break
			}
		}
	}
	return nil
}

// docker reads manifest.json and makes a manifest of each image in it.
func (r *Reader) docker() error {
	b, err := r.read("manifest.json")
	if err != nil {
		return err
	}
	var list []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(b, &list); err != nil {
		return fmt.Errorf("manifest.json: %w", err)
	}
	if len(list) > maxImages {
		return fmt.Errorf("manifest.json: %d images, at most %d", len(list), maxImages)
	}
	for _, e := range list {
		config, err := r.read(e.Config)
		if err != nil {
			return fmt.Errorf("manifest.json: %w", err)
		}
		if len(e.Layers) > 127 {
			return fmt.Errorf("manifest.json: %d layers, at most 127", len(e.Layers))
		}
		layers := []image.Descriptor{}
		for _, l := range e.Layers {
			d, err := r.hash(l)
			if err != nil {
				return fmt.Errorf("manifest.json: %w", err)
			}
			layers = append(layers, d)
		}
		c := r.make(config, configType)
		m, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": manifestType, "config": c, "layers": layers})
		if err != nil {
			return err
		}
		r.Images = append(r.Images, Entry{Top: r.make(m, manifestType).Digest, Names: e.RepoTags})
	}
	return nil
}

func (r *Reader) make(b []byte, mediaType string) image.Descriptor {
	d := image.Digest(digest.Of(b))
	r.made[d] = b
	return image.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(b))}
}

// hash finds the digest of a layer of a docker archive. How it is compressed is found out when it is unpacked.
func (r *Reader) hash(name string) (image.Descriptor, error) {
	s, err := r.open(name)
	if err != nil {
		return image.Descriptor{}, err
	}
	sum, n, err := digest.OfReader(s)
	if err != nil {
		return image.Descriptor{}, fmt.Errorf("%s: %w", name, err)
	}
	d := image.Descriptor{MediaType: layerType, Digest: image.Digest(sum), Size: n}
	head := make([]byte, 4)
	n4, _ := s.ReadAt(head, 0)
	switch {
	case bytes.HasPrefix(head[:n4], []byte{0x1f, 0x8b}):
		d.MediaType += "+gzip"
	case bytes.HasPrefix(head[:n4], []byte{0x28, 0xb5, 0x2f, 0xfd}):
		d.MediaType += "+zstd"
	}
	r.alias[d.Digest] = name
	return d, nil
}

func (r *Reader) blob(d image.Digest) (*io.SectionReader, error) {
	if b, ok := r.made[d]; ok {
		return io.NewSectionReader(bytes.NewReader(b), 0, int64(len(b))), nil
	}
	if name, ok := r.alias[d]; ok {
		return r.open(name)
	}
	return r.open("blobs/sha256/" + d.Hex())
}

// Document returns a document. Nothing is verified.
func (r *Reader) Document(_ context.Context, d image.Descriptor) ([]byte, error) {
	s, err := r.blob(d.Digest)
	if err != nil {
		return nil, err
	}
	if s.Size() > maxDocument {
		return nil, fmt.Errorf("document %s: %d bytes, at most %d", d.Digest, s.Size(), maxDocument)
	}
	return io.ReadAll(s)
}

// CopyBlob writes a blob to w from offset on. Nothing is verified.
func (r *Reader) CopyBlob(_ context.Context, d image.Descriptor, offset int64, w io.Writer) error {
	s, err := r.blob(d.Digest)
	if err != nil {
		return err
	}
	if _, err := s.Seek(offset, io.SeekStart); err != nil {
		return err
	}
	_, err = io.CopyBuffer(w, struct{ io.Reader }{s}, make([]byte, 256<<10))
	return err
}

// Manifest returns the document of a name in the archive, for signatures: sha256-<digest>.sig.
func (r *Reader) Manifest(ctx context.Context, identifier string) ([]byte, error) {
	for _, e := range r.Images {
		for _, n := range e.Names {
			if n == identifier || strings.HasSuffix(n, ":"+identifier) {
				return r.Document(ctx, image.Descriptor{Digest: e.Top})
			}
		}
	}
	return nil, fmt.Errorf("%s: %w", identifier, ErrMissing)
}

// Referrers finds nothing: layouts have no list of them.
func (r *Reader) Referrers(context.Context, image.Digest) ([]byte, error) { return nil, ErrMissing }

// IsSignature reports whether an entry is a signature of another one.
func (e Entry) IsSignature() bool {
	for _, n := range e.Names {
		if i := strings.LastIndex(n, "sha256-"); i >= 0 && strings.HasSuffix(n, ".sig") {
			return true
		}
	}
	return false
}
