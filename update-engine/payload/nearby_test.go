package payload

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
)

// A spoilt reader cannot read its bytes from one on to another.
type spoilt struct {
	io.ReaderAt
	from, to int64
}

var errSpoilt = errors.New("bad sector")

func (s spoilt) ReadAt(p []byte, off int64) (int, error) {
	if off < s.to && off+int64(len(p)) > s.from {
		return 0, errSpoilt
	}
	return s.ReaderAt.ReadAt(p, off)
}

// What is read is what is there, wherever it was read before, and only what is asked for must be readable.
func TestNearby(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 6))
	const limit, bad, behind = 1 << 20, 300 << 10, 310 << 10
	all := make([]byte, limit+4096) // what is behind the limit is not written yet
	for i := range all {
		all[i] = byte(r.Uint32())
	}
	sp := space{{"old", spoilt{bytes.NewReader(all[:700<<10]), bad, behind}, 700 << 10}, {"new", bytes.NewReader(all[700<<10 : limit]), limit - 700<<10}}
	var w nearby
	at := int64(0)
	for range 20_000 {
		n := 1 + r.Int64N(1<<r.IntN(17))
		if at += r.Int64N(9000) - 3000; r.IntN(50) == 0 {
			at = r.Int64N(limit)
		}
		if at < 0 || at+n > limit {
			at = 0
			continue
		}
		b := make([]byte, n)
		err := w.read(b, at, sp, limit)
		if spoils := at < behind && at+n > bad; spoils != errors.Is(err, errSpoilt) || !spoils && !bytes.Equal(b, all[at:at+n]) {
			t.Fatalf("%d bytes at %d: got %v, or not what is there", n, at, err)
		}
	}
}
