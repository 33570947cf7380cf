// Package module finds out how the tables in a kernel module, or any other relocatable file of 64 bits, were made of those of an older one:
// which relocation, symbol, type or version is which. It is the release desk's part of what package column foretells.
//
// A comparison of bytes cannot know: of two thousand relocations that lead somewhere into .text, each looks like any other. So records are compared by what does
// not change when code moves, their names and types, and by where the place that they lead to is in the new file, as the relocations of the code
// itself say. Records that are new are like those that come next in the old table.
//
// It reads ELF with debug/elf, and BTF as Documentation/bpf/btf.rst of the kernel describes it. A file that it cannot read has no tables; whatever it
// says of one, a payload is proven before it is published.
package module

import (
	"bytes"
	"cmp"
	"debug/elf"
	"encoding/binary"
	"slices"
	"sort"
	"strings"

	"github.com/proa-os/proa/update-engine/column"
)

// A Table is a section of records in a new file, and the one of the same name in the old file.
type Table struct {
	New, Old         int // first byte in the file
	NewSize, OldSize int // bytes, whole records
	Kind             column.Kind
	Target           uint32 // of column.Rela: the old file's symbol for the section which the offsets lead into
	Pieces           []Piece
}

// A Piece is bytes of a new table that are like as many of the old one, then bytes that are not.
type Piece struct {
	Old        int // index in the old table
	Like, Rest int // bytes
}

// Tables returns the tables that both files have, in the order of the new one; none if one of them is no relocatable file of 64 bits. None
// overlaps another in the new file.
func Tables(old, new []byte) []Table {
	a, b := open(old), open(new)
	if a == nil || b == nil {
		return nil
	}
	var tables []Table
	moves := map[uint32]moved{}
	for _, s := range inOrder(b.File) {
		o := a.Section(s.Name)
		if o == nil || o.Type != s.Type || !a.holds(o) || !b.holds(s) {
			continue
		}
		if t, ok := compare(a, b, o, s, moves); ok {
			tables = append(tables, t)
		}
	}
	slices.SortFunc(tables, func(x, y Table) int { return cmp.Compare(x.New, y.New) })
	end := 0
	for _, t := range tables {
		if t.New < end {
			return nil
		}
		end = t.New + t.NewSize
	}
	return tables
}

// compare compares the tables that are sections of both files. Relocations of code add to moves, all others use them.
func compare(a, b *file, o, s *elf.Section, moves map[uint32]moved) (t Table, ok bool) {
	kind, ok := kindOf(s)
	if !ok {
		return t, false
	}
	before, after := a.items(o, kind), b.items(s, kind)
	if before == nil || after == nil {
		return t, false
	}
	t = Table{
		New: int(s.Offset) + after[0].at, Old: int(o.Offset) + before[0].at, NewSize: sizeOf(after), OldSize: sizeOf(before), Kind: kind,
	}
	if kind != column.Rela {
		t.Pieces = align(before, after, kind == column.Symbol)
		return t, true
	}
	a.mark(o, before, func(section uint32, v int64) int64 { return v + moves[section].at(v) }, moves)
	b.mark(s, after, func(_ uint32, v int64) int64 { return v }, moves)
	if int(o.Info) < len(a.symbolOf) {
		t.Target = a.symbolOf[o.Info]
	}
	t.Pieces = align(before, after, true)
	a.learn(moves, b, o, t)
	return t, true
}

func kindOf(s *elf.Section) (column.Kind, bool) {
	switch {
	case s.Type == elf.SHT_RELA:
		return column.Rela, true
	case s.Type == elf.SHT_SYMTAB:
		return column.Symbol, true
	case s.Type == elf.SHT_PROGBITS && s.Name == ".BTF":
		return column.Words, true
	case s.Type == elf.SHT_PROGBITS && s.Name == "__versions":
		return column.Version, true
	}
	return 0, false
}

type file struct {
	*elf.File
	content  []byte
	symbols  []symbol
	symbolOf []uint32 // of sections
}

// inOrder are the sections, but those first that say how code has moved.
func inOrder(f *elf.File) []*elf.Section {
	code := func(s *elf.Section) int {
		if s.Type == elf.SHT_RELA && int(s.Info) < len(f.Sections) && f.Sections[s.Info].Flags&elf.SHF_EXECINSTR != 0 {
			return 0
		}
		return 1
	}
	list := slices.Clone(f.Sections)
	slices.SortStableFunc(list, func(x, y *elf.Section) int { return code(x) - code(y) })
	return list
}

// moved says where in a section something was and how far it is from there now, ascending.
type moved []struct{ place, by int64 }

// at is how far a place has moved: as far as the nearest one that is known.
func (m moved) at(v int64) int64 {
	if len(m) == 0 {
		return 0
	}
	i := sort.Search(len(m), func(i int) bool { return m[i].place >= v })
	if i == len(m) || i > 0 && v-m[i-1].place < m[i].place-v {
		i--
	}
	return m[i].by
}

// learn notes how far the places of relocations have moved, by the name of the section they are in.
func (f *file) learn(moves map[uint32]moved, new *file, o *elf.Section, t Table) {
	if int(o.Info) >= len(f.Sections) {
		return
	}
	key := uint32(hash(f.Sections[o.Info].Name))
	if len(moves[key]) > 0 {
		return
	}
	var m moved
	at := 0
	for _, p := range t.Pieces {
		for i := 0; i < p.Like; i += column.Rela.Size() {
			old, now := f.content[t.Old+p.Old+i:], new.content[t.New+at+i:]
			if string(old[8:12]) == string(now[8:12]) {
				place := int64(f.ByteOrder.Uint64(old))
				m = append(m, struct{ place, by int64 }{place, int64(f.ByteOrder.Uint64(now)) - place})
			}
		}
		at += p.Like + p.Rest
	}
	slices.SortFunc(m, func(x, y struct{ place, by int64 }) int { return cmp.Compare(x.place, y.place) })
	moves[key] = m
}

