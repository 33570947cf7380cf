package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/proa-os/proa/internal/digest"
	"github.com/proa-os/proa/internal/release"
	"github.com/proa-os/proa/internal/slot"
	"github.com/proa-os/proa/internal/verity"
	"github.com/proa-os/proa/update-engine/match"
	"github.com/proa-os/proa/update-engine/payload"
)

// A writer is the payload.Sink that fills a slot and the ESP.
type writer struct {
	*Installer
	ctx     context.Context
	release *release.Release
	delta   bool
	total   int64 // bytes of both outputs
	before  int64 // bytes of the outputs that are complete
	report  Written

	program File // the boot program under its temporary name, while it is open
	out     *sparing
	output  payload.Output // that is being written
}

// Begin implements payload.Sink.
func (w *writer) Begin(o payload.Output) (io.WriterAt, error) {
	w.output = o
	if w.before > 0 && w.report.Resumed.Kind != o.Kind {
		w.tell(Write, w.before, w.total) // before memory is taken for it
	}
	f := w.Slot
	if o.Kind == payload.BootProgram {
		if err := w.begin(); err != nil {
			return nil, err
		}
		f = w.program
	}
	w.out = &sparing{f: f, size: o.Size, report: &w.report}
	return w.out, nil
}

// begin creates the boot program, unless standing has found an unfinished one.
func (w *writer) begin() error {
	if w.program != nil {
		return nil
	}
	f, err := w.Boot.Create(slot.Temporary(w.release.Version))
	if err != nil {
		return onDisk("create boot program: %w", err)
	}
	w.program = f
	return nil
}

// sources adds what is in this machine's hands.
func (w *writer) sources(s payload.Sources) payload.Sources {
	s.NewRoot = io.NewSectionReader(w.Slot, 0, w.release.Root.HashOffset)
	return s
}

// Checkpoint implements payload.Sink. It syncs before the next segment could put more than Unsynced bytes at stake.
func (w *writer) Checkpoint(m payload.Mark) error {
	w.tell(Write, w.before+m.Written, w.total)
	limit, next := w.Unsynced, int64(0)
	if limit == 0 {
		limit = Unsynced
	}
	if m.Segment < len(w.output.Segments) {
		next = w.output.Segments[m.Segment].Length
	}
	if w.out.unsynced+next > limit {
		if err := w.out.Sync(); err != nil {
			return onDisk("sync %s: %w", w.output.Kind, err)
		}
	}
	return w.ctx.Err()
}

func (w *writer) tell(s Stage, done, total int64) {
	if w.Progress != nil {
		w.Progress(s, done, total)
	}
}

// Complete implements payload.Sink.
func (w *writer) Complete(o payload.Output) error {
	w.before += o.Size
	if o.Kind == payload.RootImage {
		return w.completeRoot(o)
	}
	return w.completeBoot(o)
}

// completeRoot builds the tree from what the disk gives back and writes it if it is the signed one.
func (w *writer) completeRoot(o payload.Output) error {
	if err := w.Slot.Sync(); err != nil {
		return onDisk("sync slot: %w", err)
	}
	salt, err := match.Salt(w.release)
	if err != nil {
		return &BadRelease{w.release.Version, err.Error()}
	}
	size, err := verity.TreeSize(o.Size)
	if err != nil {
		return &BadRelease{w.release.Version, err.Error()}
	}
	if o.Size+size != w.release.Root.Size {
		return &BadRelease{w.release.Version, fmt.Sprintf("root image with its tree has %d bytes, release.json says %d", o.Size+size, w.release.Root.Size)}
	}
	tree := &buffer{b: make([]byte, size)} // 8 MiB for a root image of 1 GiB
	root, _, err := verity.Build(&watched{cancelled: cancelled{w.ctx, w.Slot}, w: w, total: o.Size}, o.Size, salt, treeUUID(salt), tree)
	if w.ctx.Err() != nil {
		return w.ctx.Err()
	}
	if err != nil {
		return onDisk("read back root image: %w", err)
	}
	if root != w.release.Root.RootHash {
		return w.blame(o, root)
	}
	return w.writeTree(tree.b, o.Size)
}

