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
	"unicode/utf16"
)

// An FS is an opened FAT32 file system. It reads what Write, Linux, mtools and UEFI firmware write, and trusts none
// of it: a chain of clusters that loops or leaves the file system is an error. It sees the state at the time of each
// call.
type FS struct {
	r io.ReaderAt
	geometry
	dataStart int64 // bytes
	fatStart  int64 // bytes
	root      uint32
	label     string
	serial    uint32
	hidden    uint32
}

// An Entry is a file or directory in an FS.
type Entry struct {
	Name string // its long name if it has one
	Dir  bool
	Size int64 // bytes, 0 for directories

	cluster uint32
}

const (
	maxDir   = 1 << 21 // bytes of a directory, limited by the specification
	maxDepth = 32      // directories in directories that Files follows
	maxDirs  = 1000    // directories that Files reads
)

// Open reads the boot sector.
func Open(r io.ReaderAt) (*FS, error) {
	f, err := open(r)
	if err != nil {
		return nil, fmt.Errorf("open FAT file system: %w", err)
	}
	return f, nil
}

func open(r io.ReaderAt) (*FS, error) {
	b := make([]byte, headerSize)
	if err := readAt(r, b, 0); err != nil {
		return nil, fmt.Errorf("read boot sector: %w", err)
	}
	le := binary.LittleEndian
	if le.Uint16(b[510:]) != 0xaa55 {
		return nil, fmt.Errorf("no boot sector: it ends in %x, expected 55aa", b[510:])
	}
	sectorSize := int64(le.Uint16(b[11:]))
	if sectorSize != 512 && sectorSize != 4096 || le.Uint16(b[17:]) != 0 || le.Uint16(b[22:]) != 0 {
		return nil, fmt.Errorf("not a FAT32 with sectors of 512 or 4096 bytes")
	}
	f := &FS{r: r, root: le.Uint32(b[44:]), serial: le.Uint32(b[67:]), label: strings.TrimRight(string(b[71:82]), " "), hidden: le.Uint32(b[28:])}
	f.sectorSize = sectorSize
	f.sectors, f.perCluster, f.fatSectors = int64(le.Uint32(b[32:])), int64(b[13]), int64(le.Uint32(b[36:]))
	start := int64(le.Uint16(b[14:]))
	data := start + int64(b[16])*f.fatSectors
	if f.perCluster == 0 || f.perCluster&(f.perCluster-1) != 0 || b[16] == 0 || start == 0 || data >= f.sectors {
		return nil, fmt.Errorf("boot sector makes no sense: %d sectors, %d in a cluster, %d in front of %d FATs of %d",
			f.sectors, f.perCluster, start, b[16], f.fatSectors)
	}
	f.clusters = min((f.sectors-data)/f.perCluster, f.fatSectors*sectorSize/4-rootDir, maxFAT32)
	f.fatStart, f.dataStart = start*sectorSize, data*sectorSize
	if !f.valid(f.root) {
		return nil, fmt.Errorf("root directory is said to be in cluster %d of %d", f.root, f.clusters)
	}
	return f, nil
}

// Options returns what Write needs to make a file system of the same size, label, serial number and sectors, and of the time of the label's
// entry in the root directory, if there is one. What Write has made, it makes again from Options and Files, byte for byte.
func (f *FS) Options() Options {
	label := f.label
	if label == "NO NAME" {
		label = ""
	}
	return Options{Size: f.sectors * f.sectorSize, Label: label, Serial: f.serial, Time: f.labelled(), SectorSize: int(f.sectorSize), HiddenSectors: f.hidden}
}

// labelled is when the label's entry was written.
func (f *FS) labelled() time.Time {
	b, err := f.chain(f.root, -1)
	if err != nil {
		return time.Time{}
	}
	for ; len(b) >= entrySize && b[0] != 0; b = b[entrySize:] {
		if e := b[:entrySize]; e[0] != 0xe5 && e[11]&0x3f == attrVolume {
			return stamp{time: binary.LittleEndian.Uint16(e[22:]), date: binary.LittleEndian.Uint16(e[24:]), odd: e[13]}.value()
		}
	}
	return time.Time{}
}

