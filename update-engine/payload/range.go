package payload

import (
	"encoding/binary"
	"errors"

	"github.com/proa-os/proa/update-engine/column"
)

// The control stream of a FIT begins with where records are: their number, and of each range the bytes before it, the records, and a
// byte for kind and beginning of a file; of relocations also the symbol they lead to.
const firstOfFile = 1 << 7

func rangesText(list []column.Range) []byte {
	b := binary.AppendUvarint(nil, uint64(len(list)))
	end := 0
	for _, r := range list {
		b = binary.AppendUvarint(b, uint64(r.At-end))
		b = binary.AppendUvarint(b, uint64(r.Count))
		what := uint8(r.Kind)
		if r.First {
			what |= firstOfFile
		}
		b = append(b, what)
		if r.Kind == column.Rela {
			b = binary.AppendUvarint(b, uint64(r.Target))
		}
		end = r.End()
	}
	return b
}

var errRanges = errors.New("its ranges of records are not in the diff stream")

// parseRanges returns the ranges, which are inside a diff stream of the given length and follow each other, and what is behind them.
func parseRanges(control []byte, length int64) (list []column.Range, rest []byte, err error) {
	s := scanner{b: control}
	n := s.uint()
	if n < 1 || n > maxRanges || n > int64(len(s.b))/minRange {
		return nil, nil, errRanges
	}
	list = make([]column.Range, n)
	var end int64
	for i := range list {
		at, count := s.uint(), s.uint()
		what := s.uint8()
		r := column.Range{Kind: column.Kind(what &^ firstOfFile), First: what&firstOfFile != 0}
		if r.Kind == column.Rela {
			target := s.uint()
			if target > maxSymbol {
				return nil, nil, errRanges
			}
			r.Target = uint32(target)
		}
		if s.err != nil {
			return nil, nil, s.err
		}
		at += end
		size := int64(r.Kind.Size())
		if size == 0 || count < 1 || at > length || count > (length-at)/size {
			return nil, nil, errRanges
		}
		r.At, r.Count = int(at), int(count)
		end = at + count*size
		list[i] = r
	}
	return list, s.b, nil
}

const (
	minRange  = 3 // bytes of a range
	maxRanges = 1 << 14
	maxSymbol = 1 << 24 // number of a symbol
)
