package uki

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// An addon is a UEFI program without code, which systemd-stub does not start: it asks the firmware to load it, so that the firmware checks
// its signature where Secure Boot is on, and takes the sections (systemd-stub(7), "/loader/addons/*.addon.efi"). This one has one section:
//
//	offset 0       DOS header; at 0x3c the offset of the next part, 0x80
//	0x80           "PE\0\0", COFF header, optional header (PE32+) with 16 empty directories, section table of one entry
//	0x200          .cmdline, to its end; padded to a multiple of 512
//
// In memory the section is at 0x1000. There are no relocations and there is no code, so it does not matter where firmware puts it.
const (
	addonHeaderAt    = 0x80 // more than 64: systemd-stub takes nothing less (src/boot/pe.c, verify_dos)
	addonHeaders     = 0x200
	addonAddress     = 0x1000
	addonDirectories = 16
	addonOptional    = optDirectories + 4 + 8*addonDirectories

	// COFF and DLL characteristics of systemd's own addon: executable, without line numbers, symbols and debug information, at any address.
	addonCOFF    = 0x0002 | 0x0004 | 0x0008 | 0x0020 | 0x0200
	addonDLL     = flagNXCompat | 0x0040 | 0x0020
	subsystemEFI = 10 // EFI application
)

// Offsets in the optional header that nothing else here needs.
const (
	optEntry     = 16
	optSubsystem = 68
)

// Addon returns an addon with words for the kernel command line, for UEFI programs of a machine type of PE files (arch.Arch).
func Addon(machine uint16, line string) ([]byte, error) {
	if line == "" || len(line) > maxCmdline || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return nil, errors.New("build addon: expected one line of text for the kernel command line")
	}
	out := make([]byte, roundUp(addonHeaders+int64(len(line)), fileAlign))
	copy(out, "MZ")
	binary.LittleEndian.PutUint32(out[dosPointer:], addonHeaderAt)
	pe := out[addonHeaderAt:]
	copy(pe, "PE\x00\x00")
	binary.LittleEndian.PutUint16(pe[4:], machine)
	binary.LittleEndian.PutUint16(pe[6:], 1) // sections
	binary.LittleEndian.PutUint16(pe[20:], addonOptional)
	binary.LittleEndian.PutUint16(pe[22:], addonCOFF)

	padded := uint32(len(out) - addonHeaders)
	opt := pe[4+coffSize:]
	binary.LittleEndian.PutUint16(opt[optMagic:], magicPE32Plus)
	binary.LittleEndian.PutUint32(opt[optInitializedData:], padded)
	binary.LittleEndian.PutUint32(opt[optEntry:], addonAddress) // nothing runs there: the section is not executable
	binary.LittleEndian.PutUint32(opt[optSectionAlignment:], addonAddress)
	binary.LittleEndian.PutUint32(opt[optFileAlignment:], fileAlign)
	binary.LittleEndian.PutUint32(opt[optSizeOfImage:], uint32(roundUp(addonAddress+int64(len(line)), addonAddress)))
	binary.LittleEndian.PutUint32(opt[optSizeOfHeaders:], addonHeaders)
	binary.LittleEndian.PutUint16(opt[optSubsystem:], subsystemEFI)
	binary.LittleEndian.PutUint16(opt[optDLLFlags:], addonDLL)
	binary.LittleEndian.PutUint32(opt[optDirectories:], addonDirectories)

	s := opt[addonOptional:]
	copy(s, SectionCmdline)
	binary.LittleEndian.PutUint32(s[8:], uint32(len(line)))
	binary.LittleEndian.PutUint32(s[12:], addonAddress)
	binary.LittleEndian.PutUint32(s[16:], padded)
	binary.LittleEndian.PutUint32(s[20:], addonHeaders)
	binary.LittleEndian.PutUint32(s[36:], sectionInitialized|sectionRead)
	copy(out[addonHeaders:], line)
	return out, nil
}

// ReadAddon returns the words of an addon.
func ReadAddon(b []byte) (string, error) {
	p, err := Open(bytes.NewReader(b))
	if err != nil {
		return "", fmt.Errorf("read addon: %w", err)
	}
	return p.Cmdline()
}
