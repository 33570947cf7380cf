// Package qcow2 writes disk images in QEMU's format, version 3 (docs/interop/qcow2.rst in QEMU's source).
//
// It is the disk image for those who upload and hand around images: clusters of zeros are left out, the others are compressed with zstd, so
// the file has about the size of what it holds. QEMU 5.1 or newer reads it; writes to it go to uncompressed clusters, as always.
//
// The file depends on the disk's bytes and on the version of the compressor alone. Layout, in clusters of 64 KiB:
//
//	cluster         content
//	0               header, 112 bytes: no backing file, no snapshots, no encryption; incompatible feature 3 (compression type), type 1 (zstd)
//	1 ..            refcount table, one cluster
//	2 ..            refcount blocks, 16 bits a cluster
//	                L1 table, then the L2 tables that are not empty
//	                data: compressed clusters one behind the other, without padding between them
//
// An L2 entry of a compressed cluster has bit 62 set, in its low 54 bits the byte offset of the data, and above them how many 512-byte
// sectors it takes beyond the one it begins in. The refcount of a data cluster is the number of compressed clusters that
// touch it. A cluster that does not become smaller is stored as it is, in a cluster of its own.
package qcow2

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/klauspost/compress/zstd"
)

const (
	clusterBits = 16
	clusterSize = 1 << clusterBits
	perTable    = clusterSize / 8 // entries of an L1 or L2 table or of the refcount table in one cluster
	perBlock    = clusterSize / 2 // refcounts in one block
	sector      = 512

	headerSize   = 112
	featureType  = 1 << 3 // incompatible: the header names the compression
	typeZstd     = 1
	offsetBits   = 62 - (clusterBits - 8) // of a compressed cluster's L2 entry
	flagCopied   = 1 << 63                // refcount is 1
	flagCompress = 1 << 62
)

// Write writes size bytes of disk to the file name, which must not exist.
func Write(name string, disk io.ReaderAt, size int64) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("write qcow2: %w", err)
	}
	err = write(f, disk, size)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		os.Remove(name)
		return fmt.Errorf("write qcow2 %s: %w", name, err)
	}
	return nil
}

func write(w io.WriterAt, disk io.ReaderAt, size int64) error {
	used, err := findData(disk, size)
	if err != nil {
		return err
	}
	l := newLayout(size, used)
	at, err := l.writeData(w, disk, size, used)
	if err != nil {
		return err
	}
	return l.writeTables(w, size, at)
}

// layout is where things are, in clusters, and what the tables will say.
type layout struct {
	blocks, l1, l1Clusters, l2, data int64
	table                            map[int64][]uint64 // L2 tables by their number; only those that are not empty
	order                            []int64            // their numbers
	refs                             []uint16
}

// newLayout gives every table its place: how many refcount blocks there are is bounded by the size of the data, uncompressed.
func newLayout(size int64, used []int64) *layout {
	clusters := (size + clusterSize - 1) / clusterSize
	l := &layout{l1: (clusters + perTable - 1) / perTable, table: map[int64][]uint64{}}
	for _, c := range used {
		n := c / perTable
		if l.table[n] == nil {
			l.table[n] = make([]uint64, perTable)
			l.order = append(l.order, n)
		}
	}
	l.l1Clusters = (l.l1 + perTable - 1) / perTable
	fixed := 2 + l.l1Clusters + int64(len(l.order))
	for l.blocks = 1; l.blocks*perBlock < fixed+l.blocks+int64(len(used)); {
		l.blocks++
	}
	l.l2 = 2 + l.blocks + l.l1Clusters
	l.data = l.l2 + int64(len(l.order))
	return l
}

// piece is a cluster on its way through a compressor.
type piece struct {
	cluster int64
	packed  []byte // shorter than a cluster, or the cluster itself
	err     error
}

// writeData compresses on all CPUs, writes in order, and returns where the data end.
func (l *layout) writeData(w io.WriterAt, disk io.ReaderAt, size int64, used []int64) (int64, error) {
	at := l.data * clusterSize
	l.refs = make([]uint16, l.blocks*perBlock)
	for i := range l.data {
		l.refs[i] = 1
	}
	queue := make(chan chan piece, 4*runtime.GOMAXPROCS(0))
	stop := make(chan struct{})
	defer close(stop)
	go feed(queue, stop, disk, size, used)
	out := &appender{w: w, at: at}
	for answer := range queue {
		p := <-answer
		if p.err != nil {
			return 0, p.err
		}
		entry := uint64(flagCopied)
		if len(p.packed) == clusterSize {
			at = (at + clusterSize - 1) / clusterSize * clusterSize
			entry |= uint64(at)
		} else {
			extra := (at+int64(len(p.packed))-1)/sector - at/sector
			entry = flagCompress | uint64(extra)<<offsetBits | uint64(at)
		}
		if err := out.write(p.packed, at); err != nil {
			return 0, err
		}
		end := at + int64(len(p.packed))
		for c := at / clusterSize; c <= (end-1)/clusterSize; c++ {
			l.refs[c]++
		}
		l.table[p.cluster/perTable][p.cluster%perTable] = entry
		at = end
	}
	return at, out.flush()
}

