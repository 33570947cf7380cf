package fat

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"
)

// Write makes a file system of o.Size bytes from w's offset 0 on. Besides the head it writes only clusters in use;
// what was in the others stays there, unreferenced, so a sparse file stays sparse.
func Write(w io.WriterAt, o Options, files []File) error {
	if err := write(w, o, files); err != nil {
		return fmt.Errorf("write FAT file system: %w", err)
	}
	return nil
}

func write(w io.WriterAt, o Options, files []File) error {
	g, err := newGeometry(o.Size, o.SectorSize)
	if err != nil {
		return err
	}
	label, err := packLabel(o.Label)
	if err != nil {
		return err
	}
	root, err := plant(files)
	if err != nil {
		return err
	}
	v := &volume{geometry: g, w: w, label: label, labelled: o.Label != "", stamp: newStamp(o.Time), table: make([]byte, g.fatSectors*g.sectorSize), next: rootDir}
	binary.LittleEndian.PutUint32(v.table[0:], 0x0ffffff8) // the medium, as in the boot sector
	binary.LittleEndian.PutUint32(v.table[4:], endOfChain)
	if err := v.allocate(root); err != nil {
		return err
	}
	if err := v.writeDir(root, nil); err != nil {
		return err
	}
	return v.writeHead(o)
}

// A node is a file or directory to be written.
type node struct {
	name     string
	file     *File   // nil for a directory
	children []*node // by name
	entries  []byte  // of a directory, the children's without their clusters
	at       []int   // where in entries each child's own entry is
	cluster  uint32  // the first, 0 for an empty file
	size     int64   // bytes
}

// plant turns the list into a tree.
func plant(files []File) (*node, error) {
	root := &node{}
	files = slices.Clone(files)
	slices.SortStableFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	for i := range files {
		f := &files[i]
		if err := root.plant(f); err != nil {
			return nil, fmt.Errorf("%q: %w", f.Path, err)
		}
	}
	return root, root.finish()
}

func (d *node) plant(f *File) error {
	rel := strings.TrimPrefix(path.Join("/", f.Path), "/")
	if rel == "" {
		return fmt.Errorf("the root cannot be a file")
	}
	for {
		name, rest, more := strings.Cut(rel, "/")
		if err := checkName(name); err != nil {
			return err
		}
		isDir := more || strings.HasSuffix(f.Path, "/")
		i := slices.IndexFunc(d.children, func(c *node) bool { return strings.EqualFold(c.name, name) })
		switch {
		case i < 0:
			c := &node{name: name}
			if !isDir {
				if f.Size < 0 || f.Size > maxFile {
					return fmt.Errorf("%d bytes are not a size of a file, expected 0 to %d", f.Size, maxFile)
				}
				c.file, c.size = f, f.Size
			}
			d.children = append(d.children, c)
			i = len(d.children) - 1
		case d.children[i].file != nil || !isDir || d.children[i].name != name:
			return fmt.Errorf("%q is there already; FAT does not tell upper from lower case", d.children[i].name)
		}
		if !more {
			return nil
		}
		d, rel = d.children[i], rest
	}
}

// finish lays out the entries of d and of all directories in it.
func (d *node) finish() error {
	slices.SortFunc(d.children, func(a, b *node) int { return strings.Compare(a.name, b.name) })
	used := map[[11]byte]bool{}
	for _, c := range d.children {
		short, exact, err := shortName(c.name, used)
		if err != nil {
			return err
		}
		used[short] = true
		if !exact {
			d.entries = append(d.entries, longEntries(c.name, short)...)
		}
		d.at = append(d.at, len(d.entries))
		e := make([]byte, entrySize)
		copy(e, short[:])
		e[11] = attrFile
		if c.file == nil {
			e[11] = attrDir
			if err := c.finish(); err != nil {
				return err
			}
		}
		d.entries = append(d.entries, e...)
	}
	return nil
}

// A volume is a file system being written.
type volume struct {
	geometry
	w        io.WriterAt
	label    [11]byte
	labelled bool // there is an entry for the label
	stamp    stamp
	table    []byte // FAT
	next     uint32 // first free cluster
}

