package install

import (
	"bytes"
	"io"
)

const (
	block = 4096      // what is compared and written at least: a page, a file system's block, a flash page or a part of one
	chunk = 256 << 10 // what is read and written at most at a time
)

// sparing writes only blocks that do not hold the wanted bytes yet. Reading is quicker than writing on every disk and wears none, and
// the slot's old content is a release that shares much with the new one.
type sparing struct {
	f        File
	size     int64 // of the output: what lies behind it is not read back
	buf      []byte
	unsynced int64 // bytes written since the last sync
	report   *Written
}

// ReadAt implements io.ReaderAt: later operations read what was written.
func (s *sparing) ReadAt(p []byte, off int64) (int, error) {
	return io.NewSectionReader(s.f, 0, s.size).ReadAt(p, off)
}

// WriteAt implements io.WriterAt.
func (s *sparing) WriteAt(p []byte, off int64) (int, error) {
	if s.buf == nil {
		s.buf = make([]byte, chunk)
	}
	done := 0
	for done < len(p) {
		// Pieces end at block boundaries of the disk, whatever the caller's are.
		at := off + int64(done)
		n := min(len(p)-done, chunk-int(at%block))
		if err := s.piece(p[done:done+n], at); err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

// piece writes the runs of blocks in p that differ from what is at off.
func (s *sparing) piece(p []byte, off int64) error {
	n, _ := s.f.ReadAt(s.buf[:len(p)], off) // what cannot be read differs
	have := s.buf[:n]
	for at := 0; at < len(p); {
		same, end := equalRun(p, have, at, off)
		if same {
			s.report.Kept += int64(end - at)
			at = end
			continue
		}
		s.unsynced += int64(end - at)
		if _, err := s.f.WriteAt(p[at:end], off+int64(at)); err != nil {
			return onDisk("%w", err)
		}
		s.report.Written += int64(end - at)
		at = end
	}
	return nil
}

// equalRun returns the end of the run of blocks from at on that are all equal in p and have, or all different.
func equalRun(p, have []byte, at int, off int64) (same bool, end int) {
	for end = at; end < len(p); {
		next := min(end+block-int((off+int64(end))%block), len(p))
		equal := next <= len(have) && bytes.Equal(p[end:next], have[end:next])
		if end > at && equal != same {
			break
		}
		same, end = equal, next
	}
	return same, end
}

// Sync makes what was written last; if nothing was, there is nothing to wait for.
func (s *sparing) Sync() error {
	if s.unsynced == 0 {
		return nil
	}
	if err := s.f.Sync(); err != nil {
		return onDisk("%w", err)
	}
	s.unsynced = 0
	return nil
}
