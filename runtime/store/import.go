package store

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/durable"
	"github.com/proa-os/proa/runtime/image"
	"github.com/proa-os/proa/runtime/layer"
	"github.com/proa-os/proa/runtime/ref"
	"github.com/proa-os/proa/runtime/trust"
)

const (
	maxEntries  = 2_000_000 // of one layer
	fetchJobs   = 4         // layers fetched at a time
	largeWindow = 16 << 20  // zstd: decoders that need more memory go one at a time
)

// A Source delivers what an image is made of. Nothing it delivers is trusted.
type Source interface {
	// CopyBlob writes a blob to w from offset on.
	CopyBlob(ctx context.Context, d image.Descriptor, offset int64, w io.Writer) error
}

// An Event is progress of one layer, in bytes.
type Event struct {
	Layer image.Digest
	Done  int64 // of the blob
	Total int64
	State State
}

// A State is how far a layer is.
type State int

// States of a layer.
const (
	Waiting  State = iota
	Fetching       // bytes come
	Ready          // verified
	Unpacked
	Present // it was there before
)

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

// job is one layer to fetch and unpack.
type job struct {
	blob image.Descriptor
	diff image.Digest
	file *os.File // partial/<digest>, held
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

// locked makes report callable by all goroutines.
func locked(report func(Event)) func(Event) {
	if report == nil {
		return func(Event) {}
	}
	var mu sync.Mutex
	return func(e Event) {
		mu.Lock()
		defer mu.Unlock()
		report(e)
	}
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

func (s *Store) partial(d image.Digest) string { return s.path("partial", d.Hex()) }

// hold opens the file of a blob that is being fetched and waits until no other process has it.
func (s *Store) hold(ctx context.Context, d image.Digest) (*os.File, error) {
	f, err := os.OpenFile(s.partial(d), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			// Another one has finished with it and removed the name: what counts is the file of that name.
			if named(f, s.partial(d)) {
				return f, nil
			}
			f.Close()
			return s.hold(ctx, d)
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			f.Close()
			return nil, err
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// named reports whether the open file still has the name.
func named(f *os.File, name string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(name)
	return err == nil && os.SameFile(a, b)
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

// receive brings the blob whole and verified into its file, after what an earlier pull has left there. An empty file stays for
// nobody.
func (i *importing) receive(ctx context.Context, j job) error {
	err := i.receiveVerified(ctx, j)
	if err != nil {
		if st, serr := j.file.Stat(); serr == nil && st.Size() == 0 {
			err = errors.Join(err, os.Remove(i.s.partial(j.blob.Digest)))
		}
	}
	return err
}

func (i *importing) receiveVerified(ctx context.Context, j job) error {
	st, err := j.file.Stat()
	if err != nil {
		return err
	}
	err = i.receiveFrom(ctx, j, st.Size())
	var wrong *digest.MismatchError
	if errors.As(err, &wrong) {
		resumed := st.Size() > 0
		if err := j.file.Truncate(0); err != nil {
			return err
		}
		if resumed { // a power cut may have left anything in the file
			err = i.receiveFrom(ctx, j, 0)
		}
		if err != nil {
			j.file.Truncate(0)
		}
	}
	return err
}

// receiveFrom keeps the first bytes of the file, hashes them, and fetches the rest.
func (i *importing) receiveFrom(ctx context.Context, j job, have int64) error {
	in := &intake{file: j.file, sum: sha256.New(), total: j.blob.Size, event: Event{Layer: j.blob.Digest, Total: j.blob.Size, State: Fetching}, report: i.report}
	if have > j.blob.Size {
		have = 0
	}
	if err := j.file.Truncate(have); err != nil {
		return err
	}
	if _, err := j.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{in.sum}, &contextReader{ctx, j.file}, make([]byte, 256<<10)); err != nil {
		return err
	}
	in.event.Done = have
	if have < j.blob.Size || j.blob.Size == 0 {
		if err := i.src.CopyBlob(ctx, j.blob, have, in); err != nil {
			return err
		}
	}
	if got := digest.SHA256(in.sum.Sum(nil)); got != digest.SHA256(j.blob.Digest) || in.event.Done != j.blob.Size {
		return &digest.MismatchError{Name: "blob", WantSize: j.blob.Size, GotSize: in.event.Done, WantSum: digest.SHA256(j.blob.Digest), GotSum: got}
	}
	return nil
}

// limits lets an image fill at most nine tenths of what is free.
func (s *Store) limits() (layer.Limits, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(s.dir, &st); err != nil {
		return layer.Limits{}, err
	}
	return layer.Limits{Bytes: int64(st.Bavail) * st.Bsize / 10 * 9, Entries: maxEntries, Taken: new(atomic.Int64)}, nil
}

// unpackLayer makes a tree from a verified blob.
func (i *importing) unpackLayer(ctx context.Context, j job) (string, error) {
	tree := filepath.Join(i.dir, j.diff.Hex())
	if err := os.Mkdir(tree, 0o755); err != nil {
		return "", err
	}
	if _, err := j.file.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	blob := bufio.NewReaderSize(&contextReader{ctx, j.file}, 256<<10)
	if layer.Window(blob) > largeWindow {
		release, err := slot(ctx, i.large)
		if err != nil {
			return "", err
		}
		defer release()
	}
	return tree, apply(tree, blob, j.diff, i.limits)
}

// apply unpacks a blob into tree and compares the digest of what was unpacked.
func apply(tree string, blob *bufio.Reader, diff image.Digest, limits layer.Limits) error {
	fd, err := unix.Open(tree, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	plain, err := layer.Decompress(blob)
	if err != nil {
		return err
	}
	defer plain.Close()
	sum := sha256.New()
	in := bufio.NewReaderSize(io.TeeReader(plain, sum), 256<<10)
	if err := layer.Apply(fd, in, layer.Options{Limits: limits, Unprivileged: os.Geteuid() != 0}); err != nil {
		return err
	}
	if got := image.Digest(sum.Sum(nil)); got != diff {
		return fmt.Errorf("expected diffID %s, found %s", diff, got)
	}
	n, err := io.Copy(io.Discard, blob)
	if err == nil && n > 0 {
		err = fmt.Errorf("%d bytes behind the compressed archive", n)
	}
	return err
}

// publish renames the finished trees into place, once everything in them is on disk.
func (i *importing) publish() error {
	if len(i.done) == 0 {
		return nil
	}
	f, err := os.Open(i.dir)
	if err != nil {
		return err
	}
	err = unix.Syncfs(int(f.Fd()))
	f.Close()
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	for diff, tree := range i.done {
		err := unix.Renameat2(unix.AT_FDCWD, tree, unix.AT_FDCWD, i.s.LayerDir(diff), unix.RENAME_NOREPLACE)
		if err != nil && !errors.Is(err, os.ErrExist) { // the same layer compressed in another way
			return fmt.Errorf("publish layer: %w", err)
		}
	}
	return syncDir(i.s.path("layers"))
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
