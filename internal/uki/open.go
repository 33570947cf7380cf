package uki

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// A Program is an opened boot program.
type Program struct {
	r        io.ReaderAt
	sections []Section
}

// Open reads the headers of a boot program. The reader must stay usable as long as the Program is. Only the
// headers are read here; whether the file is as long as they say shows when a section is read.
func Open(r io.ReaderAt) (*Program, error) {
	h, err := readProgram(r)
	if err != nil {
		return nil, fmt.Errorf("open boot program: %w", err)
	}
	return &Program{r: r, sections: h.sections}, nil
}

// Sections returns all sections in the order of the file, the stub's included.
func (p *Program) Sections() []Section { return slices.Clone(p.sections) }

// Section returns the content of the section with this name.
func (p *Program) Section(name string) (*io.SectionReader, error) {
	for _, s := range p.sections {
		if s.Name == name {
			return io.NewSectionReader(p.r, s.Offset, s.Size), nil
		}
	}
	return nil, fmt.Errorf("boot program has no section %s", name)
}

// maxCmdline is more than any kernel takes (COMMAND_LINE_SIZE is 2048 on x86-64 and arm64).
const maxCmdline = 64 << 10

// Cmdline returns the kernel command line, without the white space at its end. It is one line of printable text.
func (p *Program) Cmdline() (string, error) {
	s, err := p.Section(SectionCmdline)
	if err != nil {
		return "", err
	}
	if s.Size() > maxCmdline {
		return "", fmt.Errorf("read command line: section has %d bytes, expected at most %d", s.Size(), maxCmdline)
	}
	b := make([]byte, s.Size())
	if _, err := io.ReadFull(s, b); err != nil {
		return "", fmt.Errorf("read command line: %w", noEOF(err))
	}
	line := strings.TrimRight(string(b), " \t\r\n\x00")
	bad := func(r rune) bool { return r < ' ' || r == 0x7f }
	if !utf8.ValidString(line) || strings.ContainsFunc(line, bad) {
		return "", fmt.Errorf("read command line: %q is not one line of text", line)
	}
	return line, nil
}

// A header is everything in front of the first section's content.
type header struct {
	raw      []byte // SizeOfHeaders bytes of the file
	pe       int    // offset of "PE\0\0"
	optSize  int
	count    int // sections the COFF header speaks of
	sections []Section
}

func (h *header) optional() []byte { return h.raw[h.pe+4+coffSize:][:h.optSize] }

func (h *header) tableEnd() int {
	return h.pe + 4 + coffSize + h.optSize + sectionSize*len(h.sections)
}

// memoryEnd is where the last section ends in memory.
func (h *header) memoryEnd() int64 {
	var end int64
	for _, s := range h.sections {
		end = max(end, int64(s.address)+int64(s.memory))
	}
	return end
}

// readProgram reads headers and section table.
func readProgram(r io.ReaderAt) (*header, error) {
	h, err := readHeader(r)
	if err != nil {
		return nil, err
	}
	for range h.count {
		if err := h.readSection(h.raw[h.tableEnd():][:sectionSize]); err != nil {
			return nil, err
		}
	}
	return h, nil
}

// readHeader reads the headers and leaves the section table unread.
func readHeader(r io.ReaderAt) (*header, error) {
	dos := make([]byte, dosPointer+4)
	if err := readAt(r, dos, 0); err != nil {
		return nil, fmt.Errorf("read DOS header: %w", err)
	}
	if string(dos[:2]) != "MZ" {
		return nil, fmt.Errorf("not a PE file: it begins with %q, expected \"MZ\"", dos[:2])
	}
	pe := binary.LittleEndian.Uint32(dos[dosPointer:])
	if pe < uint32(len(dos)) || pe > 1<<16 {
		return nil, fmt.Errorf("not a PE file: its header is said to be at %d", pe)
	}
	coff := make([]byte, 4+coffSize+optMinSize)
	if err := readAt(r, coff, int64(pe)); err != nil {
		return nil, fmt.Errorf("read PE header: %w", err)
	}
	if string(coff[:4]) != "PE\x00\x00" {
		return nil, fmt.Errorf("not a PE file: no PE signature at %d", pe)
	}
	h := &header{pe: int(pe), optSize: int(binary.LittleEndian.Uint16(coff[4+16:]))}
	opt := coff[4+coffSize:]
	h.count = int(binary.LittleEndian.Uint16(coff[4+2:]))
	size := binary.LittleEndian.Uint32(opt[optSizeOfHeaders:])
	align := binary.LittleEndian.Uint32(opt[optSectionAlignment:])
	switch {
	case binary.LittleEndian.Uint16(opt[optMagic:]) != magicPE32Plus || h.optSize < optMinSize:
		return nil, fmt.Errorf("not a 64-bit UEFI program: optional header of %d bytes with magic %#x, expected %#x",
			h.optSize, binary.LittleEndian.Uint16(opt), magicPE32Plus)
	case binary.LittleEndian.Uint32(opt[optFileAlignment:]) != fileAlign:
		return nil, fmt.Errorf("file alignment is %d, expected %d", binary.LittleEndian.Uint32(opt[optFileAlignment:]), fileAlign)
	case align < fileAlign || align > 1<<20 || align&(align-1) != 0:
		return nil, fmt.Errorf("section alignment is %d, expected a power of two, %d or more", align, fileAlign)
	case h.count == 0 || h.count > maxSections:
		return nil, fmt.Errorf("%d sections, expected 1 to %d", h.count, maxSections)
	case int(size) < h.pe+4+coffSize+h.optSize+sectionSize*h.count || size > 1<<17:
		return nil, fmt.Errorf("headers of %d bytes do not hold %d sections", size, h.count)
	}
	h.raw = make([]byte, size)
	if err := readAt(r, h.raw, 0); err != nil {
		return nil, fmt.Errorf("read headers: %w", err)
	}
	return h, nil
}

// readSection appends the section that the entry e of the section table describes.
func (h *header) readSection(e []byte) error {
	s := Section{
		Name:    strings.TrimRight(string(e[:8]), "\x00"),
		memory:  binary.LittleEndian.Uint32(e[8:]),
		address: binary.LittleEndian.Uint32(e[12:]),
		padded:  binary.LittleEndian.Uint32(e[16:]),
		Offset:  int64(binary.LittleEndian.Uint32(e[20:])),
	}
	s.Size = int64(min(s.memory, s.padded)) // what memory has more is zeros
	if end := s.Offset + int64(s.padded); s.padded != 0 && (s.Offset < int64(len(h.raw)) || s.Offset%fileAlign != 0 || end > maxProgramSize) {
		return fmt.Errorf("section %q takes bytes %d to %d: expected a multiple of %d behind the headers, and an end before %d",
			s.Name, s.Offset, end, fileAlign, maxProgramSize)
	}
	for _, o := range h.sections {
		if o.Name == s.Name {
			return fmt.Errorf("section %q is there twice", s.Name)
		}
	}
	h.sections = append(h.sections, s)
	return nil
}

func readAt(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	return noEOF(err)
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
