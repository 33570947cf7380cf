package payload

import (
	"github.com/proa-os/proa/update-engine/bsdiff"
	"github.com/proa-os/proa/update-engine/extent"
)

// A piece is how a part of an output is described, before it is known what is around it.
type piece struct {
	at     int64
	parts  []pieceOf
	tables []table
}

// pieceOf is new, like a source (add) or equal to it (copied).
type pieceOf struct {
	length      int64
	add, copied bool
	from        int64 // source address, if add or copied
}

func (p piece) length() int64 {
	var n int64
	for _, x := range p.parts {
		n += x.length
	}
	return n
}

func (p piece) addTo(a *assembly) {
	for _, x := range p.parts {
		switch {
		case x.copied:
			a.copy(x.length, x.from-a.at)
		case x.add:
			a.add(x.length, x.from-a.at)
		default:
			a.extra(x.length)
		}
	}
}

// partsOf translates the control of a patch whose old file was gathered from ranges of the source.
func partsOf(control []bsdiff.Control, old []extent.Extent) []pieceOf {
	var parts []pieceOf
	var at int64 // in the gathered file
	for _, c := range control {
		parts = append(parts, addresses(at, c.Add, old)...)
		if c.Copy > 0 {
			parts = append(parts, pieceOf{length: c.Copy})
		}
		at += c.Add + c.Seek
	}
	return parts
}

// addresses returns where n bytes of the gathered file are in the source.
func addresses(at, n int64, old []extent.Extent) []pieceOf {
	var parts []pieceOf
	for _, e := range old {
		if n == 0 {
			break
		}
		if at >= e.Length {
			at -= e.Length
			continue
		}
		k := min(n, e.Length-at)
		parts = append(parts, pieceOf{length: k, add: true, from: e.Offset + at})
		n -= k
		at = 0
	}
	return parts
}
