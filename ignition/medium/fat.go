package medium

import (
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"unicode/utf16"
)

// fat is a FAT file system; which of the three is decided by the number of clusters alone.
type fat struct {
	r         io.ReaderAt
	bits      int
	table     int64 // byte offsets of the first table,
	rootAt    int64 // of the fixed root directory of FAT12 and 16,
	data      int64 // and of cluster 2
	rootSize  int64
	cluster   int64 // bytes
	clusters  int64
	rootFirst int64 // first cluster of FAT32's root
}

func openFAT(r io.ReaderAt) (*Volume, error) {
	b, err := probe(r, 0, 512)
	if err != nil {
		return nil, err
	}
	u16 := func(at int) int64 { return int64(binary.LittleEndian.Uint16(b[at:])) }
	u32 := func(at int) int64 { return int64(binary.LittleEndian.Uint32(b[at:])) }
	sector, perCluster, tables := u16(11), int64(b[13]), int64(b[16])
	size, length := u16(22), u16(19)
	if size == 0 {
		size = u32(36)
	}
	if length == 0 {
		length = u32(32)
	}
	powers := sector >= 512 && sector <= 4096 && sector&(sector-1) == 0 && perCluster > 0 && perCluster&(perCluster-1) == 0
	if u16(510) != 0xaa55 || !powers || tables == 0 || tables > 4 || u16(14) == 0 || size == 0 {
		return nil, errFormat
	}
	t := &fat{r: r, table: u16(14) * sector, cluster: sector * perCluster, rootSize: u16(17) * 32}
	t.rootAt = t.table + tables*size*sector
	t.data = t.rootAt + (t.rootSize+sector-1)/sector*sector
	if t.clusters = (length*sector - t.data) / t.cluster; t.clusters <= 0 {
		return nil, errFormat
	}
	v := &Volume{Kind: "vfat", root: entry{dir: true}, tree: t}
	switch {
	case t.clusters < 4085:
		t.bits = 12
	case t.clusters < 65525:
		t.bits = 16
	default:
		t.bits, t.rootFirst = 32, u32(44)
	}
	raw, err := t.directory(v.root)
	if err != nil {
		return nil, err
	}
	for ; len(raw) >= 32 && raw[0] != 0; raw = raw[32:] {
		if raw[11]&0x3f == 8 && raw[0] != 0xe5 {
			v.Label = strings.TrimRight(string(raw[:11]), " ")
		}
	}
	return v, nil
}

// chain returns the content behind a first cluster, up to limit bytes.
func (t *fat) chain(first, limit int64) ([]byte, error) {
	var all []byte
	for n := first; int64(len(all)) < limit; {
		if n < 2 || n >= t.clusters+2 {
			return nil, errors.New("a chain of clusters leaves the medium")
		}
		b, err := readAt(t.r, t.data+(n-2)*t.cluster, min(t.cluster, limit-int64(len(all))))
		if err != nil {
			return nil, err
		}
		all = append(all, b...)
		if n, err = t.next(n); err != nil {
			return nil, err
		}
		if n >= 1<<t.width()-8 {
			break
		}
	}
	return all, nil
}

func (t *fat) width() int { return min(t.bits, 28) }

// next looks a cluster up in the table.
func (t *fat) next(n int64) (int64, error) {
	at := n * int64(t.bits) / 8
	b, err := readAt(t.r, t.table+at, int64(t.bits+7)/8)
	if err != nil {
		return 0, err
	}
	switch t.bits {
	case 12:
		v := int64(binary.LittleEndian.Uint16(b))
		if n%2 == 1 {
			return v >> 4, nil
		}
		return v & 0xfff, nil
	case 16:
		return int64(binary.LittleEndian.Uint16(b)), nil
	}
	return int64(binary.LittleEndian.Uint32(b) & 0x0fffffff), nil
}

func (t *fat) directory(dir entry) ([]byte, error) {
	switch {
	case dir.at == 0 && t.bits == 32:
		return t.chain(t.rootFirst, maxDir)
	case dir.at == 0:
		return readAt(t.r, t.rootAt, t.rootSize)
	}
	return t.chain(dir.at, maxDir)
}

func (t *fat) list(dir entry) (all []entry, err error) {
	b, err := t.directory(dir)
	if err != nil {
		return nil, err
	}
	var long [20 * 13]uint16
	n, sum := 0, byte(0) // units of the long name, and the checksum of the short one it belongs to
	for ; len(b) >= 32 && b[0] != 0; b = b[32:] {
		switch {
		case b[0] == 0xe5:
			n = 0
		case b[11] == 0x0f:
			if b[0]&0x40 != 0 {
				n, sum = 13*min(int(b[0]&0x3f), 20), b[13]
			}
			longPart(long[:], b)
		case b[11]&8 == 0:
			e := entry{name: shortName(b), dir: b[11]&0x10 != 0, size: int64(binary.LittleEndian.Uint32(b[28:]))}
			e.at = int64(binary.LittleEndian.Uint16(b[26:]))
			if t.bits == 32 {
				e.at |= int64(binary.LittleEndian.Uint16(b[20:])) << 16
			}
			if n > 0 && checksum(b[:11]) == sum {
				name, _, _ := strings.Cut(string(utf16.Decode(long[:n])), "\x00")
				e.name = strings.TrimRight(name, "\uffff")
			}
			if n = 0; e.name != "." && e.name != ".." {
				all = append(all, e)
			}
		}
	}
	return all, nil
}

// longPart stores the 13 characters of one entry of a long name.
func longPart(long []uint16, b []byte) {
	at := 13 * (int(b[0]&0x3f) - 1)
	if at < 0 || at+13 > len(long) {
		return
	}
	for i, from := range [13]int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30} {
		long[at+i] = binary.LittleEndian.Uint16(b[from:])
	}
}

func shortName(b []byte) string {
	name := strings.TrimRight(string(b[:8]), " ")
	if ext := strings.TrimRight(string(b[8:11]), " "); ext != "" {
		name += "." + ext
	}
	return name
}

func checksum(short []byte) (sum byte) {
	for _, c := range short {
		sum = sum>>1 | sum<<7
		sum += c
	}
	return sum
}

func (t *fat) read(file entry, _ int64) ([]byte, error) {
	if file.size == 0 {
		return nil, nil
	}
	b, err := t.chain(file.at, file.size)
	if err == nil && int64(len(b)) < file.size {
		err = io.ErrUnexpectedEOF
	}
	return b, err
}
