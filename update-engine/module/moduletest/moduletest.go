// Package moduletest makes kernel modules for tests: relocatable files with the tables of real ones, in which code can be inserted.
package moduletest

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
)

// A Module is what a file is made of. Each function calls others; a string is referred to by each, too.
type Module struct {
	Seed      uint64
	Functions int
	Insert    int // a function that is longer by some bytes and calls, and is followed by a new one; -1 for none
}

type function struct {
	name  string
	at    int
	size  int
	calls []int // numbers of functions
}

// File returns the module, whose bytes depend on m alone.
func (m Module) File() []byte {
	list := m.functions()
	var b builder
	b.symbol("", 0, 0, 0, 0)
	b.symbol("", uint8(elf.STT_SECTION), sectionText, 0, 0)
	b.symbol("", uint8(elf.STT_SECTION), sectionStrings, 0, 0)
	text := b.code(m.Seed, list)
	for _, f := range list {
		b.symbol(f.name, uint8(elf.STB_GLOBAL)<<4|uint8(elf.STT_FUNC), sectionText, uint64(f.at), uint64(f.size))
	}
	var strs, versions []byte
	for i := range m.Functions {
		strs = append(strs, fmt.Sprintf("function %d of module %d\x00", i, m.Seed)...)
		v := make([]byte, 64)
		binary.LittleEndian.PutUint32(v, uint32(i)*0x9e3779b1+uint32(len(list)))
		copy(v[8:], fmt.Sprintf("imported_%d", i))
		versions = append(versions, v...)
	}
	return b.file(text, strs, versions, types(list))
}

func (m Module) functions() []function {
	r := rand.New(rand.NewPCG(m.Seed, 1))
	var list []function
	at := 0
	for i := range m.Functions {
		f := function{name: fmt.Sprintf("f%d_%d", m.Seed, i), at: at, size: 32 + 16*r.IntN(12)}
		for range r.IntN(6) {
			f.calls = append(f.calls, r.IntN(m.Functions))
		}
		if i == m.Insert {
			f.size += 48
			f.calls = append(f.calls, 0, 1)
		}
		list = append(list, f)
		at += f.size
		if i == m.Insert {
			list = append(list, function{name: "fresh", at: at, size: 96, calls: []int{2, 3}})
			at += 96
		}
	}
	return list
}

const (
	sectionText = 1 + iota
	sectionRelocations
	sectionUnwind
	sectionUnwindRelocations
	sectionStrings
	sectionVersions
	sectionBTF
	sectionSymbols
	sectionSymbolNames
	sectionNames
)

type builder struct {
	symbols, names, relocations, unwind []byte
}

func (b *builder) symbol(name string, info uint8, section uint16, value, size uint64) {
	s := elf.Sym64{Name: uint32(len(b.names)), Info: info, Shndx: section, Value: value, Size: size}
	b.symbols = append(b.symbols, encoded(s)...)
	b.names = append(b.names, name+"\x00"...)
}

// code returns the code, and notes its relocations and those of the unwinder's table.
func (b *builder) code(seed uint64, list []function) []byte {
	r := rand.New(rand.NewPCG(seed, 2))
	var text []byte
	numbers := map[string]int{}
	for i, f := range list {
		numbers[f.name] = i + 3 // behind no symbol and the sections
	}
	relocate := func(to *[]byte, at, symbol int, kind elf.R_X86_64, addend int) {
		*to = append(*to, encoded(elf.Rela64{Off: uint64(at), Info: uint64(symbol)<<32 | uint64(kind), Addend: int64(addend)})...)
	}
	entries := 0
	for i, f := range list {
		for range f.size {
			text = append(text, byte(r.IntN(40)))
		}
		for n, c := range f.calls {
			relocate(&b.relocations, f.at+1+5*n, numbers[fmt.Sprintf("f%d_%d", seed, c)], elf.R_X86_64_PLT32, -4)
		}
		relocate(&b.relocations, f.at+f.size-6, 2, elf.R_X86_64_32S, 26*i)
		for at := f.at; at < f.at+f.size; at += 16 {
			relocate(&b.unwind, 4*entries, 1, elf.R_X86_64_PC32, at)
			entries++
		}
	}
	return text
}