// allocate gives clusters to all directories, then to all files.
func (v *volume) allocate(root *node) error {
	dirs := []*node{root}
	for i := 0; i < len(dirs); i++ {
		d := dirs[i]
		d.size = int64(2*entrySize + len(d.entries)) // "." and "..", in the root the label
		if d.size > 1<<21 {
			return fmt.Errorf("directory %q has more entries than 2 MiB hold", d.name)
		}
		if err := v.chain(d); err != nil {
			return err
		}
		for _, c := range d.children {
			if c.file == nil {
				dirs = append(dirs, c)
			}
		}
	}
	for _, d := range dirs {
		for _, c := range d.children {
			if c.file != nil {
				if err := v.chain(c); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (v *volume) chain(n *node) error {
	count := (n.size + v.clusterSize() - 1) / v.clusterSize()
	if count == 0 {
		return nil
	}
	if free := v.clusters - int64(v.next-rootDir); count > free {
		return fmt.Errorf("%q: %d clusters of %d bytes are wanted, %d are free", n.name, count, v.clusterSize(), free)
	}
	n.cluster = v.next
	for ; count > 0; count-- {
		value := v.next + 1
		if count == 1 {
			value = endOfChain
		}
		binary.LittleEndian.PutUint32(v.table[4*v.next:], value)
		v.next++
	}
	return nil
}

// writeDir writes d and all it holds.
func (v *volume) writeDir(d, parent *node) error {
	var b []byte
	if parent == nil && v.labelled {
		b = append(b, make([]byte, entrySize)...)
		copy(b, v.label[:])
		b[11], b[13] = attrVolume, v.stamp.odd
		binary.LittleEndian.PutUint16(b[22:], v.stamp.time)
		binary.LittleEndian.PutUint16(b[24:], v.stamp.date)
	}
	if parent != nil {
		up := parent.cluster
		if up == rootDir {
			up = 0 // the root is called 0 here
		}
		b = append(dot(".          ", d.cluster, v.stamp), dot("..         ", up, v.stamp)...)
	}
	for i, c := range d.children {
		e := d.entries[d.at[i]:][:entrySize]
		fill(e, c.cluster, v.stamp)
		if c.file != nil {
			binary.LittleEndian.PutUint32(e[28:], uint32(c.size))
		}
	}
	b = append(b, d.entries...)
	if err := v.writeClusters(d.cluster, bytes.NewReader(b), int64(len(b))); err != nil {
		return err
	}
	for _, c := range d.children {
		if err := v.writeNode(c, d); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

func (v *volume) writeNode(c, parent *node) error {
	if c.file == nil {
		return v.writeDir(c, parent)
	}
	r, err := c.file.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	return v.writeClusters(c.cluster, r, c.size)
}

func dot(name string, cluster uint32, s stamp) []byte {
	e := make([]byte, entrySize)
	copy(e, name)
	e[11] = attrDir
	fill(e, cluster, s)
	return e
}

// fill sets cluster and times of an entry.
func fill(e []byte, cluster uint32, s stamp) {
	e[13] = s.odd
	binary.LittleEndian.PutUint16(e[14:], s.time)
	binary.LittleEndian.PutUint16(e[16:], s.date)
	binary.LittleEndian.PutUint16(e[18:], s.date)
	binary.LittleEndian.PutUint16(e[20:], uint16(cluster>>16))
	binary.LittleEndian.PutUint16(e[22:], s.time)
	binary.LittleEndian.PutUint16(e[24:], s.date)
	binary.LittleEndian.PutUint16(e[26:], uint16(cluster))
}

// writeClusters writes size bytes of r, and zeros to the end of the last cluster. r must end there.
func (v *volume) writeClusters(cluster uint32, r io.Reader, size int64) error {
	if size > 0 {
		w := io.NewOffsetWriter(v.w, v.offset(cluster))
		if n, err := io.CopyN(w, r, size); err == io.EOF {
			return fmt.Errorf("expected %d bytes, found %d", size, n)
		} else if err != nil {
			return err
		}
		if rest := size % v.clusterSize(); rest != 0 {
			if _, err := w.Write(make([]byte, v.clusterSize()-rest)); err != nil {
				return err
			}
		}
	}
	if n, _ := io.ReadFull(r, make([]byte, 1)); n > 0 {
		return fmt.Errorf("expected %d bytes, found more", size)
	}
	return nil
}

// writeHead writes everything in front of the clusters. It comes last, so that a file system that was only half
// written is not taken for one.
func (v *volume) writeHead(o Options) error {
	boot := v.bootSector(o)
	info := make([]byte, headerSize)
	binary.LittleEndian.PutUint32(info, 0x41615252)
	binary.LittleEndian.PutUint32(info[484:], 0x61417272)
	binary.LittleEndian.PutUint32(info[488:], uint32(v.clusters)-(v.next-rootDir))
	binary.LittleEndian.PutUint32(info[492:], v.next)
	binary.LittleEndian.PutUint32(info[508:], 0xaa550000)
	head := make([]byte, reserved*v.sectorSize)
	for _, s := range []int64{0, 6} {
		copy(head[s*v.sectorSize:], boot)
		copy(head[(s+1)*v.sectorSize:], info)
	}
	for i := range int64(fats) {
		if _, err := v.w.WriteAt(v.table, (reserved+i*v.fatSectors)*v.sectorSize); err != nil {
			return err
		}
	}
	_, err := v.w.WriteAt(head, 0)
	return err
}

// bootSector is section 3 of the specification, for FAT32.
func (v *volume) bootSector(o Options) []byte {
	b := make([]byte, headerSize)
	copy(b, "\xeb\xfe\x90") // a jump to itself: nobody starts this
	copy(b[3:], "MSWIN4.1")
	binary.LittleEndian.PutUint16(b[11:], uint16(v.sectorSize))
	b[13] = byte(v.perCluster)
	binary.LittleEndian.PutUint16(b[14:], reserved)
	b[16] = fats
	b[21] = 0xf8                               // a fixed disk
	binary.LittleEndian.PutUint16(b[24:], 63)  // sectors per track and heads: of no use, but
	binary.LittleEndian.PutUint16(b[26:], 255) // some readers refuse zeros
	binary.LittleEndian.PutUint32(b[28:], o.HiddenSectors)
	binary.LittleEndian.PutUint32(b[32:], uint32(v.sectors))
	binary.LittleEndian.PutUint32(b[36:], uint32(v.fatSectors))
	binary.LittleEndian.PutUint32(b[44:], rootDir)
	binary.LittleEndian.PutUint16(b[48:], 1) // FSInfo
	binary.LittleEndian.PutUint16(b[50:], 6) // copy of this sector
	b[64] = 0x80                             // drive
	b[66] = 0x29                             // the next three are there
	binary.LittleEndian.PutUint32(b[67:], o.Serial)
	copy(b[71:], v.label[:])
	copy(b[82:], "FAT32   ")
	b[510], b[511] = 0x55, 0xaa
	return b
}

func packLabel(label string) (l [11]byte, err error) {
	if label == "" {
		label = "NO NAME"
	}
	bad := func(r rune) bool {
		return !(r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-' || r == ' ')
	}
	if len(label) > len(l) || strings.ContainsFunc(label, bad) {
		return l, fmt.Errorf("label %q: expected up to 11 of A-Z, 0-9, _ and -", label)
	}
	copy(l[:], "           ")
	copy(l[:], label)
	return l, nil
}

// A stamp is a time as directory entries keep it.
type stamp struct {
	date, time uint16
	odd        byte // hundredths of a second
}

func newStamp(t time.Time) stamp {
	t = t.UTC()
	if first := time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC); t.Before(first) {
		t = first
	}
	if last := time.Date(2107, 12, 31, 23, 59, 59, 0, time.UTC); t.After(last) {
		t = last
	}
	return stamp{
		date: uint16((t.Year()-1980)<<9 | int(t.Month())<<5 | t.Day()),
		time: uint16(t.Hour()<<11 | t.Minute()<<5 | t.Second()/2),
		odd:  byte(t.Second() % 2 * 100),
	}
}

// value is the time of a stamp.
func (s stamp) value() time.Time {
	return time.Date(1980+int(s.date>>9), time.Month(s.date>>5&15), int(s.date&31), int(s.time>>11), int(s.time>>5&63), int(s.time&31)*2+int(s.odd/100), 0, time.UTC)
}
