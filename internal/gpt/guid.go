package gpt

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// A GUID is the canonical text of a globally unique identifier: 36 characters, lower case, as
// "c12a7328-f81f-11d2-ba4b-00a0c93ec93b". The empty GUID stands for the all-zero one, which marks an unused
// entry. Values not made by ParseGUID or NewGUID are checked by Table.Validate.
type GUID string

// Partition types (UEFI 2.10, 5.3.3, table 5.7; Discoverable Partitions Specification; GRUB manual for BIOS boot).
const (
	TypeESP       GUID = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b" // EFI system partition
	TypeBIOSBoot  GUID = "21686148-6449-6e6f-744e-656564454649" // GRUB core image
	TypeRootAMD64 GUID = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709" // root partition, x86-64
	TypeRootARM64 GUID = "b921b045-1df0-41c3-af44-4c6f280d3fae" // root partition, 64-bit ARM
	TypeLinux     GUID = "0fc63daf-8483-4772-8e79-3d69d8477de4" // generic Linux file system
)

// NewGUID makes a GUID from sixteen bytes in the order of the text, such as the start of a hash. Version and
// variant are set to 8, "custom" (RFC 9562, 5.8), so 122 bits of b remain.
func NewGUID(b [16]byte) GUID {
	b[6] = b[6]&0x0f | 0x80
	b[8] = b[8]&0x3f | 0x80
	return format(b)
}

// ParseGUID reads the text of a GUID in either case.
func ParseGUID(s string) (GUID, error) {
	g := GUID(strings.ToLower(s))
	if _, err := g.bytes(); err != nil || g == "" {
		return "", fmt.Errorf("parse GUID %q: want hexadecimal digits grouped 8-4-4-4-12", s)
	}
	return g, nil
}

func (g GUID) String() string { return string(g) }

// bytes returns the sixteen bytes in the order of the text.
func (g GUID) bytes() ([16]byte, error) {
	var b [16]byte
	if g == "" {
		return b, nil
	}
	if len(g) != 36 || g[8] != '-' || g[13] != '-' || g[18] != '-' || g[23] != '-' {
		return b, fmt.Errorf("GUID %q is malformed", string(g))
	}
	if n, err := hex.Decode(b[:], []byte(strings.ReplaceAll(string(g), "-", ""))); err != nil || n != len(b) {
		return b, fmt.Errorf("GUID %q is malformed", string(g))
	}
	return b, nil
}

func format(b [16]byte) GUID {
	return GUID(fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]))
}

// swap turns text order into disk order and back: the first three groups are little-endian on disk, the last
// two are not (UEFI 2.10, appendix A).
func swap(b [16]byte) [16]byte {
	b[0], b[1], b[2], b[3] = b[3], b[2], b[1], b[0]
	b[4], b[5] = b[5], b[4]
	b[6], b[7] = b[7], b[6]
	return b
}

// decodeGUID reads the sixteen bytes of a GUID on disk.
func decodeGUID(disk []byte) GUID {
	b := [16]byte(disk[:16])
	if b == [16]byte{} {
		return ""
	}
	return format(swap(b))
}

// encodeGUID is the inverse of decodeGUID for a valid GUID.
func encodeGUID(disk []byte, g GUID) {
	b, _ := g.bytes() // Validate has looked at it
	b = swap(b)
	copy(disk, b[:])
}
