package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/runtime/image"
)

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

// intake is where a blob arrives: it hashes and writes, and takes no byte more than was promised.
type intake struct {
	file   *os.File
	sum    hash.Hash
	total  int64
	event  Event
	report func(Event)
}

func (i *intake) Write(p []byte) (int, error) {
	if int64(len(p)) > i.total-i.event.Done {
		return 0, &digest.MismatchError{Name: "blob", WantSize: i.total, GotSize: i.event.Done + int64(len(p)), WantSum: digest.SHA256(i.event.Layer)}
	}
	i.sum.Write(p)
	n, err := i.file.Write(p)
	i.event.Done += int64(n)
	i.report(i.event)
	return n, err
}