// mark adds to the keys of relocations which lead into a section that is known to have moved, where that is now.
func (f *file) mark(s *elf.Section, items []item, now func(uint32, int64) int64, moves map[uint32]moved) {
	for i := range items {
		r := f.content[int(s.Offset)+items[i].at:]
		n := f.ByteOrder.Uint32(r[12:])
		if int(n) >= len(f.symbols) || !f.symbols[n].section {
			continue
		}
		if section := f.symbols[n].name; len(moves[section]) > 0 {
			items[i].key = items[i].key*factor + uint64(now(section, int64(f.ByteOrder.Uint64(r[16:]))))
		}
	}
}

type symbol struct {
	key     uint64
	section bool
	name    uint32
}

func open(content []byte) *file {
	if !bytes.HasPrefix(content, []byte(elf.ELFMAG)) {
		return nil
	}
	f, err := elf.NewFile(bytes.NewReader(content))
	if err != nil || f.Class != elf.ELFCLASS64 || f.Data != elf.ELFDATA2LSB || f.Type != elf.ET_REL {
		return nil
	}
	x := &file{File: f, content: content, symbols: []symbol{{}}, symbolOf: make([]uint32, len(f.Sections))}
	list, err := f.Symbols()
	if err != nil {
		return nil
	}
	for i, s := range list {
		name := s.Name
		is := elf.ST_TYPE(s.Info) == elf.STT_SECTION
		if n := int(s.Section); is && n < len(f.Sections) {
			name = f.Sections[n].Name
			x.symbolOf[n] = uint32(i + 1)
		}
		x.symbols = append(x.symbols, symbol{key: hash(name) + uint64(s.Info), section: is, name: uint32(hash(name))})
	}
	return x
}

func (f *file) holds(s *elf.Section) bool {
	return s.Type != elf.SHT_NOBITS && s.Flags&elf.SHF_COMPRESSED == 0 && s.Offset <= uint64(len(f.content)) && s.FileSize <= uint64(len(f.content))-s.Offset && s.FileSize > 0
}

// An item is a record, or several that belong together, and what does not change when something else moves.
type item struct {
	key      uint64
	at, size int // in the section
}

func sizeOf(items []item) int {
	last := items[len(items)-1]
	return last.at + last.size - items[0].at
}

func (f *file) items(s *elf.Section, kind column.Kind) []item {
	b := f.content[s.Offset : s.Offset+s.FileSize]
	if kind == column.Words {
		return types(b)
	}
	size := kind.Size()
	if len(b)%size != 0 {
		return nil
	}
	list := make([]item, 0, len(b)/size)
	for at := 0; at < len(b); at += size {
		list = append(list, item{key: f.key(b[at:at+size], at/size, kind), at: at, size: size})
	}
	return list
}

func (f *file) key(r []byte, i int, kind column.Kind) uint64 {
	le := f.ByteOrder
	switch kind {
	case column.Symbol:
		if i < len(f.symbols) {
			return f.symbols[i].key
		}
	case column.Version:
		return hash(string(r[8:]))
	case column.Rela:
		n := le.Uint32(r[12:])
		k := uint64(le.Uint32(r[8:])) * factor
		if int(n) >= len(f.symbols) {
			return k
		}
		k += f.symbols[n].key
		if !f.symbols[n].section {
			k = k*factor + le.Uint64(r[16:])
		}
		return k
	}
	return 0
}

const factor = 0x9e3779b97f4a7c15

func hash(s string) uint64 {
	h := uint64(len(s))
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * factor
		h ^= h >> 29
	}
	return h
}

// types are those of BTF (Documentation/bpf/btf.rst), each with what follows it.
func types(b []byte) []item {
	const magic = "\x9f\xeb\x01"
	le := binary.LittleEndian
	if len(b) < 24 || !strings.HasPrefix(string(b[:3]), magic) {
		return nil
	}
	head, first, size := uint64(le.Uint32(b[4:])), uint64(le.Uint32(b[8:])), uint64(le.Uint32(b[12:]))
	start, end := head+first, head+first+size
	if end > uint64(len(b)) || start%4 != 0 {
		return nil
	}
	var list []item
	for at := int(start); at+12 <= int(end); {
		word := le.Uint32(b[at+4:])
		n := int(word & 0xffff)
		more, ok := behind(word>>24&31, n)
		if !ok || at+12+more > int(end) {
			return nil
		}
		k := uint64(word) * factor
		switch word >> 24 & 31 {
		case 1, 4, 5, 6, 15, 16, 19: // they have a size
			k = (k + uint64(le.Uint32(b[at+8:]))) * factor
		}
		list = append(list, item{key: k, at: at, size: 12 + more})
		at += 12 + more
	}
	return list
}

// behind is how many bytes follow a type of a kind that has n members.
func behind(kind uint32, n int) (int, bool) {
	switch kind {
	case 1, 14, 17:
		return 4, true
	case 3:
		return 12, true
	case 4, 5, 15, 19:
		return 12 * n, true
	case 6, 13:
		return 8 * n, true
	case 2, 7, 8, 9, 10, 11, 12, 16, 18:
		return 0, true
	}
	return 0, false
}
