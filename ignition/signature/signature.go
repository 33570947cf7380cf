// Package signature tells what a disk or a partition holds, by the marks that file systems, encrypted volumes, arrays and partition
// tables leave at fixed places, and makes swap areas, which are nothing but such a mark.
//
// Ignition reuses a file system whose type, label and UUID are as the config says, and refuses to make another one over something it
// was not allowed to wipe: this package is its eyes. Where libblkid probes everything there is, this knows what a config can make,
// and names the rest well enough to be left alone. Types are libblkid's names; what it calls crypto_LUKS is told apart by version.
//
//	type               place of the mark                              UUID, label
//	ext2, ext3, ext4   byte 1080, 53 ef; features tell which          1128, 1144
//	xfs                0, "XFSB"                                      32, 108
//	btrfs              65600, "_BHRfS_M"                              65568, 65835
//	vfat               510, 55 aa; 82 "FAT32" or 54 "FAT12", "FAT16"  67, 71 or 39, 43
//	swap               page size - 10, "SWAPSPACE2"                   1036, 1052
//	luks1, luks2       0, "LUKS" ba be, version                       168 as text, 24 (luks2)
//	linux_raid_member  4096, 0 or near the end, fc 4e 2b a9           16, 32 from there
//	LVM2_member        536, "LVM2 001"
//	gpt, dos           512 or 4096 "EFI PART"; 510, 55 aa and entries
//	zfs_member         128 KiB to 256 KiB of each of four labels of 256 KiB, two at either end: 0c b1 ba each KiB or more
//
// What else is named is in strange.go.
package signature

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

// A Signature is one thing found.
type Signature struct{ Type, Label, UUID string }

func (s Signature) String() string {
	text := s.Type
	if s.Label != "" {
		text += fmt.Sprintf(" %q", s.Label)
	}
	if s.UUID != "" {
		text += " with UUID " + s.UUID
	}
	return text
}

const headSize = 65536 + 4096

// Probe lists what a device of size bytes holds; nothing is no error. More than one thing is found where an earlier one was not wiped.
func Probe(r io.ReaderAt, size int64) ([]Signature, error) {
	head := make([]byte, headSize)
	if err := readAt(r, head[:min(size, headSize)], 0); err != nil {
		return nil, err
	}
	var found []Signature
	for _, probe := range []func([]byte) (Signature, bool){ext, xfs, btrfs, luks, lvm, swap, vfat} {
		if s, ok := probe(head); ok {
			found = append(found, s)
		}
	}
	array, err := raid(r, size)
	if found = append(found, array...); len(found) > 0 || err != nil {
		return found, err
	}
	name, err := strange(r, size)
	if name != "" || err != nil {
		return []Signature{{Type: name}}, err
	}
	if s, ok := tables(head); ok {
		found = append(found, s)
	}
	return found, nil
}

// Erase takes every mark away: the first and the last MiB of a device of size bytes become zeros.
func Erase(w io.WriterAt, size int64) error {
	zero := make([]byte, min(size, 1<<20))
	for _, at := range []int64{size - int64(len(zero)), 0} {
		if _, err := w.WriteAt(zero, at); err != nil {
			return fmt.Errorf("erase signatures: %w", err)
		}
	}
	return nil
}

func text(b []byte) string {
	if n := bytes.IndexByte(b, 0); n >= 0 {
		b = b[:n]
	}
	return strings.ToValidUTF8(string(b), "\uFFFD")
}