// ReadDir returns what is in a directory, in the order of names. Upper and lower case are the same in dir.
func (f *FS) ReadDir(dir string) ([]Entry, error) {
	e, err := f.find(dir)
	if err != nil {
		return nil, err
	}
	list, err := f.entries(e)
	if err != nil {
		return nil, fmt.Errorf("read directory %q: %w", dir, err)
	}
	return list, nil
}

// ReadFile returns the content of a file. Upper and lower case are the same.
func (f *FS) ReadFile(name string) ([]byte, error) {
	e, err := f.find(name)
	if err != nil {
		return nil, err
	}
	if e.Dir {
		return nil, fmt.Errorf("read %q: it is a directory", name)
	}
	b, err := f.chain(e.cluster, e.Size)
	if err != nil {
		return nil, fmt.Errorf("read %q: %w", name, err)
	}
	return b, nil
}

// Files returns all files and all empty directories with their contents in memory, as Write takes them. Read them,
// change the list, and Write to the same place to change a file system.
func (f *FS) Files() ([]File, error) {
	dirs := maxDirs
	return f.files("", Entry{Dir: true, cluster: f.root}, &dirs)
}

func (f *FS) files(dir string, e Entry, dirs *int) ([]File, error) {
	if *dirs--; *dirs < 0 || strings.Count(dir, "/") > maxDepth {
		return nil, fmt.Errorf("%q: more than %d directories or %d levels of them; is there a loop?", dir, maxDirs, maxDepth)
	}
	list, err := f.entries(e)
	if err != nil {
		return nil, fmt.Errorf("read directory %q: %w", dir, err)
	}
	if len(list) == 0 && dir != "" {
		return []File{{Path: dir + "/"}}, nil
	}
	var out []File
	for _, c := range list {
		name := path.Join(dir, c.Name)
		if c.Dir {
			sub, err := f.files(name, c, dirs)
			if err != nil {
				return nil, err
			}
			out = append(out, sub...)
			continue
		}
		b, err := f.chain(c.cluster, c.Size)
		if err != nil {
			return nil, fmt.Errorf("read %q: %w", name, err)
		}
		out = append(out, BytesFile(name, b))
	}
	return out, nil
}

// BytesFile is a File with its content in memory.
func BytesFile(name string, b []byte) File {
	return File{Path: name, Size: int64(len(b)), Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }}
}

func (f *FS) find(name string) (Entry, error) {
	e := Entry{Dir: true, cluster: f.root}
	for part := range strings.SplitSeq(strings.Trim(path.Join("/", name), "/"), "/") {
		if part == "" {
			continue
		}
		list, err := f.entries(e)
		if err != nil {
			return Entry{}, fmt.Errorf("find %q: %w", name, err)
		}
		i := slices.IndexFunc(list, func(c Entry) bool { return strings.EqualFold(c.Name, part) })
		if i < 0 {
			return Entry{}, fmt.Errorf("find %q: no %q there", name, part)
		}
		e = list[i]
	}
	return e, nil
}

func (f *FS) valid(cluster uint32) bool {
	return cluster >= rootDir && int64(cluster-rootDir) < f.clusters
}

