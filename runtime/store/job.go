package store

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/proa-os/proa/runtime/image"
)

// job is one layer to fetch and unpack.
type job struct {
	blob image.Descriptor
	diff image.Digest
	file *os.File // partial/<digest>, held
}

// jobs finds out which layers are missing and takes hold of their blobs, in the order of digests, so that pulls that share
// layers wait for each other and never in a circle. The order of the result is large ones first.
func (i *importing) jobs(ctx context.Context, img *image.Image) (jobs []job, err error) {
	byDigest, diffs := make(map[image.Digest]job), make(map[image.Digest]bool)
	for n, l := range img.Layers {
		diff := img.Config.RootFS.DiffIDs[n]
		if i.s.HasLayer(diff) {
			i.report(Event{Layer: l.Digest, Done: l.Size, Total: l.Size, State: Present})
			continue
		}
		if other, ok := byDigest[l.Digest]; ok && (other.diff != diff || other.blob.Size != l.Size) {
			return nil, fmt.Errorf("layer %s: stands there twice with different sizes or diffIDs", l.Digest)
		}
		if !diffs[diff] { // else the same content, compressed in another way
			byDigest[l.Digest] = job{blob: l, diff: diff}
		}
		diffs[diff] = true
	}
	if err := i.room(byDigest); err != nil {
		return nil, err
	}
	keys := make([]image.Digest, 0, len(byDigest))
	for d := range byDigest {
		keys = append(keys, d)
	}
	slices.SortFunc(keys, func(a, b image.Digest) int { return slices.Compare(a[:], b[:]) })
	for _, d := range keys {
		j := byDigest[d]
		i.report(Event{Layer: d, Total: j.blob.Size, State: Waiting})
		if j.file, err = i.s.hold(ctx, d); err != nil {
			return jobs, fmt.Errorf("layer %s: %w", d, err)
		}
		if i.s.HasLayer(j.diff) { // another pull has brought it meanwhile
			err := os.Remove(i.s.partial(d)) // hold may have made it
			j.file.Close()
			if err != nil {
				return jobs, err
			}
			i.report(Event{Layer: d, Done: j.blob.Size, Total: j.blob.Size, State: Present})
			continue
		}
		jobs = append(jobs, j)
	}
	slices.SortStableFunc(jobs, func(a, b job) int { return int(min(max(b.blob.Size-a.blob.Size, -1), 1)) })
	return jobs, nil
}

// room says at once what would otherwise be said when the disk is full.
func (i *importing) room(jobs map[image.Digest]job) error {
	left := i.limits.Bytes
	var need int64
	for _, j := range jobs {
		if need += j.blob.Size; j.blob.Size > left || need > left {
			return fmt.Errorf("the compressed layers need more than the %d bytes that are free on the disk: containerctl gc, or rmi what is not needed", left)
		}
	}
	return nil
}

// slot takes one of the slots, or says why not.
func slot(ctx context.Context, slots chan struct{}) (release func(), err error) {
	select {
	case slots <- struct{}{}:
		return func() { <-slots }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
