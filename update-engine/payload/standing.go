package payload

import (
	"bytes"
	"crypto/sha256"
	"io"

	"github.com/proa-os/proa/internal/digest"
)

// Start is the mark of the first blob.
func (m *Manifest) Start() Mark { return Mark{Kind: m.Outputs[0].Kind, Read: m.size} }

// At returns the mark before segment i of an output, behind the copied bytes before it; for the number of segments, the output's end.
func (m *Manifest) At(k Kind, i int) Mark {
	first, _ := m.Output(k).span(i)
	return Mark{Kind: k, Segment: i, Written: first, Read: m.blob(k, i)}
}

// Standing returns the last mark before which have holds, byte for byte, what the payload makes of an output: where Apply is to take up an
// output that was interrupted, or never begun. Made bytes are compared with the hashes of their segments, copied ones with
// the sources. What cannot be read does not stand. progress, if not nil, is told up to which byte all stands.
func (m *Manifest) Standing(k Kind, have io.ReaderAt, src Sources, progress func(at int64)) Mark {
	o := m.Output(k)
	if o == nil {
		return Mark{}
	}
	c := comparer{have: have, o: *o, cursor: newCursor(o.Runs), a: make([]byte, copyPiece), b: make([]byte, copyPiece)}
	var err error
	if c.space, err = m.space(src, *o, have); err != nil {
		return Mark{Kind: k, Read: m.blob(k, 0)}
	}
	n, all := 0, false
	for c.segment(n) {
		if progress != nil {
			progress(c.cursor.at)
		}
		if n++; n >= len(o.Segments) {
			all = true
			break
		}
	}
	mark := m.At(k, min(n, len(o.Segments)))
	if all {
		mark.Written = o.Size
	}
	return mark
}

// A comparer looks at what is written.
type comparer struct {
	have   io.ReaderAt
	o      Output
	space  space
	cursor cursor
	a, b   []byte
}

// segment reports whether all that is written along with segment i stands, and goes behind it.
func (c *comparer) segment(i int) bool {
	left := int64(0)
	if i < len(c.o.Segments) {
		left = c.o.Segments[i].Length
	}
	h := sha256.New()
	for {
		made, copied := c.cursor.here()
		n := min(copied, copyPiece)
		if made > 0 {
			n = min(made, left, copyPiece)
		}
		if n == 0 {
			break
		}
		if k, _ := c.have.ReadAt(c.a[:n], c.cursor.at); int64(k) != n {
			return false
		}
		if made > 0 {
			h.Write(c.a[:n])
			left -= n
		} else if c.space.read(c.b[:n], c.cursor.at+c.cursor.run.Shift) != nil || !bytes.Equal(c.a[:n], c.b[:n]) {
			return false
		}
		c.cursor.step(n)
	}
	return i >= len(c.o.Segments) || digest.SHA256(h.Sum(nil)) == c.o.Segments[i].SHA256
}
