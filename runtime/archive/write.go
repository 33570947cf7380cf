package archive

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/runtime/image"
)

// An Item is an image to write, with the names it is to have.
type Item struct {
	Image *image.Image
	Names []string // whole names, "registry/repository:tag"
}

// sink is a directory or a tar archive being written.
type sink interface {
	file(name string, size int64, r io.Reader) error
}

// WriteTar writes images as one archive. blob opens compressed layers. The same images give the same bytes.
func WriteTar(w io.Writer, items []Item, blob func(image.Digest) (*os.File, error)) error {
	tw := tar.NewWriter(w)
	if err := write(tarSink{tw}, items, blob); err != nil {
		return fmt.Errorf("write archive: %w", err)
	}
	return tw.Close()
}

// WriteDir writes images as an OCI layout into an empty directory.
func WriteDir(dir string, items []Item, blob func(image.Digest) (*os.File, error)) error {
	if err := os.MkdirAll(filepath.Join(dir, "blobs/sha256"), 0o755); err != nil {
		return fmt.Errorf("write layout: %w", err)
	}
	if err := write(dirSink(dir), items, blob); err != nil {
		return fmt.Errorf("write layout: %w", err)
	}
	return nil
}

type dockerEntry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func write(s sink, items []Item, blob func(image.Digest) (*os.File, error)) error {
	put := func(name string, b []byte) error { return s.file(name, int64(len(b)), bytes.NewReader(b)) }
	if err := put("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	x := index{SchemaVersion: 2, MediaType: indexType}
	var docker []dockerEntry
	done := make(map[image.Digest]bool)
	for _, it := range items {
		ds, e, err := writeImage(s, it, blob, done)
		if err != nil {
			return err
		}
		x.Manifests, docker = append(x.Manifests, ds...), append(docker, e)
	}
	for _, f := range []struct {
		name string
		v    any
	}{{"index.json", x}, {"manifest.json", docker}} {
		b, err := json.Marshal(f.v)
		if err != nil {
			return err
		}
		if err := put(f.name, b); err != nil {
			return err
		}
	}
	return nil
}

func blobName(d image.Digest) string { return "blobs/sha256/" + d.Hex() }

// writeImage writes the manifest for this machine, its configuration and its layers, and returns their entries.
func writeImage(s sink, it Item, blob func(image.Digest) (*os.File, error), done map[image.Digest]bool) ([]image.Descriptor, dockerEntry, error) {
	var mediaType string
	var size int64
	var config image.Digest
	for _, doc := range it.Image.Docs {
		if doc.Digest == it.Image.Top && it.Image.Top != it.Image.Digest {
			continue // the index names images that are not here
		}
		if doc.Digest == it.Image.Digest {
			var m struct {
				MediaType string           `json:"mediaType"`
				Config    image.Descriptor `json:"config"`
			}
			if err := json.Unmarshal(doc.Data, &m); err != nil {
				return nil, dockerEntry{}, err
			}
			if mediaType, config, size = m.MediaType, m.Config.Digest, int64(len(doc.Data)); mediaType == "" {
				mediaType = manifestType
			}
		}
		if done[doc.Digest] {
			continue
		}
		done[doc.Digest] = true
		if err := s.file(blobName(doc.Digest), int64(len(doc.Data)), bytes.NewReader(doc.Data)); err != nil {
			return nil, dockerEntry{}, err
		}
	}
	e := dockerEntry{Config: blobName(config), RepoTags: it.Names, Layers: []string{}}
	for _, l := range it.Image.Layers {
		e.Layers = append(e.Layers, blobName(l.Digest))
		if done[l.Digest] {
			continue
		}
		done[l.Digest] = true
		if err := writeLayer(s, l, blob); err != nil {
			return nil, dockerEntry{}, err
		}
	}
	d := image.Descriptor{MediaType: mediaType, Digest: it.Image.Digest, Size: size}
	if len(it.Names) == 0 {
		return []image.Descriptor{d}, e, nil
	}
	var ds []image.Descriptor
	for _, n := range it.Names {
		d.Annotations = map[string]string{containerName: n, refName: n}
		ds = append(ds, d)
	}
	return ds, e, nil
}

// writeLayer copies a layer and compares its digest on the way.
func writeLayer(s sink, l image.Descriptor, blob func(image.Digest) (*os.File, error)) error {
	f, err := blob(l.Digest)
	if err != nil {
		return fmt.Errorf("layer %s: %w", l.Digest, err)
	}
	defer f.Close()
	if err := s.file(blobName(l.Digest), l.Size, digest.NewReader("layer "+l.Digest.String(), f, l.Size, digest.SHA256(l.Digest))); err != nil {
		return err
	}
	return nil
}

type tarSink struct{ w *tar.Writer }

func (t tarSink) file(name string, size int64, r io.Reader) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0)}
	if err := t.w.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.Copy(t.w, r)
	return err
}

type dirSink string

func (d dirSink) file(name string, _ int64, r io.Reader) error {
	f, err := os.OpenFile(filepath.Join(string(d), name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, r); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
