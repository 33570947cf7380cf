package payload

import (
	"cmp"
	"slices"

	"github.com/proa-os/proa/update-engine/bsdiff"
	"github.com/proa-os/proa/update-engine/column"
	"github.com/proa-os/proa/update-engine/extent"
	"github.com/proa-os/proa/update-engine/module"
)

// A table is records of an output that are made of those of a source.
type table struct {
	at, size int64 // in the output
	from     int64 // source address of the old table
	kind     column.Kind
	target   uint32
	first    bool // of its file
}

// ofTables describes a file that has tables: their records are paired with the old ones, all that is between is compared at once.
func ofTables(tables []module.Table, differ *bsdiff.Differ, n neighbour, old, content []byte) piece {
	p := piece{at: n.new.Offset}
	var before, after []extent.Extent
	for i, t := range tables {
		before = append(before, extent.Extent{Offset: n.old.Offset + int64(t.Old), Length: int64(t.OldSize)})
		after = append(after, extent.Extent{Offset: n.new.Offset + int64(t.New), Length: int64(t.NewSize)})
		p.tables = append(p.tables, table{at: after[i].Offset, size: after[i].Length, from: before[i].Offset, kind: t.Kind, target: t.Target, first: i == 0})
	}
	before, after = between(n.old, before), between(n.new, after)
	pieces := scattered(differ.Diff(pick(old, before, n.old.Offset), pick(content, after, n.new.Offset)), before, after)
	for i, t := range tables {
		q := piece{at: p.tables[i].at}
		for _, x := range t.Pieces {
			if x.Like > 0 {
				q.parts = append(q.parts, pieceOf{length: int64(x.Like), add: true, from: p.tables[i].from + int64(x.Old)})
			}
			if x.Rest > 0 {
				q.parts = append(q.parts, pieceOf{length: int64(x.Rest)})
			}
		}
		pieces = append(pieces, q)
	}
	slices.SortFunc(pieces, func(a, b piece) int { return cmp.Compare(a.at, b.at) })
	for _, q := range pieces {
		p.parts = append(p.parts, q.parts...)
	}
	return p
}

// between returns what of a file is in no table.
func between(file extent.Extent, tables []extent.Extent) (list []extent.Extent) {
	slices.SortFunc(tables, func(a, b extent.Extent) int { return cmp.Compare(a.Offset, b.Offset) })
	at := file.Offset
	for _, t := range tables {
		if at < t.Offset {
			list = append(list, extent.Extent{Offset: at, Length: t.Offset - at})
		}
		at = max(at, t.End())
	}
	if at < file.End() {
		list = append(list, extent.Extent{Offset: at, Length: file.End() - at})
	}
	return list
}

// pick gathers ranges of a file which begins at base.
func pick(b []byte, list []extent.Extent, base int64) []byte {
	var out []byte
	for _, e := range list {
		out = append(out, b[e.Offset-base:e.End()-base]...)
	}
	return out
}

// appendRanges notes which whole records are in n bytes of an output that are like those of a source at a shift. They become byte i of the
// stream of differences.
func appendRanges(list []column.Range, tables []table, i int, at, n, shift int64) []column.Range {
	first, _ := slices.BinarySearchFunc(tables, at, func(t table, at int64) int {
		if t.at+t.size <= at {
			return -1
		}
		return 1
	})
	for _, t := range tables[first:] {
		if t.at >= at+n {
			break
		}
		size := int64(t.kind.Size())
		from := max(at, t.at)
		if over := (from - t.at) % size; over > 0 {
			from += size - over
		}
		count := (min(at+n, t.at+t.size) - from) / size
		if count <= 0 || (from+shift-t.from)%size != 0 || from+shift < t.from {
			continue
		}
		begin := i + int(from-at)
		if k := len(list) - 1; k >= 0 && list[k].Kind == t.kind && list[k].Target == t.target && list[k].At+list[k].Count*int(size) == begin && from > t.at {
			list[k].Count += int(count)
			continue
		}
		list = append(list, column.Range{At: begin, Count: int(count), Kind: t.kind, First: t.first && from == t.at, Target: t.target})
	}
	return list
}
