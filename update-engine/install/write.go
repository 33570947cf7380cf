package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

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
	total   int64 // bytes of both outputs
	before  int64 // bytes of the outputs that are complete

	program File // the boot program under its temporary name, while it is open
}

// Begin implements payload.Sink.
func (w *writer) Begin(o payload.Output) (io.WriterAt, error) {
	if o.Kind == payload.RootImage {
		return w.Slot, nil
	}
	f, err := w.Boot.Create(slot.Temporary(w.release.Version))
	if err != nil {
		return nil, fmt.Errorf("create boot program: %w", err)
	}
	w.program = f
	return f, nil
}

// Checkpoint implements payload.Sink.
func (w *writer) Checkpoint(m payload.Mark) error {
	if w.Progress != nil {
		w.Progress(w.before+m.Written, w.total)
	}
	return w.ctx.Err()
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
		return fmt.Errorf("sync slot: %w", err)
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
	root, _, err := verity.Build(cancelled{w.ctx, w.Slot}, o.Size, salt, treeUUID(salt), tree)
	if err != nil {
		return fmt.Errorf("read back root image: %w", err)
	}
	if root != w.release.Root.RootHash {
		return w.blame(o, root)
	}
	if _, err := w.Slot.WriteAt(tree.b, o.Size); err != nil {
		return fmt.Errorf("write verity tree: %w", err)
	}
	if err := w.Slot.Sync(); err != nil {
		return fmt.Errorf("sync slot: %w", err)
	}
	back := make([]byte, size)
	if _, err := io.ReadFull(io.NewSectionReader(w.Slot, o.Size, size), back); err != nil {
		return fmt.Errorf("read back verity tree: %w", err)
	}
	if !bytes.Equal(back, tree.b) {
		return fmt.Errorf("the disk does not give back the verity tree that was written: it may be failing")
	}
	return nil
}

// treeUUID is a name for the tree that follows from its content; the kernel and init do not look at it.
func treeUUID(salt [32]byte) [16]byte { return [16]byte(salt[:16]) }

// blame finds out whether the disk or the release is at fault when the rebuilt tree has another root hash. Every segment was
// compared with its hash before it was written, so the disk is if it does not give that back.
func (w *writer) blame(o payload.Output, root digest.SHA256) error {
	in := digest.NewReader("root image in the passive slot", io.NewSectionReader(w.Slot, 0, o.Size), o.Size, o.SHA256)
	if _, err := io.Copy(io.Discard, in); err != nil {
		return fmt.Errorf("the disk does not give back what was written, it may be failing: %w", err)
	}
	return &BadRelease{w.release.Version, fmt.Sprintf("its root image has root hash %s, release.json says %s", root, w.release.Root.RootHash)}
}

// completeBoot reads the boot program back and compares it with the release.
func (w *writer) completeBoot(o payload.Output) error {
	err := errors.Join(w.program.Sync(), w.program.Close())
	w.program = nil
	if err != nil {
		return fmt.Errorf("sync boot program: %w", err)
	}
	f, err := w.Boot.Open(slot.Temporary(w.release.Version))
	if err != nil {
		return fmt.Errorf("read back boot program: %w", err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return fmt.Errorf("read back boot program: %w", err)
	}
	in := digest.NewReader("boot program on the ESP", io.NewSectionReader(f, 0, size), o.Size, o.SHA256)
	if _, err := io.Copy(io.Discard, in); err != nil {
		return fmt.Errorf("the disk does not give back what was written, it may be failing: %w", err)
	}
	if err := match.BootProgram(f, w.release); err != nil {
		return &BadRelease{w.release.Version, "boot program: " + err.Error()}
	}
	return nil
}

// abandon removes what the loader does not see anyway.
func (w *writer) abandon() {
	if w.program != nil {
		w.program.Close()
	}
	_ = w.Boot.Remove(slot.Temporary(w.release.Version)) // the next installation removes it too
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
