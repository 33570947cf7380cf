// Package fat writes and reads FAT32 file systems, for the EFI system partition (Microsoft "FAT32 File System
// Specification" 1.03; UEFI 2.10, 13.3 adopts it).
//
// Write makes a whole file system from a list of files; it does not change an existing one. A test that wants to
// change an ESP reads it with Open and Files and writes it anew. Everything is deterministic: order, serial number
// and times are the caller's. Sectors have 512 or 4096 bytes. A file system with the larger ones works on disks of
// both kinds, since its sectors only have to be whole ones of the disk; with the smaller ones it does not on a disk with 4096.
//
//	sector             content
//	0                  boot sector: the numbers below; no boot code
//	1                  FSInfo: count of free clusters, where to look for one
//	6, 7               copies of 0 and 1
//	32                 first file allocation table (FAT)
//	32+f               second FAT, the same
//	32+2f              cluster 2: the root directory
//	                   then the other directories, then the files, each in consecutive clusters
//
// A cluster has 4096 bytes, in file systems below 260 MiB with small sectors 512, as Microsoft's format makes them; the size
// of a FAT, f, is rounded up so that clusters are aligned to 4096 bytes. The words below are at the same places in a sector
// of any size.
//
// A directory entry, 32 bytes:
//
//	offset size
//	0      11   short name, upper case, padded with spaces
//	11     1    attributes: 0x10 directory, 0x20 file, 0x08 volume label, 0x0f part of a long name
//	13     1    hundredths of a second: 0 or 100
//	14     4    time and date made
//	18     2    date read
//	20     2    first cluster, high half
//	22     4    time and date written
//	26     2    first cluster, low half
//	28     4    size in bytes, 0 for directories
//
// A name that is not a short name in upper case is kept in long name entries in front of that, 13 UTF-16 units each,
// last part first; each has the check sum of the short name at offset 13. Names are limited to printable ASCII.
package fat

import (
	"fmt"
	"io"
	"time"
)

const (
	headerSize = 512 // bytes of boot sector and FSInfo that mean something
	reserved   = 32  // sectors in front of the first FAT
	fats       = 2
	rootDir    = 2     // cluster
	minFAT32   = 65525 // clusters: with fewer it would be a FAT16
	maxFAT32   = 1<<28 - 16
	endOfChain = 0x0fffffff
	entrySize  = 32 // bytes of a directory entry
	maxFile    = 1<<32 - 1

	attrReadOnly = 0x01
	attrVolume   = 0x08
	attrDir      = 0x10
	attrFile     = 0x20
	attrLong     = 0x0f
)

// Options say what is not in the files.
type Options struct {
	Size   int64     // bytes of the file system, whole sectors are used
	Label  string    // up to 11 characters of upper case, digits, "_" and "-"; may be empty
	Serial uint32    // the volume's serial number; Linux shows it as UUID XXXX-XXXX
	Time   time.Time // of every file; kept in UTC to two seconds, before 1980 as 1980
	// SectorSize is in bytes: 512, also if it is zero, or 4096.
	SectorSize int
	// HiddenSectors is how many sectors of the disk precede the file system. Firmware does not look at it.
	HiddenSectors uint32
}

// A File is a path with its content. Directories on the way need not be listed; a path that ends in "/" makes an
// empty one.
type File struct {
	Path string // with slashes; a leading one does not matter
	Size int64
	Open func() (io.ReadCloser, error) // not called for directories
}

// geometry is where things are.
type geometry struct {
	sectorSize int64 // bytes
	sectors    int64 // of the file system
	perCluster int64 // sectors
	fatSectors int64 // of one FAT
	clusters   int64 // of data, the first is number 2
}

// newGeometry fits a file system into size bytes.
func newGeometry(size int64, sectorSize int) (geometry, error) {
	g := geometry{sectorSize: int64(sectorSize), perCluster: 1}
	switch {
	case sectorSize == 0:
		g.sectorSize = 512
	case sectorSize != 512 && sectorSize != 4096:
		return geometry{}, fmt.Errorf("sector size is %d, expected 512 or 4096", sectorSize)
	}
	g.sectors = size / g.sectorSize
	if g.sectorSize == 512 && size >= 260<<20 {
		g.perCluster = 8
	}
	// A FAT that has room for all clusters there could be if the FATs had no size is large enough.
	most := max(g.sectors-reserved, 0) / g.perCluster
	align := 4096 / g.sectorSize
	g.fatSectors = (((most+2)*4+g.sectorSize-1)/g.sectorSize + align - 1) / align * align
	g.clusters = (g.sectors - reserved - fats*g.fatSectors) / g.perCluster
	if g.clusters < minFAT32 || g.clusters > maxFAT32 || g.sectors > 1<<32-1 {
		return geometry{}, fmt.Errorf("%d bytes are not a size for FAT32 with sectors of %d bytes: expected %d MiB to 1 TiB", size, g.sectorSize, 32*g.sectorSize/512+1)
	}
	return g, nil
}

func (g geometry) clusterSize() int64 { return g.perCluster * g.sectorSize }

// offset returns where a cluster is, in bytes.
func (g geometry) offset(cluster uint32) int64 {
	return (reserved+fats*g.fatSectors)*g.sectorSize + int64(cluster-rootDir)*g.clusterSize()
}
