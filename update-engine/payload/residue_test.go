package payload

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/proa-os/proa/internal/testenv"
)

// calls is code of functions that call each other, behind a head of so many bytes.
func calls(n, head int) []byte {
	r := rand.New(rand.NewPCG(5, 6))
	b := make([]byte, head+n)
	for i := head; i < len(b); i++ {
		b[i] = byte(r.IntN(48))
	}
	for i := 100; i+5 < n; i += 6 + r.IntN(40) {
		target := r.IntN(4000) * 400
		b[head+i] = 0xe8
		// What is called is before the head if it lies in the first quarter, and has not moved then.
		to := target + head
		if target < n/4 {
			to = target
		}
		binary.LittleEndian.PutUint32(b[head+i+1:], uint32(to-(head+i+5)))
	}
	return b
}

// Code that calls what has moved is modelled, and a machine makes the same of it; a small program, too, whose differences are few.
func TestDeltaOfCalls(t *testing.T) {
	tools := testenv.Tools(t)
	for _, c := range []struct{ code, limit int }{{1_800_000, 30_000}, {600_000, 9_000}} {
		oldRoot := erofs(t, tools, map[string][]byte{"usr/lib/libcalls.so.1": calls(c.code, 0)})
		newRoot := erofs(t, tools, map[string][]byte{"usr/lib/libcalls.so.1": calls(c.code, 4112)})
		boot := noise(98, 10_000)
		d, src := deltaOf(oldRoot, boot, newRoot, boot)
		b, m := makeDelta(t, d, src)
		modelled := 0
		for _, s := range m.Output(RootImage).Segments {
			if s.Op == Diff && s.Streams[1].Codec == Residue {
				modelled++
			}
		}
		if modelled == 0 {
			t.Errorf("%d bytes of code: no segment is modelled: %+v", c.code, m.Output(RootImage).Segments)
		}
		if len(b) > c.limit {
			t.Errorf("%d bytes of code: delta of %d bytes, want at most %d", c.code, len(b), c.limit)
		}
	}
}

// The time that a machine has goes to the bytes that it makes first, and what is left of it to models.
func TestModelsTakeTheTimeThatIsLeft(t *testing.T) {
	for _, c := range []struct {
		made int64
		want Codec
	}{{1 << 20, Residue}, {maxWork * perMade / 2, Residue}, {maxWork * perMade, Bzip2}} {
		seg := Segment{Op: Diff, Streams: [3]Stream{{}, {Codec: Bzip2, Length: MaxSegment, Stored: 100_000}}}
		d := &draft{
			m:        &Manifest{Outputs: []Output{{Kind: RootImage, Runs: []Run{{Made: c.made}}, Segments: []Segment{seg}}}},
			blobs:    [][]byte{nil, make([]byte, 100_000)},
			residues: []alternative{{blob: 1, packed: packed{seg: seg, residue: make([]byte, 50_000), work: maxWork / 3}}},
		}
		d.takeResidues()
		if got := d.m.Outputs[0].Segments[0].Streams[1].Codec; got != c.want {
			t.Errorf("%d bytes made: %s, want %s", c.made, got, c.want)
		}
	}
}