// writeTree writes the verity tree behind the root image and reads it back.
func (w *writer) writeTree(tree []byte, off int64) error {
	out := &sparing{f: w.Slot, size: off + int64(len(tree)), report: &w.report}
	if _, err := out.WriteAt(tree, off); err != nil {
		return onDisk("write verity tree: %w", err)
	}
	if err := w.Slot.Sync(); err != nil {
		return onDisk("sync slot: %w", err)
	}
	back := make([]byte, chunk)
	for done := 0; done < len(tree); {
		n := min(len(back), len(tree)-done)
		if _, err := io.ReadFull(io.NewSectionReader(w.Slot, off+int64(done), int64(n)), back[:n]); err != nil {
			return onDisk("read back verity tree: %w", err)
		}
		if !bytes.Equal(back[:n], tree[done:done+n]) {
			return onDisk("the disk does not give back the verity tree that was written: it may be failing")
		}
		done += n
	}
	return nil
}

// treeUUID is a name for the tree that follows from its content; the kernel and init do not look at it.
func treeUUID(salt [32]byte) [16]byte { return [16]byte(salt[:16]) }

// blame finds out whether the disk or the release is at fault when the rebuilt tree has another root hash. Every segment was
// compared with its hash before it was written, so the disk is if it does not give that back, unless a delta's source did not give what
// was to be copied: the full payload tells.
func (w *writer) blame(o payload.Output, root digest.SHA256) error {
	in := digest.NewReader("root image in the passive slot", io.NewSectionReader(w.Slot, 0, o.Size), o.Size, o.SHA256)
	if _, err := io.Copy(io.Discard, in); err != nil && w.delta {
		return fmt.Errorf("the delta has not made the root image, its source or the disk may be failing: %w", err)
	} else if err != nil {
		return onDisk("the disk does not give back what was written, it may be failing: %w", err)
	}
	return &BadRelease{w.release.Version, fmt.Sprintf("its root image has root hash %s, release.json says %s", root, w.release.Root.RootHash)}
}

// completeBoot reads the boot program back and compares it with the release.
func (w *writer) completeBoot(o payload.Output) error {
	err := errors.Join(w.program.Sync(), w.program.Close())
	w.program = nil
	if err != nil {
		return onDisk("sync boot program: %w", err)
	}
	f, err := w.Boot.Open(slot.Temporary(w.release.Version))
	if err != nil {
		return onDisk("read back boot program: %w", err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return onDisk("read back boot program: %w", err)
	}
	in := digest.NewReader("boot program on the ESP", io.NewSectionReader(f, 0, size), o.Size, o.SHA256)
	if _, err := io.Copy(io.Discard, in); err != nil {
		return onDisk("the disk does not give back what was written, it may be failing: %w", err)
	}
	if err := match.BootProgram(f, w.release); err != nil {
		return &BadRelease{w.release.Version, "boot program: " + err.Error()}
	}
	return nil
}

// close ends what is open. The unfinished boot program stays for the next installation, which goes on with it or removes it.
func (w *writer) close() {
	if w.program != nil {
		_ = w.program.Close() // what was not synced is not relied on
	}
}

// buffer is a fixed piece of memory as an io.WriterAt.
type buffer struct{ b []byte }

func (b *buffer) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > int64(len(b.b)) {
		return 0, io.ErrShortWrite
	}
	return copy(b.b[off:], p), nil
}

// cancelled lets a context end a long read.
type cancelled struct {
	ctx context.Context
	r   io.ReaderAt
}

func (c cancelled) ReadAt(p []byte, off int64) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.ReadAt(p, off)
}

// watched tells how far the verification is. Its reads come from two goroutines.
type watched struct {
	cancelled
	w     *writer
	mu    sync.Mutex
	done  int64
	total int64
}

func (r *watched) ReadAt(p []byte, off int64) (int, error) {
	n, err := r.cancelled.ReadAt(p, off)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done += int64(n)
	r.w.tell(Verify, r.done, r.total)
	return n, err
}
