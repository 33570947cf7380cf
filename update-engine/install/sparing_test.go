package install

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
)

// ram is a File that counts, and that cannot read one block.
type ram struct {
	b     []byte
	wrote map[int64]int // length by offset
	bad   int64         // of a block; -1: none
	syncs int
}

func (r *ram) ReadAt(p []byte, off int64) (int, error) {
	if r.bad >= 0 && off <= r.bad && r.bad < off+int64(len(p)) {
		n := copy(p[:r.bad-off], r.b[off:])
		return n, errors.New("input/output error")
	}
	if off >= int64(len(r.b)) {
		return 0, io.EOF
	}
	n := copy(p, r.b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (r *ram) WriteAt(p []byte, off int64) (int, error) {
	r.wrote[off] = len(p)
	if need := int(off) + len(p); need > len(r.b) {
		r.b = append(r.b, make([]byte, need-len(r.b))...)
	}
	return copy(r.b[off:], p), nil
}

func (r *ram) Sync() error          { r.syncs++; return nil }
func (r *ram) Size() (int64, error) { return int64(len(r.b)), nil }
func (r *ram) Close() error         { return nil }

// Only blocks that differ are written, in runs, wherever the caller's pieces begin and end; what cannot be read is written.
func TestSparing(t *testing.T) {
	old := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(old)
	want := bytes.Clone(old)
	want[5*block+7] ^= 1
	want[6*block] ^= 1
	want[100*block+block-1] ^= 1
	for _, c := range []struct {
		name string
		bad  int64
	}{{"whole", -1}, {"unreadable block", 200 * block}} {
		for _, step := range []int{1 << 20, 300_000, 65_536} {
			f := &ram{b: bytes.Clone(old), wrote: map[int64]int{}, bad: c.bad}
			var report Written
			s := &sparing{f: f, size: int64(len(want)), report: &report}
			for at := 0; at < len(want); at += step {
				if n, err := s.WriteAt(want[at:min(at+step, len(want))], int64(at)); err != nil || n != min(step, len(want)-at) {
					t.Fatalf("%s: %d, %v", c.name, n, err)
				}
			}
			if !bytes.Equal(f.b, want) {
				t.Errorf("%s, step %d: the content is not what was written", c.name, step)
			}
			if report.Written+report.Kept != int64(len(want)) {
				t.Errorf("%s, step %d: %+v of %d bytes", c.name, step, report, len(want))
			}
			if step == 1<<20 && (f.wrote[5*block] != 2*block || f.wrote[100*block] != block || c.bad < 0 && len(f.wrote) != 2) {
				t.Errorf("%s: lengths of writes by their offset: %v", c.name, f.wrote)
			}
			if written := f.wrote[c.bad]; c.bad >= 0 && written == 0 || report.Written > chunk+10*block {
				t.Errorf("%s, step %d: %d bytes were written, %d from the unreadable block on", c.name, step, report.Written, written)
			}
			before := f.syncs
			_ = s.Sync()
			_ = s.Sync()
			if f.syncs != before+1 {
				t.Errorf("%s: %d syncs, the second had nothing to do", c.name, f.syncs-before)
			}
		}
	}
	// Behind the end of a file there is nothing to compare with.
	f := &ram{wrote: map[int64]int{}, bad: -1}
	s := &sparing{f: f, size: 5000, report: &Written{}}
	if _, err := s.WriteAt(make([]byte, 5000), 0); err != nil || len(f.b) != 5000 {
		t.Errorf("a new file: %d bytes, %v", len(f.b), err)
	}
}
