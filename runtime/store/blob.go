package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/proa-os/proa/runtime/image"
	"github.com/proa-os/proa/runtime/ref"
	"github.com/proa-os/proa/runtime/trust"
)

func (s *Store) blob(d image.Digest) string { return s.path("blobs", "sha256", d.Hex()) }

// HasBlob reports whether the compressed layer is kept.
func (s *Store) HasBlob(d image.Descriptor) bool {
	i, err := os.Stat(s.blob(d.Digest))
	return err == nil && i.Size() == d.Size
}

// KeepBlobs gets the compressed layers of an image that are not here, for save and push. They stay until the image goes, or
// ForgetBlobs.
func (s *Store) KeepBlobs(ctx context.Context, src Source, img *image.Image, report func(Event)) error {
	dir, release, err := s.claim(img)
	if err != nil {
		return err
	}
	defer release()
	i := &importing{s: s, src: src, dir: dir, report: locked(report)}
	for _, l := range img.Layers {
		if s.HasBlob(l) {
			continue
		}
		if err := i.keepBlob(ctx, l); err != nil {
			return fmt.Errorf("layer %s: %w", l.Digest, err)
		}
	}
	return syncDir(s.path("blobs", "sha256"))
}

func (i *importing) keepBlob(ctx context.Context, l image.Descriptor) error {
	f, err := i.s.hold(ctx, l.Digest)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := i.receive(ctx, job{blob: l, file: f}); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return os.Rename(i.s.partial(l.Digest), i.s.blob(l.Digest))
}

// OpenBlob opens a kept compressed layer for reading.
func (s *Store) OpenBlob(d image.Digest) (*os.File, error) { return os.Open(s.blob(d)) }

// ForgetBlobs removes compressed layers, of which the unpacked ones are there. The caller holds the lock.
func (s *Store) ForgetBlobs() error {
	images, err := s.Images()
	if err != nil {
		return err
	}
	for _, r := range images {
		img, err := s.Load(r.Digest)
		if err != nil {
			return err
		}
		for _, l := range img.Layers {
			if err := os.Remove(s.blob(l.Digest)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// ForgetPartial removes what interrupted pulls left to go on with. The caller holds the lock.
func (s *Store) ForgetPartial() error { return s.forgetPartial(time.Now().Add(time.Hour)) }

// Tag gives an image that is here another name, which the policy has agreed to. The caller holds the lock.
func (s *Store) Tag(from *Record, r ref.Ref, v trust.Verdict) error {
	img, err := s.Load(from.Top)
	if err != nil {
		return err
	}
	if want, ok := r.Digest(); ok && want != img.Top {
		return fmt.Errorf("tag %s: the image is %s", r, img.Top)
	}
	if !v.Covers(r, img) {
		return fmt.Errorf("tag %s: the trust policy was not asked about %s under this name", r, img.Top)
	}
	rec := *from
	rec.Name, rec.Signer = r.String(), v.Signer()
	return s.write(&rec)
}

// A Use is how much the store holds.
type Use struct {
	Layers, Blobs, Partial int
}

// Count counts layers, blobs (documents and compressed layers) and interrupted pulls.
func (s *Store) Count() (Use, error) {
	var n [3]int
	for i, dir := range []string{"layers", "blobs/sha256", "partial"} {
		es, err := os.ReadDir(s.path(dir))
		if err != nil {
			return Use{}, err
		}
		n[i] = len(es)
	}
	return Use{n[0], n[1], n[2]}, nil
}
