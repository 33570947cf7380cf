package qcow2

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// Limits on what Open believes a header.
const (
	maxL1     = 32 << 20 // bytes, as QEMU (block/qcow2.h, QCOW_MAX_L1_SIZE)
	magic     = "QFI\xfb"
	flagZero  = 1 << 0 // of an uncompressed L2 entry
	offsetMax = 0x00fffffffffffe00
)

// A Disk is an opened image: an io.ReaderAt of the disk's bytes. It reads images without a backing file, data file, encryption or extended L2
// entries, compressed with zlib or zstd or not at all, which is what Write and `qemu-img convert` make. Snapshots are not looked at.
type Disk struct {
	r    io.ReaderAt
	size int64
	bits uint
	kind byte
	l1   []uint64

	mu     sync.Mutex
	tables map[int64][]byte // L2 tables that were read
	number int64            // of the cluster in data, -1 if none
	data   []byte
}

// IsQcow2 reports whether the first bytes of a file are those of a qcow2 image.
func IsQcow2(head []byte) bool { return bytes.HasPrefix(head, []byte(magic)) }

// Open reads the header and the L1 table.
func Open(r io.ReaderAt) (*Disk, error) {
	h := make([]byte, 112)
	if n, err := r.ReadAt(h, 0); n < 104 {
		return nil, fmt.Errorf("open qcow2: read header: %w", noEOF(err))
	}
	be := binary.BigEndian
	version, bits, length := be.Uint32(h[4:]), uint(be.Uint32(h[20:])), be.Uint32(h[100:])
	d := &Disk{r: r, size: int64(be.Uint64(h[24:])), bits: bits, tables: map[int64][]byte{}, number: -1}
	features := uint64(0)
	if version >= 3 {
		features = be.Uint64(h[72:])
	}
	if features&featureType != 0 && length > 104 {
		d.kind = h[104]
	}
	const dirty = 1 << 0
	entries := int64(be.Uint32(h[36:]))
	switch {
	case !IsQcow2(h):
		return nil, fmt.Errorf("open qcow2: expected the magic %q, found %q", magic, h[:4])
	case version != 2 && version != 3 || bits < 9 || bits > 21 || d.size < 0:
		return nil, fmt.Errorf("open qcow2: version %d, clusters of 2^%d bytes, %d bytes: not supported", version, bits, d.size)
	case be.Uint64(h[8:]) != 0 || be.Uint32(h[32:]) != 0:
		return nil, fmt.Errorf("open qcow2: images with a backing file or encryption are not supported: qemu-img convert makes one without")
	case features&^(featureType|dirty) != 0 || d.kind > typeZstd:
		return nil, fmt.Errorf("open qcow2: features %#x, compression %d: not supported", features, d.kind)
	case entries*8 > maxL1 || entries<<(2*bits-3) < d.size:
		return nil, fmt.Errorf("open qcow2: an L1 table of %d entries for %d bytes", entries, d.size)
	}
	raw := make([]byte, entries*8)
	if n, err := r.ReadAt(raw, int64(be.Uint64(h[40:]))); n < len(raw) {
		return nil, fmt.Errorf("open qcow2: read L1 table: %w", noEOF(err))
	}
	for i := range entries {
		d.l1 = append(d.l1, be.Uint64(raw[8*i:])&offsetMax)
	}
	return d, nil
}

// Size returns the disk's bytes.
func (d *Disk) Size() int64 { return d.size }

// ReadAt implements io.ReaderAt.
func (d *Disk) ReadAt(b []byte, off int64) (n int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if off < 0 {
		return 0, fmt.Errorf("read qcow2 at %d", off)
	}
	for n < len(b) && off < d.size {
		cluster, start := off>>d.bits, off&(1<<d.bits-1)
		part := b[n:min(len(b), n+int(min(1<<d.bits-start, d.size-off)))]
		if err := d.read(part, cluster, start); err != nil {
			return n, fmt.Errorf("read qcow2: cluster %d: %w", cluster, err)
		}
		n, off = n+len(part), off+int64(len(part))
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// read fills b from within a cluster.
func (d *Disk) read(b []byte, cluster, start int64) error {
	entry, err := d.entry(cluster)
	if err != nil {
		return err
	}
	switch {
	case entry&flagCompress != 0:
		if d.number != cluster {
			d.number = -1
			if err := d.unpack(entry); err != nil {
				return err
			}
			d.number = cluster
		}
		copy(b, d.data[start:])
	case entry&offsetMax == 0 || entry&flagZero != 0:
		clear(b)
	default:
		if n, err := d.r.ReadAt(b, int64(entry&offsetMax)+start); n < len(b) {
			return noEOF(err)
		}
	}
	return nil
}

// entry returns the L2 entry of a cluster.
func (d *Disk) entry(cluster int64) (uint64, error) {
	index := cluster >> (d.bits - 3)
	at := int64(d.l1[index])
	if at == 0 {
		return 0, nil
	}
	t, ok := d.tables[index]
	if !ok {
		t = make([]byte, 1<<d.bits)
		if n, err := d.r.ReadAt(t, at); n < len(t) {
			return 0, fmt.Errorf("L2 table: %w", noEOF(err))
		}
		d.tables[index] = t
	}
	return binary.BigEndian.Uint64(t[8*(cluster&(1<<(d.bits-3)-1)):]), nil
}

// unpack decompresses a cluster into data. The length in the entry is rounded up to sectors: what is behind the compressed data does not count.
func (d *Disk) unpack(entry uint64) error {
	split := 62 - (d.bits - 8)
	at := int64(entry & (1<<split - 1))
	sectors := int64(entry&(flagCompress-1)) >> split
	packed := make([]byte, (sectors+1)*sector-at%sector)
	n, err := d.r.ReadAt(packed, at)
	if n == 0 {
		return noEOF(err)
	}
	d.data = make([]byte, 1<<d.bits)
	if d.kind == 0 {
		_, err = io.ReadFull(flate.NewReader(bytes.NewReader(packed[:n])), d.data)
		return err
	}
	z, err := zstd.NewReader(bytes.NewReader(packed[:n]), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(1<<23))
	if err != nil {
		return err
	}
	defer z.Close()
	_, err = io.ReadFull(z, d.data)
	return err
}

func noEOF(err error) error {
	if err == io.EOF || err == nil {
		return io.ErrUnexpectedEOF
	}
	return err
}
