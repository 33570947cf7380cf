package install

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/proa-os/proa/internal/slot"
	"github.com/proa-os/proa/update-engine/payload"
)

// standing finds where the payload is to be taken up: behind what the disk holds byte for byte, counted from the start. If all of the
// root image stands and some of the boot program does, the root image's tree is completed here, because Apply then begins
// behind it.
func (w *writer) standing(p Payload, src payload.Sources) (payload.Mark, error) {
	root, boot := *p.Manifest.Output(payload.RootImage), *p.Manifest.Output(payload.BootProgram)
	// What a killed process has left in memory is written out, and what is read now is the disk's answer.
	if err := w.Slot.Sync(); err != nil {
		return payload.Mark{}, onDisk("sync slot: %w", err)
	}
	k, err := w.compare(p.Manifest, root, io.NewSectionReader(w.Slot, 0, root.Size), src)
	if err != nil || k.Written == 0 {
		return payload.Mark{}, err
	}
	w.report.Resumed = k
	if k.Written < root.Size {
		return k, nil
	}
	f, k, err := w.unfinished(p.Manifest, boot, src)
	if err != nil || f == nil {
		return w.report.Resumed, err
	}
	if err := w.Complete(root); err != nil {
		return payload.Mark{}, errors.Join(err, f.Close())
	}
	w.program, w.report.Resumed = f, k
	return k, nil
}

// unfinished opens the boot program that an interrupted installation has left, and finds how much of it stands. The file is nil if
// nothing does.
func (w *writer) unfinished(m *payload.Manifest, o payload.Output, src payload.Sources) (File, payload.Mark, error) {
	f, err := w.Boot.Edit(slot.Temporary(w.release.Version))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, payload.Mark{}, nil
	}
	if err != nil {
		return nil, payload.Mark{}, onDisk("open unfinished boot program: %w", err)
	}
	size, err := f.Size()
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return nil, payload.Mark{}, errors.Join(onDisk("open unfinished boot program: %w", err), f.Close())
	}
	k, err := w.compare(m, o, f, src)
	if err != nil || k.Written == 0 || size > o.Size { // one that is longer could not be finished by writing
		return nil, payload.Mark{}, errors.Join(err, f.Close())
	}
	return f, k, nil
}

// compare returns how much of an output stands. A disk that cannot read a place holds nothing there: it is written anew, which may
// mend it.
func (w *writer) compare(m *payload.Manifest, o payload.Output, have io.ReaderAt, src payload.Sources) (payload.Mark, error) {
	k := m.Standing(o.Kind, cancelled{w.ctx, have}, src, func(at int64) { w.tell(Resume, at, o.Size) })
	if err := w.ctx.Err(); err != nil {
		return payload.Mark{}, fmt.Errorf("read back %s: %w", o.Kind, err)
	}
	return k, nil
}