func uuid(b []byte) string {
	if bytes.Equal(b[:16], make([]byte, 16)) {
		return ""
	}
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// ext tells the three apart as libblkid does: ext4 has features that ext3 has not, ext3 has a journal
// (the kernel's Documentation/filesystems/ext4/super.rst).
func ext(b []byte) (Signature, bool) {
	sb := b[1024:]
	if binary.LittleEndian.Uint16(sb[0x38:]) != 0xef53 {
		return Signature{}, false
	}
	const journal, incompat3, readOnly3 = 0x4, 0x2 | 0x4 | 0x10, 0x1 | 0x2 | 0x4
	s := Signature{Type: "ext2", Label: text(sb[0x78:0x88]), UUID: uuid(sb[0x68:])}
	switch compat := binary.LittleEndian.Uint32(sb[0x5c:]); {
	case binary.LittleEndian.Uint32(sb[0x60:])&^incompat3 != 0 || binary.LittleEndian.Uint32(sb[0x64:])&^readOnly3 != 0:
		s.Type = "ext4"
	case compat&journal != 0:
		s.Type = "ext3"
	}
	return s, true
}

func xfs(b []byte) (Signature, bool) {
	return Signature{Type: "xfs", Label: text(b[108:120]), UUID: uuid(b[32:])}, string(b[:4]) == "XFSB"
}

func btrfs(b []byte) (Signature, bool) {
	sb := b[65536:]
	return Signature{Type: "btrfs", Label: text(sb[0x12b : 0x12b+256]), UUID: uuid(sb[0x20:])}, string(sb[0x40:0x48]) == "_BHRfS_M"
}

func luks(b []byte) (Signature, bool) {
	if string(b[:6]) != "LUKS\xba\xbe" {
		return Signature{}, false
	}
	s := Signature{Type: fmt.Sprintf("luks%d", binary.BigEndian.Uint16(b[6:])), UUID: text(b[168:208])}
	if s.Type == "luks2" {
		s.Label = text(b[24:72])
	}
	return s, true
}

func lvm(b []byte) (Signature, bool) {
	return Signature{Type: "LVM2_member"}, string(b[512:520]) == "LABELONE" && string(b[536:544]) == "LVM2 001"
}

// swap may have been made for another page size.
func swap(b []byte) (Signature, bool) {
	for _, page := range []int{4096, 8192, 16384, 65536} {
		if string(b[page-10:page]) == swapMark {
			return Signature{Type: "swap", Label: text(b[swapLabel : swapLabel+16]), UUID: uuid(b[swapUUID:])}, true
		}
	}
	return Signature{}, false
}

// vfat wants more than the mark of a boot sector: a sector size, and a name of the format.
func vfat(b []byte) (Signature, bool) {
	sector := binary.LittleEndian.Uint16(b[11:])
	if b[510] != 0x55 || b[511] != 0xaa || sector < 512 || sector > 4096 || sector&(sector-1) != 0 {
		return Signature{}, false
	}
	at := 0
	switch {
	case string(b[82:87]) == "FAT32":
		at = 67
	case string(b[54:59]) == "FAT12" || string(b[54:59]) == "FAT16":
		at = 39
	default:
		return Signature{}, false
	}
	s := Signature{Type: "vfat", Label: strings.TrimRight(text(b[at+4:at+15]), " "), UUID: fmt.Sprintf("%02X%02X-%02X%02X", b[at+3], b[at+2], b[at+1], b[at])}
	if s.Label == "NO NAME" {
		s.Label = ""
	}
	return s, true
}

// raid looks where the versions of md's superblock are: 1.2, 1.1, 1.0, 0.90 (the kernel's include/uapi/linux/raid/md_p.h).
func raid(r io.ReaderAt, size int64) ([]Signature, error) {
	const magic = 0xa92b4efc
	for _, at := range []int64{4096, 0, (size - 8192) &^ 4095, size&^65535 - 65536} {
		b := make([]byte, 64)
		if err := readAt(r, b, at); err != nil {
			return nil, err
		}
		if binary.LittleEndian.Uint32(b) != magic {
			continue
		}
		if binary.LittleEndian.Uint32(b[4:]) == 1 {
			return []Signature{{Type: "linux_raid_member", UUID: uuid(b[16:]), Label: text(b[32:])}}, nil
		}
		return []Signature{{Type: "linux_raid_member"}}, nil
	}
	return nil, nil
}

// tables finds partition tables. An MBR counts if it has an entry, the protective one of a GPT not by itself; others without that one mean
// that the GPT is a former one, as for the kernel (block/partitions/efi.c).
func tables(b []byte) (Signature, bool) {
	dos := false
	if b[510] == 0x55 && b[511] == 0xaa {
		for e := 446; e < 510; e += 16 {
			if b[e]&0x7f == 0 && b[e+4] != 0 && binary.LittleEndian.Uint32(b[e+12:]) != 0 {
				if b[e+4] == 0xee {
					return Signature{Type: "gpt"}, true
				}
				dos = true
			}
		}
	}
	if dos {
		return Signature{Type: "dos"}, true
	}
	return Signature{Type: "gpt"}, string(b[512:520]) == "EFI PART" || string(b[4096:4104]) == "EFI PART"
}
