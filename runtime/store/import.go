package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/proa-os/proa/internal/durable"
	"github.com/proa-os/proa/runtime/image"
	"github.com/proa-os/proa/runtime/layer"
	"github.com/proa-os/proa/runtime/ref"
	"github.com/proa-os/proa/runtime/trust"
)

const fetchJobs = 4 // layers fetched at a time

// A Source delivers what an image is made of. Nothing it delivers is trusted.
type Source interface {
	// CopyBlob writes a blob to w from offset on.
	CopyBlob(ctx context.Context, d image.Descriptor, offset int64, w io.Writer) error
}

// An importing is one image on its way into the store.
type importing struct {
	s      *Store
	src    Source
	dir    string // tmp/import-<random>
	report func(Event)
	limits layer.Limits
	keep   bool          // blobs
	fetch  chan struct{} // slots
	unpack chan struct{}
	large  chan struct{}
	mu     sync.Mutex
	done   map[image.Digest]string // diffID to its finished tree
}

// Import gets the layers of a resolved image from src, unpacks them, and gives the image the name r. A blob is written to a file
// of ours while it is hashed; only when size and digest are right is it unpacked, and the diffID is compared at the end. Layers are
// fetched and unpacked at the same time as others. The caller does not hold the lock. report may be nil; it is called
// by one goroutine at a time.
//
// The verdict is the trust policy's on this image under this name; without it nothing is even fetched.
//
// With keep the compressed layers stay in blobs/, for save and push.
func (s *Store) Import(ctx context.Context, src Source, img *image.Image, r ref.Ref, v trust.Verdict, keep bool, report func(Event)) (*Record, error) {
	if !v.Covers(r, img) {
		return nil, fmt.Errorf("import %s: the trust policy was not asked about %s under this name", r, img.Top)
	}
	if want, ok := r.Digest(); ok && want != img.Top {
		return nil, fmt.Errorf("import %s: the image is %s", r, img.Top)
	}
	dir, release, err := s.claim(img)
	if err != nil {
		return nil, fmt.Errorf("import %s: %w", r, err)
	}
	defer release()
	i := &importing{s: s, src: src, dir: dir, keep: keep, report: locked(report), done: make(map[image.Digest]string),
		fetch: make(chan struct{}, fetchJobs), unpack: make(chan struct{}, min(runtime.GOMAXPROCS(0), fetchJobs)), large: make(chan struct{}, 1)}
	if i.limits, err = s.limits(); err == nil {
		err = i.layers(ctx, img)
	}
	if err != nil {
		return nil, fmt.Errorf("import %s: %w", r, err)
	}
	for _, l := range img.Layers {
		if keep && !s.HasBlob(l) { // its content was here already
			if err := i.keepBlob(ctx, l); err != nil {
				return nil, fmt.Errorf("import %s: layer %s: %w", r, l.Digest, err)
			}
		}
	}
	unlock, err := s.Lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	rec, err := s.record(img, r, v)
	if err != nil {
		return nil, fmt.Errorf("import %s: %w", r, err)
	}
	return rec, nil
}

// record writes the documents and the name of an image all of whose layers are there.
func (s *Store) record(img *image.Image, r ref.Ref, v trust.Verdict) (*Record, error) {
	for _, d := range img.Docs {
		if err := durable.WritePath(s.blob(d.Digest), d.Data, 0o600); err != nil {
			return nil, err
		}
	}
	rec := &Record{Name: r.String(), Digest: img.Digest, Top: img.Top, Size: img.Size(), Signer: v.Signer(), Pulled: time.Now().UTC().Truncate(time.Second)}
	return rec, s.write(rec)
}

func (s *Store) write(rec *Record) error {
	b, err := json.MarshalIndent(rec, "", "  ")
	if err != nil {
		return err
	}
	return durable.WritePath(s.recordPath(rec.Name), append(b, '\n'), 0o600)
}

// layers brings all layers of the image into the store.
func (i *importing) layers(ctx context.Context, img *image.Image) error {
	jobs, err := i.jobs(ctx, img)
	defer func() {
		for _, j := range jobs {
			j.file.Close()
		}
	}()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, j := range jobs {
		wg.Go(func() {
			if err := i.layer(ctx, j); err != nil {
				cancel(fmt.Errorf("layer %s: %w", j.blob.Digest, err))
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return err // what was verified stays in partial
	}
	if err := i.finish(jobs); err != nil {
		return err
	}
	if err := i.publish(); err != nil {
		return err
	}
	for _, j := range jobs {
		if err := os.Remove(i.s.partial(j.blob.Digest)); err != nil {
			return err
		}
	}
	return nil
}

func (i *importing) layer(ctx context.Context, j job) error {
	release, err := slot(ctx, i.fetch)
	if err != nil {
		return err
	}
	err = i.receive(ctx, j)
	release()
	if err != nil {
		return err
	}
	i.report(Event{j.blob.Digest, j.blob.Size, j.blob.Size, Ready})
	if release, err = slot(ctx, i.unpack); err != nil {
		return err
	}
	defer release()
	tree, err := i.unpackLayer(ctx, j)
	if err != nil {
		return err
	}
	i.report(Event{j.blob.Digest, j.blob.Size, j.blob.Size, Unpacked})
	i.mu.Lock()
	defer i.mu.Unlock()
	i.done[j.diff] = tree
	return nil
}

// finish keeps the blobs, or empties them before the sync, so that their pages need not reach the disk. Their names in partial go when the
// layers are there: until then another pull that wants one is to find that it is held.
func (i *importing) finish(jobs []job) error {
	for _, j := range jobs {
		if !i.keep {
			if err := j.file.Truncate(0); err != nil {
				return err
			}
			continue
		}
		blob := i.s.blob(j.blob.Digest)
		if err := os.Remove(blob); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err // what there is may be damaged, and this was verified
		}
		if err := os.Link(i.s.partial(j.blob.Digest), blob); err != nil {
			return err
		}
	}
	return nil
}