// feed hands the clusters to compressors, one per CPU, and the answers, in order, to queue.
func feed(queue chan<- chan piece, stop <-chan struct{}, disk io.ReaderAt, size int64, used []int64) {
	defer close(queue)
	type job struct {
		cluster int64
		answer  chan piece
	}
	jobs := make(chan job)
	defer close(jobs)
	for range runtime.GOMAXPROCS(0) {
		go func() {
			// One goroutine, so that the result never depends on timing.
			enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false), zstd.WithWindowSize(clusterSize))
			for j := range jobs {
				p := piece{cluster: j.cluster, err: err}
				raw := make([]byte, clusterSize)
				if err == nil {
					p.err = readCluster(disk, size, j.cluster, raw)
				}
				if p.err == nil {
					p.packed = enc.EncodeAll(raw, make([]byte, 0, clusterSize+1024))
				}
				if len(p.packed) >= clusterSize {
					p.packed = raw
				}
				j.answer <- p
			}
		}()
	}
	for _, c := range used {
		answer := make(chan piece, 1)
		select {
		case jobs <- job{c, answer}:
		case <-stop:
			return
		}
		select {
		case queue <- answer:
		case <-stop:
			return
		}
	}
}

// readCluster fills b; behind the end of the disk there are zeros.
func readCluster(disk io.ReaderAt, size, cluster int64, b []byte) error {
	n := min(size-cluster*clusterSize, clusterSize)
	if got, err := disk.ReadAt(b[:n], cluster*clusterSize); int64(got) < n {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	clear(b[n:])
	return nil
}

// appender collects small writes that follow one another.
type appender struct {
	w   io.WriterAt
	buf []byte
	at  int64 // where buf begins
}

func (a *appender) write(b []byte, at int64) error {
	if at != a.at+int64(len(a.buf)) || len(a.buf) > 1<<20 {
		if err := a.flush(); err != nil {
			return err
		}
		a.at = at
	}
	a.buf = append(a.buf, b...)
	return nil
}

func (a *appender) flush() error {
	_, err := a.w.WriteAt(a.buf, a.at)
	a.at += int64(len(a.buf))
	a.buf = a.buf[:0]
	return err
}

// writeTables writes everything in front of the data, and fills up the last cluster.
func (l *layout) writeTables(w io.WriterAt, size, end int64) error {
	be := binary.BigEndian
	head := make([]byte, l.data*clusterSize)
	copy(head, "QFI\xfb")
	be.PutUint32(head[4:], 3)
	be.PutUint32(head[20:], clusterBits)
	be.PutUint64(head[24:], uint64(size))
	be.PutUint32(head[36:], uint32(l.l1))
	be.PutUint64(head[40:], uint64(2+l.blocks)*clusterSize)
	be.PutUint64(head[48:], 1*clusterSize) // refcount table
	be.PutUint32(head[56:], 1)             // of one cluster
	be.PutUint64(head[72:], featureType)
	be.PutUint32(head[96:], 4) // refcounts of 1<<4 bits
	be.PutUint32(head[100:], headerSize)
	head[104] = typeZstd
	for i := range l.blocks {
		be.PutUint64(head[clusterSize+8*i:], uint64(2+i)*clusterSize)
	}
	for i, n := range l.refs {
		be.PutUint16(head[2*clusterSize+2*i:], n)
	}
	l1 := head[(2+l.blocks)*clusterSize:]
	for i, n := range l.order {
		place := l.l2 + int64(i)
		be.PutUint64(l1[8*n:], flagCopied|uint64(place)*clusterSize)
		for j, entry := range l.table[n] {
			be.PutUint64(head[place*clusterSize+8*int64(j):], entry)
		}
	}
	if rest := end % clusterSize; rest != 0 {
		if _, err := w.WriteAt(bytes.Repeat([]byte{0}, int(clusterSize-rest)), end); err != nil {
			return err
		}
	}
	_, err := w.WriteAt(head, 0)
	return err
}
