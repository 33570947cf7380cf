// Package uki builds boot programs and looks into them: unified kernel images, UEFI programs that carry kernel,
// initramfs and command line as sections behind systemd's stub (UAPI Group specification "Unified Kernel Image";
// systemd-stub(7)).
//
// image-builder makes the boot program of a release with Build. The update agent reads its command line with Open
// to learn, from the root hash in there, which slot it belongs to. GRUB and tests use the places of its sections.
//
// A boot program is a PE file (Microsoft PE Format):
//
//	offset               content
//	0                    DOS header; at 0x3c the offset of the next part
//	p                    "PE\0\0", COFF header (20 bytes)
//	p+24                 optional header, PE32+ (size in the COFF header)
//	behind               section table, 40 bytes a section, with room up to SizeOfHeaders
//	512-aligned          the stub's own sections (.text, .rodata, .data, .sbat, .sdmagic, .reloc)
//	0x40000              .grub, 4096 bytes, only where machines may have a BIOS
//	512-aligned          .osrel .cmdline .uname .linux .initrd
//
// Without .grub, Build does what systemd's ukify does, to the same addresses, and nothing else: no signing, no PCR
// policy, no profiles, and the stub's .sbat stays as it is. The result depends on the arguments alone. Open trusts nothing:
// sections outside the file, names that occur twice, and absurd sizes are errors.
//
// The section .grub lets GRUB, which knows neither PE files nor UEFI, boot the same file. It is a GRUB script at a place
// that GRUB's configuration can name without reading headers; systemd-stub does not look at it:
//
//	linux (uki)528+20000 'proa.roothash=...' 'console=ttyS0' $proa_extra
//	initrd (uki)20528+9000
//
// and newlines to its end. The numbers are the places of .linux and .initrd in blocks of 512 bytes; (uki) is a loopback
// device on the file and $proa_extra holds further words for the command line; GRUB's configuration makes both.
package uki

import "fmt"

// The sections of a boot program (systemd-stub(7)).
const (
	SectionOSRelease = ".osrel"
	SectionCmdline   = ".cmdline"
	SectionUname     = ".uname"
	SectionLinux     = ".linux"
	SectionInitrd    = ".initrd"
	SectionGRUB      = ".grub" // ours
)

// The place of .grub in the file, in bytes. GRUB's configuration, which lives as long as the disk's layout, counts on it.
const (
	GRUBOffset = 0x40000 // more than twice the size of systemd's stub
	GRUBSize   = 4096
)

// Contents is what Build puts behind the stub; each text and file must be there.
type Contents struct {
	OSRelease string // text of /usr/lib/os-release; systemd-boot shows and sorts by it
	Cmdline   string // kernel command line
	Uname     string // kernel release, as uname -r
	Linux     []byte // kernel, a PE file itself
	Initrd    []byte // initramfs, a cpio archive
	GRUB      bool   // add what GRUB needs to boot the program on a BIOS machine
}

const (
	dosPointer     = 0x3c // offset of the PE header's offset
	coffSize       = 20   // bytes, without the signature
	sectionSize    = 40   // bytes of an entry of the section table
	fileAlign      = 512  // bytes: what Build and Open expect of FileAlignment
	maxSections    = 96   // the limit of the PE format for Windows' loader, far above the stub's six
	maxProgramSize = 1 << 31
)

// Offsets in the optional header of PE32+.
const (
	optMagic            = 0
	optInitializedData  = 8
	optSectionAlignment = 32
	optFileAlignment    = 36
	optSizeOfImage      = 56
	optSizeOfHeaders    = 60
	optChecksum         = 64
	optDLLFlags         = 70
	optDirectories      = 108 // number of data directories; they follow, 8 bytes each
	optSecurity         = 112 + 4*8
	optMinSize          = optSecurity + 8
)

const (
	magicPE32Plus      = 0x20b
	flagNXCompat       = 0x0100     // DLL characteristics: the program works with non-executable data
	sectionCode        = 0x00000020 // contains code
	sectionInitialized = 0x00000040 // contains data
	sectionRead        = 0x40000000 // may be read in memory
)

// A Section is a part of a boot program.
type Section struct {
	Name   string
	Offset int64 // in the file, bytes; a multiple of 512
	Size   int64 // of the content, bytes, without the padding in the file

	address uint32 // in memory, from the image base
	memory  uint32 // bytes in memory
	padded  uint32 // bytes in the file
}

func (s Section) String() string { return fmt.Sprintf("%s at %d, %d bytes", s.Name, s.Offset, s.Size) }

func roundUp(n, unit int64) int64 { return (n + unit - 1) / unit * unit }