// chain reads size bytes from the clusters that begin with the given one; a size of -1 means to the chain's end.
func (f *FS) chain(cluster uint32, size int64) ([]byte, error) {
	whole := size < 0
	if whole {
		size = maxDir
	}
	var out bytes.Buffer
	b := make([]byte, f.clusterSize())
	// Brent's search for loops: compare with a cluster seen before, at distances that double. Without it a small file system
	// could yield gigabytes.
	seen, steps, distance := uint32(0), 0, 1
	for left := size; left > 0; left -= f.clusterSize() {
		if whole && cluster >= endOfChain-7 {
			break
		}
		if !f.valid(cluster) {
			return nil, fmt.Errorf("the chain leads to cluster %d of %d, %d bytes before the end", cluster, f.clusters, left)
		}
		if cluster == seen {
			return nil, fmt.Errorf("the chain comes back to cluster %d", cluster)
		}
		if steps++; steps == distance {
			seen, steps, distance = cluster, 0, 2*distance
		}
		b = b[:min(left, f.clusterSize())]
		if err := readAt(f.r, b, f.dataStart+int64(cluster-rootDir)*f.clusterSize()); err != nil {
			return nil, err
		}
		out.Write(b)
		var next [4]byte
		if err := readAt(f.r, next[:], f.fatStart+4*int64(cluster)); err != nil {
			return nil, err
		}
		cluster = binary.LittleEndian.Uint32(next[:]) & 0x0fffffff
	}
	return out.Bytes(), nil
}

func readAt(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// entries returns what the directory d holds, sorted.
func (f *FS) entries(d Entry) ([]Entry, error) {
	if !d.Dir {
		return nil, fmt.Errorf("%q is not a directory", d.Name)
	}
	b, err := f.chain(d.cluster, -1)
	if err != nil {
		return nil, err
	}
	var list []Entry
	var long longName
	for ; len(b) >= entrySize && b[0] != 0; b = b[entrySize:] {
		e := b[:entrySize]
		switch {
		case e[0] == 0xe5: // deleted
			long = longName{}
		case e[11]&0x3f == attrLong:
			long.add(e)
		case e[11]&attrVolume != 0, e[0] == '.':
			long = longName{}
		default:
			name, ok := long.name([11]byte(e))
			if !ok {
				name = shortText(e)
			}
			long = longName{}
			if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
				return nil, fmt.Errorf("name %q cannot be one", name)
			}
			c := Entry{Name: name, Dir: e[11]&attrDir != 0, Size: int64(binary.LittleEndian.Uint32(e[28:])),
				cluster: uint32(binary.LittleEndian.Uint16(e[20:]))<<16 | uint32(binary.LittleEndian.Uint16(e[26:]))}
			if c.Dir {
				c.Size = 0
			}
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// A longName gathers the parts of a long name, which come last part first.
type longName struct {
	units []uint16
	next  byte // number of the part that must follow; 0 after the last
	sum   byte
}

func (l *longName) add(e []byte) {
	n := e[0] & 0x3f
	if e[0]&0x40 != 0 {
		*l = longName{next: n, sum: e[13]}
	}
	if n == 0 || n != l.next || e[13] != l.sum || int(n)*perEntry > maxName+perEntry {
		*l = longName{} // an orphan; the short name counts
		return
	}
	part := make([]uint16, 0, perEntry)
	for _, off := range longOffsets() {
		part = append(part, binary.LittleEndian.Uint16(e[off:]))
	}
	l.units = append(part, l.units...)
	l.next--
}

// name returns the gathered name if it is whole and belongs to this short name.
func (l *longName) name(short [11]byte) (string, bool) {
	if len(l.units) == 0 || l.next != 0 || l.sum != checksum(short) {
		return "", false
	}
	u := l.units
	if i := slices.Index(u, 0); i >= 0 {
		u = u[:i]
	}
	return string(utf16.Decode(u)), true
}

// shortText is the name of an entry without a long one. Bits 3 and 4 of byte 12 say that its halves are lower case,
// as Windows and Linux write them.
func shortText(e []byte) string {
	base, ext := strings.TrimRight(string(e[:8]), " "), strings.TrimRight(string(e[8:11]), " ")
	if e[0] == 0x05 {
		base = "\xe5" + base[1:]
	}
	if e[12]&0x08 != 0 {
		base = strings.ToLower(base)
	}
	if e[12]&0x10 != 0 {
		ext = strings.ToLower(ext)
	}
	if ext == "" {
		return base
	}
	return base + "." + ext
}