// types is BTF in which each function has a type of its own that refers to others.
func types(list []function) []byte {
	var t, names []byte
	names = append(names, 0)
	word := func(v int) { t = binary.LittleEndian.AppendUint32(t, uint32(v)) }
	for i, f := range list {
		word(len(names))
		word(4<<24 | 2) // a struct of two members
		word(16)
		for n := range 2 {
			word(len(names))
			word(max(1, len(list)*n-i))
			word(64 * n)
		}
		names = append(names, f.name+"\x00"...)
	}
	h := []byte{0x9f, 0xeb, 1, 0}
	for _, v := range []int{24, 0, len(t), len(t), len(names)} {
		h = binary.LittleEndian.AppendUint32(h, uint32(v))
	}
	return append(append(h, t...), names...)
}

func (b *builder) file(text, strs, versions, types []byte) []byte {
	entries := len(b.unwind) / 24
	sections := []struct {
		name       string
		kind       elf.SectionType
		flags      elf.SectionFlag
		link, info uint32
		content    []byte
		entry      uint64
	}{
		{}, {".text", elf.SHT_PROGBITS, elf.SHF_ALLOC | elf.SHF_EXECINSTR, 0, 0, text, 0},
		{".rela.text", elf.SHT_RELA, elf.SHF_INFO_LINK, sectionSymbols, sectionText, b.relocations, 24},
		{".orc_unwind_ip", elf.SHT_PROGBITS, elf.SHF_ALLOC, 0, 0, make([]byte, 4*entries), 0},
		{".rela.orc_unwind_ip", elf.SHT_RELA, elf.SHF_INFO_LINK, sectionSymbols, sectionUnwind, b.unwind, 24},
		{".rodata.str1.1", elf.SHT_PROGBITS, elf.SHF_ALLOC, 0, 0, strs, 0},
		{"__versions", elf.SHT_PROGBITS, elf.SHF_ALLOC, 0, 0, versions, 0},
		{".BTF", elf.SHT_PROGBITS, 0, 0, 0, types, 0},
		{".symtab", elf.SHT_SYMTAB, 0, sectionSymbolNames, 3, b.symbols, 24},
		{".strtab", elf.SHT_STRTAB, 0, 0, 0, b.names, 0},
		{".shstrtab", elf.SHT_STRTAB, 0, 0, 0, nil, 0},
	}
	var names, out []byte
	out = make([]byte, 64)
	var heads []elf.Section64
	for i, s := range sections {
		h := elf.Section64{Name: uint32(len(names)), Type: uint32(s.kind), Flags: uint64(s.flags), Link: s.link, Info: s.info, Entsize: s.entry}
		names = append(names, s.name+"\x00"...)
		if i == sectionNames {
			s.content = names
		}
		h.Off, h.Size = uint64(len(out)), uint64(len(s.content))
		out = append(out, s.content...)
		out = append(out, make([]byte, -len(out)&7)...)
		heads = append(heads, h)
	}
	head := elf.Header64{Type: uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: 1, Shoff: uint64(len(out)), Ehsize: 64, Shentsize: 64,
		Shnum: uint16(len(heads)), Shstrndx: sectionNames}
	copy(head.Ident[:], elf.ELFMAG)
	head.Ident[elf.EI_CLASS], head.Ident[elf.EI_DATA], head.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	copy(out, encoded(head))
	for _, h := range heads {
		out = append(out, encoded(h)...)
	}
	return out
}

func encoded(v any) []byte {
	var b bytes.Buffer
	if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
		panic(err) // all of these have a fixed size
	}
	return b.Bytes()
}
