package uki

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Build returns the boot program made of systemd's stub (linuxx64.efi.stub, linuxaa64.efi.stub) and c.
func Build(stub []byte, c Contents) ([]byte, error) {
	h, err := readProgram(bytes.NewReader(stub))
	if err != nil {
		return nil, fmt.Errorf("build boot program: stub: %w", err)
	}
	if opt := h.optional(); binary.LittleEndian.Uint32(opt[optDirectories:]) > 4 && binary.LittleEndian.Uint32(opt[optSecurity:]) != 0 {
		return nil, fmt.Errorf("build boot program: stub is signed; expected an unsigned one, sign the result instead")
	}
	out := bytes.Clone(stub)
	if c.GRUB {
		if out, err = h.reserveGRUB(out); err != nil {
			return nil, fmt.Errorf("build boot program: section %s: %w", SectionGRUB, err)
		}
	}
	for _, s := range []struct {
		name    string
		content []byte
		flags   uint32
	}{
		{SectionOSRelease, []byte(c.OSRelease), sectionInitialized | sectionRead},
		{SectionCmdline, []byte(c.Cmdline), sectionInitialized | sectionRead},
		{SectionUname, []byte(c.Uname), sectionInitialized | sectionRead},
		{SectionLinux, c.Linux, sectionCode | sectionRead},
		{SectionInitrd, c.Initrd, sectionInitialized | sectionRead},
	} {
		if len(s.content) == 0 {
			return nil, fmt.Errorf("build boot program: section %s is empty", s.name)
		}
		if out, err = h.add(out, s.name, s.content, s.flags); err != nil {
			return nil, fmt.Errorf("build boot program: section %s: %w", s.name, err)
		}
	}
	if err := h.matchNX(c.Linux); err != nil {
		return nil, fmt.Errorf("build boot program: kernel: %w", err)
	}
	copy(out, h.raw)
	if c.GRUB {
		script, err := h.grubScript(c.Cmdline)
		if err != nil {
			return nil, fmt.Errorf("build boot program: section %s: %w", SectionGRUB, err)
		}
		copy(out[GRUBOffset:], script)
	}
	return out, nil
}

// add appends content to out and its entry to h's section table.
func (h *header) add(out []byte, name string, content []byte, flags uint32) ([]byte, error) {
	for _, s := range h.sections {
		if s.Name == name {
			return nil, fmt.Errorf("the stub already has one")
		}
	}
	entry := h.tableEnd()
	// One entry stays free, as ukify leaves it: some loaders look for a zero entry at the end.
	if entry+2*sectionSize > len(h.raw) {
		return nil, fmt.Errorf("no room in headers of %d bytes for section %d", len(h.raw), len(h.sections)+1)
	}
	opt := h.optional()
	align := int64(binary.LittleEndian.Uint32(opt[optSectionAlignment:]))
	address := roundUp(h.memoryEnd(), align)
	offset := roundUp(int64(len(out)), fileAlign)
	padded := roundUp(int64(len(content)), fileAlign)
	if offset+padded > maxProgramSize || roundUp(address+int64(len(content)), align) > maxProgramSize {
		return nil, fmt.Errorf("program would be larger than %d bytes", maxProgramSize)
	}

	e := h.raw[entry:]
	copy(e[:8], name)
	binary.LittleEndian.PutUint32(e[8:], uint32(len(content)))
	binary.LittleEndian.PutUint32(e[12:], uint32(address))
	binary.LittleEndian.PutUint32(e[16:], uint32(padded))
	binary.LittleEndian.PutUint32(e[20:], uint32(offset))
	clear(e[24:36]) // relocations and line numbers: none
	binary.LittleEndian.PutUint32(e[36:], flags)

	h.sections = append(h.sections, Section{Name: name, Offset: offset, Size: int64(len(content)),
		address: uint32(address), memory: uint32(len(content)), padded: uint32(padded)})
	binary.LittleEndian.PutUint16(h.raw[h.pe+6:], uint16(len(h.sections)))
	data := binary.LittleEndian.Uint32(opt[optInitializedData:])
	binary.LittleEndian.PutUint32(opt[optInitializedData:], data+uint32(len(content)))
	binary.LittleEndian.PutUint32(opt[optSizeOfImage:], uint32(roundUp(address+int64(len(content)), align)))
	binary.LittleEndian.PutUint32(opt[optChecksum:], 0) // firmware does not look at it

	out = append(out, make([]byte, offset-int64(len(out)))...)
	out = append(out, content...)
	return append(out, make([]byte, padded-int64(len(content)))...), nil
}

// matchNX takes the flag "works with non-executable data" from the program unless the kernel has it too: firmware
// that enforces it would otherwise stop the kernel, which runs inside the program.
func (h *header) matchNX(linux []byte) error {
	k, err := readHeader(bytes.NewReader(linux))
	if err != nil {
		return err
	}
	if binary.LittleEndian.Uint16(k.optional()[optDLLFlags:])&flagNXCompat == 0 {
		flags := h.optional()[optDLLFlags:]
		binary.LittleEndian.PutUint16(flags, binary.LittleEndian.Uint16(flags)&^flagNXCompat)
	}
	return nil
}
